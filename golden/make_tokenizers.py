"""Writes the goldens of GGUF tokenizers: what llama.cpp and SentencePiece make of texts that are hard to cut.

    python make_tokenizers.py LLAMA_SERVER [OUT]

LLAMA_SERVER is llama.cpp's server, asked over loopback for tokens; OUT defaults to this script's folder. It needs gguf, numpy,
sentencepiece and tokenizers. The vocabularies are trained on random strings without cutting them first, so that merges reach across
every boundary that a pre-tokenizer might draw: a boundary in the wrong place changes the ids.
"""
import json, random, socket, subprocess, sys, tempfile, time, unicodedata, urllib.request
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PRE_TOKENIZERS = ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-v3", "default"]
# Runs of few different characters: merges of every length, within a class of characters and across classes.
FRAGMENTS = ["a", "ab", "aB", "é", "ñ", "1", "12", "123", "½", "٣", " ", "  ", "\t", "\n", "\r\n", "\n\n", "'s", "'LL", "'D", "'", "’s", ".", ",", "...", "_", "-"]
FRAGMENTS += ["()", "[x]", "$", "+=", "<", "|", "#", "\\", "東京", "ひら", "カタ", "日", "한", "При", "🐋", "👨\u200d👩", "\u200b", "\u00a0", "\u3000", "a\u0301"]


def strings(seed, count, longest):
    generator = random.Random(seed)
    return ["".join(generator.choice(FRAGMENTS) for _ in range(generator.randint(1, longest))) for _ in range(count)]


def write(path, vocabulary, whole):
    """A GGUF file with a vocabulary; `whole` adds the tensors of a tiny model, without which llama.cpp loads nothing."""
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary(writer)
    if whole:
        count = whole
        writer.add_block_count(1), writer.add_context_length(4096), writer.add_embedding_length(32)
        writer.add_feed_forward_length(32), writer.add_head_count(4), writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5), writer.add_vocab_size(count), writer.add_rope_dimension_count(8)
        shapes = {"token_embd": (count, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
        shapes |= {f"blk.0.{name}": (32, 32) for name in ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
        shapes |= {f"blk.0.{name}": (16, 32) for name in ("attn_k", "attn_v")}
        for name, shape in shapes.items():
            writer.add_tensor(f"{name}.weight", np.full(shape, 0.01, np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file()
    if whole:
        writer.write_tensors_to_file()
    writer.close()


def ask_llama_cpp(server, vocabulary, count, texts):
    """Ids of each text: bare, and with what the model puts around a text."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        write(f"{folder}/whole.gguf", vocabulary, count)
        command = [server, "-m", f"{folder}/whole.gguf", "--host", "127.0.0.1", "--port", str(port), "-c", "64", "-t", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def tokens(text, around):
            body = json.dumps({"content": text, "add_special": around, "parse_special": True}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/tokenize", body, {"Content-Type": "application/json"})
            return json.load(urllib.request.urlopen(request))["tokens"]

        try:
            for attempt in range(200):
                try:
                    tokens("a", False)
                    break
                except OSError:
                    assert attempt < 199, "llama.cpp's server did not come up"
                    time.sleep(0.1)
            return [{"text": text, "ids": tokens(text, False), "around": tokens(text, True)} for text in texts]
        finally:
            process.terminate()
            process.wait()


def byte_level():
    """A byte-level BPE of 1500 tokens, its first three special or added; (tokens, kinds, merges)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<tool>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        strings(1, 20000, 8), trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.USER_DEFINED] + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    return tokens, kinds, [" ".join(pair) for pair in model["merges"]]


def sentence_piece(folder):
    """A SentencePiece BPE of 500 pieces with byte fallback."""
    Path(f"{folder}/corpus.txt").write_text("\n".join(text.replace("\n", " ").replace("\r", " ") for text in strings(2, 5000, 15)))
    sentencepiece.SentencePieceTrainer.train(
        input=f"{folder}/corpus.txt", model_prefix=f"{folder}/model", vocab_size=500, model_type="bpe", byte_fallback=True,
        character_coverage=0.98, add_dummy_prefix=True, remove_extra_whitespaces=False, normalization_rule_name="identity",
        allow_whitespace_only_pieces=True, user_defined_symbols=["<tool>"], minloglevel=2, num_threads=1,
    )
    return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/model.model")


def main(server, out):
    texts = ["", " ", "   ", "a", " a", "  a", "it's we'LL I'd", "1234567 12.5", "x=3;\n\n  y", "naïve café", "<|end|>a<tool>b<|end |>", "\r\n\t "]
    texts += [text for text in strings(3, 120, 12) if unicodedata.normalize("NFC", text) == text]

    tokens, kinds, merges = byte_level()

    def byte_level_keys(pre):
        def keys(writer):
            writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre(pre), writer.add_token_list(tokens)
            writer.add_token_types(kinds), writer.add_token_merges(merges), writer.add_bos_token_id(0), writer.add_eos_token_id(1)

        return keys

    # One file, whose pre-tokenizer the test replaces by each.
    write(out / "gguf/byte-level-vocabulary.gguf", byte_level_keys("PRE"), None)
    expected = {pre: ask_llama_cpp(server, byte_level_keys(pre), len(tokens), texts) for pre in PRE_TOKENIZERS}
    write_json(out / "gguf/byte-level-vocabulary.json", expected)

    with tempfile.TemporaryDirectory() as folder:
        pieces = sentence_piece(folder)
        kind = gguf.TokenType
        ids = range(pieces.vocab_size())
        kinds = [
            kind.UNKNOWN if pieces.is_unknown(i) else kind.CONTROL if pieces.is_control(i) else kind.BYTE if pieces.is_byte(i)
            else kind.USER_DEFINED if pieces.id_to_piece(i) == "<tool>" else kind.NORMAL
            for i in ids
        ]

        def keys(writer):
            writer.add_tokenizer_model("llama"), writer.add_tokenizer_pre("default")
            writer.add_token_list([pieces.id_to_piece(i).encode() for i in ids])
            writer.add_token_scores([pieces.get_score(i) for i in ids]), writer.add_token_types(kinds)
            writer.add_bos_token_id(1), writer.add_eos_token_id(2), writer.add_unk_token_id(0)

        write(out / "gguf/sentencepiece-vocabulary.gguf", keys, None)
        cases = ask_llama_cpp(server, keys, pieces.vocab_size(), texts)
        # SentencePiece itself knows no special tokens in a text, and llama.cpp starts anew behind one.
        plain = [case for case in cases if case["text"] and "<" not in case["text"]]
        assert len(plain) > 30 and all(pieces.encode(case["text"]) == case["ids"] for case in plain)
        write_json(out / "gguf/sentencepiece-vocabulary.json", {"llama": cases})


def write_json(path, value):
    lines = (f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]" for key, cases in value.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
