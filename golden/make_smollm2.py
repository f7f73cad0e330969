"""Writes what transformers makes of a real model, SmolLM2-135M-Instruct in a Q4_1 GGUF file: greedy text, perplexity, tokens, chats.

    python make_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf [OUT] [--keep DIR]

The weights are dequantised by gguf-py to f32 and run by LlamaForCausalLM with eager attention on one thread, about one
minute. OUT defaults to smollm2/ beside this script; --keep writes the same model as a Hugging Face directory for other uses.
The tokenizer is built from the file's own vocabulary and merges with the pre-tokenizer that the file names, "smollm" (digits
one by one, then GPT-2's pattern), as SmolLM2's published tokenizer.json has it: transformers' own reading of the GGUF file
leaves the digits out, and so splits runs of spaces before a digit otherwise.
"""
import argparse, json, math, os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from make_golden import write_json

# None of them ends within 64 tokens, so that a reader that stops at <|im_end|> and one that does not agree.
PROMPTS = [
    "Once upon a time, a whale",
    "The sea was calm and the sky",
    "She opened the door and",
    "To sort a list in Python, you can",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
]
TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "a", " a", "  a", "a ", "a  ", "hello world", "Hello,  World!", "   leading and trailing   ",
    "tabs\tand\n\nnewlines\r\n\r\nmixed \t \n end", "1", " 1", "  1", "a  1", "12345 67.89 -0.5e+10", "x1y22z333", "½ ² ① Ⅷ ٣٤ 一二", "3.14159,2.71828;1,000,000",
    "don't won't it's I'd we'll they've I'M O'Neil 'tis", "naïve café résumé Zürich", "e\u0301 vs \u00e9", "東京タワー 你好,世界 한국어", "Привет, мир! مرحبا שלום",
    "🐋 👨‍👩‍👧‍👦 🇫🇷 👍🏽 ☃️", "\u00a0\u2003\u200b\u3000 odd spaces", "\x00\x01\x7f control", "\ufeffbom \ufffd", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "for (int i = 0; i < 10; ++i) {\n\t\tx[i] += 0x1F; // done\n}\n", "def f(x):\n    return x**2  # square\n\n\nprint(f(3))",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|> <|im_start |><|endoftext|><|unknown|>", "<repo_name>a/b<file_sep>c.py", "<think>17+25=42</think>42",
    "https://example.org/a?b=c&d=%20e#f", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "!!!???...---===", "$\\frac{a}{b} \\leq \\sum_{i=1}^n x_i$",
]
CHATS = [
    [dict(role="user", content="What is 17 plus 25?")],
    [dict(role="system", content="You are terse."), dict(role="user", content="Name a whale."), dict(role="assistant", content="Minke."), dict(role="user", content="Another?")],
    [dict(role="user", content="  Spaces, \"quotes\", <tags> & {{ braces }}\n\nnaïve 🐋  "), dict(role="assistant", content="<think>hm</think>ok")],
]


def read(path):
    """The model in f32 and the tokenizer of a llama GGUF file."""
    r = gguf.GGUFReader(path)
    get = lambda key: r.fields[key].contents()
    heads, kv_heads = get("llama.attention.head_count"), get("llama.attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=get("llama.vocab_size"), hidden_size=get("llama.embedding_length"), intermediate_size=get("llama.feed_forward_length"),
        num_hidden_layers=get("llama.block_count"), num_attention_heads=heads, num_key_value_heads=kv_heads, rms_norm_eps=1e-5,
        max_position_embeddings=get("llama.context_length"), rope_parameters=dict(rope_type="default", rope_theta=get("llama.rope.freq_base")),
        tie_word_embeddings=True, bos_token_id=get("tokenizer.ggml.bos_token_id"), eos_token_id=get("tokenizer.ggml.eos_token_id"), attn_implementation="eager")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    tensors = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()) for t in r.tensors}
    assert "output.weight" not in tensors  # tied
    model = LlamaForCausalLM(config).float().eval()
    for name, p in model.named_parameters():
        t = tensors.pop(names.get_name(name, try_suffixes=(".weight",)) + ("" if name.endswith(".weight") else ".weight"))
        for key, n in (("q_proj", heads), ("k_proj", kv_heads)):
            if key in name:  # the file has rotated pairs (2i, 2i+1); transformers wants halves
                t = t.reshape(n, t.shape[0] // n // 2, 2, -1).transpose(1, 2).reshape(t.shape)
        p.data.copy_(t)
    assert not tensors, tensors.keys()

    tokens, kinds = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type")
    assert get("tokenizer.ggml.pre") == "smollm" and not get("tokenizer.ggml.add_bos_token")
    bpe = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in get("tokenizer.ggml.merges")])
    tok = Tokenizer(bpe)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == gguf.TokenType.CONTROL])
    hf = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=tokens[config.bos_token_id], eos_token=tokens[config.eos_token_id], pad_token=tokens[config.eos_token_id])
    hf.chat_template = get("tokenizer.chat_template")
    return model, hf


def greedy(model, tok, prompt, count):
    """`count` greedy tokens by generate() with its cache, and again by one pass over the whole, which must agree."""
    ids = tok(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0)[0]
    with torch.no_grad():
        logits = model(out[None, :-1]).logits[0, ids.shape[1] - 1:]
    new = out[ids.shape[1]:]
    top = logits.topk(2, dim=-1)
    assert torch.equal(top.indices[:, 0], new)
    assert model.config.eos_token_id not in new, "this prompt would stop early; take another"
    return dict(prompt=prompt, prompt_ids=ids[0].tolist(), ids=new.tolist(), text=tok.decode(new, clean_up_tokenization_spaces=False),
                margin=(top.values[:, 0] - top.values[:, 1]).min().item())


def perplexity(model, tok, text):
    ids = tok(text, return_tensors="pt").input_ids
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()
    return dict(convention="one pass over the whole text, no BOS; mean over every token but the first, each given all before it",
                file="text.txt", tokens=ids.shape[1], predicted=ids.shape[1] - 1, nll=nll, perplexity=math.exp(nll))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent / "smollm2")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    args = parser.parse_args()
    model, tok = read(args.gguf)
    if args.keep:
        model.save_pretrained(args.keep)
        tok.save_pretrained(args.keep)
    one = lambda t: dict(text=t, ids=tok(t).input_ids, decoded=tok.decode(tok(t).input_ids, clean_up_tokenization_spaces=False))
    write_json(args.out / "tokens.json", {str(i): one(t) for i, t in enumerate(TEXTS)})
    render = lambda c, g: dict(messages=c, add_generation_prompt=g, text=tok.apply_chat_template(c, tokenize=False, add_generation_prompt=g),
                               ids=tok.apply_chat_template(c, add_generation_prompt=g, return_dict=False))
    write_json(args.out / "chat.json", {str(i): render(c, g) for i, (c, g) in enumerate((c, g) for c in CHATS for g in (True, False))})
    write_json(args.out / "perplexity.json", perplexity(model, tok, (args.out / "text.txt").read_text()))
    write_json(args.out / "greedy.json", {str(i): greedy(model, tok, p, 64) for i, p in enumerate(PROMPTS)})
