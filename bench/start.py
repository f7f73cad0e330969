#!/usr/bin/env python3
"""How long a model takes to start, and what memory it takes: a first start, which packs the weights, and later ones.
usage: start.py [GGUF...] [--random GB] [--llamacpp DIR]

Without a GGUF a random Llama in Q4_0 of so many gigabytes (4) is made in `target/start/`, which
needs numpy and gguf. Each model is started in an empty MINKE_HOME, then again. Times are medians, of the whole process but for
`ready`, which is from its first line of code until it would read a prompt; memory is the most that was resident.
With llama.cpp's programs in DIR, its llama-completion goes on from the same words in turn, without the chat template
around them that minke reads as well."""
import argparse, json, os, re, subprocess, sys, tempfile, time

import common

PROMPT, TOKENS, REPETITIONS = "Why is the sea salty?", 16, 5


def random_llama(path, gigabytes):
    """A Llama with 7B's widths, in as many layers as fit, with weights and merges drawn at random."""
    import gguf, numpy

    hidden, wide, heads, vocabulary = 4096, 11008, 32, 32000
    layer = (4 * hidden * hidden + 3 * hidden * wide) * 18 // 32
    layers = max(1, round((gigabytes * 1e9 - 2 * vocabulary * hidden * 18 // 32) / layer))
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_block_count, layers), (writer.add_context_length, 8192), (writer.add_embedding_length, hidden),
        (writer.add_feed_forward_length, wide), (writer.add_head_count, heads), (writer.add_head_count_kv, heads),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 10000.0), (writer.add_vocab_size, vocabulary),
        (writer.add_rope_dimension_count, hidden // heads), (writer.add_file_type, 2), (writer.add_quantization_version, 2),
    ]:
        add(value)
    # GPT-2's letters for bytes, then pairs of what there is.
    plain = [b for b in range(256) if chr(b).isprintable() and b != 32 and b != 173]
    others = [b for b in range(256) if b not in plain]
    tokens = ["<|end|>"] + [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]
    known, merges = set(tokens), []
    while len(tokens) < vocabulary:
        a, b = (tokens[i] for i in random.integers(1, len(tokens), 2))
        if a + b not in known and len(a + b) < 20:
            known.add(a + b)
            tokens.append(a + b)
            merges.append(f"{a} {b}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def matrix(name, rows, columns):
        blocks = random.integers(0, 256, (rows, columns // 32, 18), dtype=numpy.uint8)
        blocks[:, :, :2] = numpy.frombuffer(numpy.float16(0.2 / columns**0.5).tobytes(), numpy.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    writer.use_temp_file = True
    matrix("token_embd.weight", vocabulary, hidden)
    ones = numpy.ones(hidden, numpy.float32)
    for i in range(layers):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            matrix(f"blk.{i}.{name}.weight", hidden, hidden)
        matrix(f"blk.{i}.ffn_gate.weight", wide, hidden)
        matrix(f"blk.{i}.ffn_up.weight", wide, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, wide)
    writer.add_tensor("output_norm.weight", ones)
    matrix("output.weight", vocabulary, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def once(command, **environment):
    """Runs a program: seconds, the most memory that was resident in MB, and what it said on stderr."""
    with tempfile.TemporaryFile("w+") as said, common.watched():
        start = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | environment
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        said.seek(0)
        text = said.read()
    if status:
        raise RuntimeError(f"{' '.join(command)}: {text[-400:]}")
    return seconds, usage.ru_maxrss / 1000, text


def minke(program, model, home, tokens):
    command = [program, "chat", model, PROMPT, "--temperature", "0", "--max-tokens", str(tokens), "--timings"]
    seconds, megabytes, said = once(command, MINKE_HOME=home)
    ready = float(re.search(r"ready after (\d+) ms", said)[1]) / 1000
    return {"seconds": round(seconds, 3), "ready": ready, "resident_mb": round(megabytes)}


def median(runs):
    """The run in the middle by its time."""
    return sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--random", type=float, default=4, metavar="GB")
    parser.add_argument("--llamacpp", metavar="DIR")
    parser.add_argument("--minke", metavar="PROGRAM", help="instead of one that is built now")
    arguments = parser.parse_args()
    program = arguments.minke or os.path.join(common.build("-p", "minke"), "minke")
    models = arguments.models
    if not models:
        directory = os.path.join(common.ROOT, "target", "start")
        os.makedirs(directory, exist_ok=True)
        models = [os.path.join(directory, f"random-{arguments.random:g}gb.gguf")]
        if not os.path.exists(models[0]):
            print(f"making {models[0]}", file=sys.stderr)
            random_llama(models[0] + ".partial", arguments.random)
            os.rename(models[0] + ".partial", models[0])
    for model in models:
        # Both read what the system has in memory.
        with open(model, "rb") as f:
            while f.read(1 << 24):
                pass
        gigabytes = os.path.getsize(model) / 1e9
        repetitions, tokens = (REPETITIONS, TOKENS) if gigabytes < 1 else (2, 2)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(model))) as home:
            result = {"model": os.path.basename(model), "gigabytes": round(gigabytes, 2), "tokens": tokens}
            result["first"] = minke(program, model, home, tokens)
            ours, theirs = [], []
            for _ in range(repetitions):
                ours.append(minke(program, model, home, tokens))
                if arguments.llamacpp:
                    command = [os.path.join(arguments.llamacpp, "llama-completion"), "-m", model, "-p", PROMPT]
                    command += ["-n", str(tokens), "--temp", "0", "-t", str(os.cpu_count()), "-no-cnv"]
                    seconds, megabytes, _ = once(command)
                    theirs.append({"seconds": round(seconds, 3), "resident_mb": round(megabytes)})
            result["later"] = median(ours)
            if theirs:
                result["llamacpp"] = median(theirs)
                ratios = sorted(a["seconds"] / b["seconds"] for a, b in zip(ours, theirs))
                result["ratio"] = round(ratios[len(ratios) // 2], 3)
            print(json.dumps(result | common.where()), flush=True)


if __name__ == "__main__":
    main()
