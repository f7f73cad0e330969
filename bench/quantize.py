#!/usr/bin/env python3
"""minke quantize beside llama-quantize: files of every type from the same weights, and how well llama.cpp predicts a text with each.

usage: bench/quantize.py GGUF --llamacpp DIR [--minke FILE] [--chunks 4] [--threads 2] [--out FILE]

GGUF is SmolLM2-135M-Instruct.Q4_1.gguf (golden/README.md says where it comes from); minke makes it F32, and that is what both
start from. DIR has llama-quantize and llama-perplexity; the text is docs/policy.md. Every type that rounds is made twice, the
second time with an importance matrix: random numbers, since only the same in both programs matters here. It is an error if a
perplexity is more than a hundredth above llama-quantize's, or a tensor's type another.
"""
import argparse, hashlib, json, os, random, re, struct, subprocess, sys, tempfile

from common import ROOT, build, run, where, write

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S",
         "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"]
TOLERANCE = 0.01
TEXT = os.path.join(ROOT, "docs/policy.md")


def tensors(path):
    """Name to (columns, type's number, digest of the bytes) of a GGUF file's tensors."""
    with open(path, "rb") as f:
        take = lambda form: struct.unpack("<" + form, f.read(struct.calcsize("<" + form)))
        text = lambda: f.read(take("Q")[0]).decode()

        def skip(kind):
            if kind == 8:
                text()
            elif kind == 9:
                element, count = take("IQ")
                for _ in range(count):
                    skip(element)
            else:
                f.read({0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}[kind])

        _, _, count, keys = take("4sIQQ")
        for _ in range(keys):
            text(), skip(take("I")[0])
        rows = []
        for _ in range(count):
            name = text()
            shape = take(f"{take('I')[0]}Q")
            rows.append((name, shape[0], *take("IQ")))
        start = -(-f.tell() // 32) * 32
        rows.sort(key=lambda row: row[3])
        ends = [row[3] for row in rows[1:]] + [os.path.getsize(path) - start]
        table = {}
        for (name, columns, kind, offset), end in zip(rows, ends):
            f.seek(start + offset)
            table[name] = (columns, kind, hashlib.blake2b(f.read(end - offset)).digest())
        return table


def write_importance(path, rows):
    """An importance matrix in the older of llama.cpp's formats."""
    generator = random.Random(7)
    names = [name for name in rows if name.startswith("blk.") and name.endswith("weight") and "norm" not in name]
    with open(path, "wb") as f:
        f.write(struct.pack("<i", len(names)))
        for name in names:
            columns = rows[name][0]
            values = [generator.lognormvariate(0, 1.5) for _ in range(columns)]
            f.write(struct.pack(f"<i{len(name)}sii{columns}f", len(name), name.encode(), 1, columns, *values))
        # The last call and the data set's name, which readers expect behind it.
        f.write(struct.pack("<ii", 1, 4) + b"none")


def perplexity(llamacpp, model, a):
    command = [os.path.join(llamacpp, "llama-perplexity"), "-m", model, "-f", TEXT, "-c", "512", "--chunks", str(a.chunks), "-t", str(a.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", done.stdout + done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-400:]}")
    return float(found[1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gguf")
    p.add_argument("--llamacpp", metavar="DIR", required=True)
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--chunks", type=int, default=4)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/quantize.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    problems, table = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = lambda name: os.path.join(folder, name)
        source, importance = place("source.gguf"), place("imatrix.dat")
        run([minke, "quantize", a.gguf, "F32", "-o", source, "--json"])
        write_importance(importance, tensors(source))
        for kind in TYPES:
            for weighed in [False, True] if kind not in ("F32", "F16", "BF16", "Q8_0") else [False]:
                ours, theirs = place("ours.gguf"), place("theirs.gguf")
                options = ["--imatrix", importance] if weighed else []
                [made] = run([minke, "quantize", source, kind, "-o", ours, *options, "--json"])
                command = [os.path.join(a.llamacpp, "llama-quantize"), *options, source, theirs, kind]
                subprocess.run(command, capture_output=True, check=True)
                mine, others = tensors(ours), tensors(theirs)
                if {name: row[:2] for name, row in mine.items()} != {name: row[:2] for name, row in others.items()}:
                    problems.append(f"{kind}: a tensor's type or shape differs from llama-quantize's")
                row = {"type": kind, "importance": weighed, "bits_per_weight": round(made["bits_per_weight"], 3),
                       "same_bytes": mine == others, "minke": perplexity(a.llamacpp, ours, a)}
                row["llama_quantize"] = row["minke"] if row["same_bytes"] else perplexity(a.llamacpp, theirs, a)
                row["ratio"] = round(row["minke"] / row["llama_quantize"], 5)
                table.append(row)
                print(f"{kind:8}{'importance' if weighed else '':11}{row['minke']:9.4f}{row['llama_quantize']:9.4f}{row['ratio']:9.5f}"
                      + (" same bytes" if row["same_bytes"] else ""), flush=True)
                # Written so that NaN is a difference.
                if not row["ratio"] <= 1 + TOLERANCE:
                    problems.append(f"{kind}: perplexity {row['minke']}, llama-quantize's {row['llama_quantize']}")
                os.remove(ours), os.remove(theirs)
                result = {**where(), "model": os.path.basename(a.gguf), "text": "docs/policy.md", "chunks_of_512": a.chunks}
                write(a.out, {**result, "perplexity": table})
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
