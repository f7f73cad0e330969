#!/usr/bin/env python3
"""SmolLM2-135M: minke's text against transformers', then its speed beside llama.cpp's, pair by pair.

usage: bench/smollm2.py GGUF [--llamacpp DIR] [--rounds 5] [--prefill 512] [--decode 128] [--threads 2] [--out FILE]

GGUF is SmolLM2-135M-Instruct.Q4_1.gguf (golden/README.md says where it comes from). First minke's greedy tokens and its
perplexity are compared with transformers' (golden/smollm2); it is an error if they differ. With DIR, the folder of
llama-bench and llama-quantize, all are then timed in turn, in each round one after the other: minke with weights in f32 and
in bf16, and llama.cpp with the file as it is and with the same weights in BF16. Nothing else should be running.
"""
import argparse, json, os, subprocess, sys, tempfile

from common import ROOT, build, run, spread, timed, where, write

GOLDEN = os.path.join(ROOT, "golden/smollm2")
# How far a perplexity may be from that of f32 weights and f32 arithmetic.
TOLERANCE = 0.005


def golden(name):
    with open(os.path.join(GOLDEN, name)) as f:
        return json.load(f)


def check(minke, gguf):
    """The differences from transformers, in words, and the numbers."""
    problems, same = [], 0
    cases = golden("greedy.json")
    for name, case in cases.items():
        count = str(len(case["ids"]))
        [ours] = run([minke, "debug", "generate", gguf, "--dtype", "f32", "--prompt", case["prompt"], "--tokens", count, "--json"])
        if ours["ids"] == case["ids"]:
            same += 1
        else:
            at = next((i for i, (a, b) in enumerate(zip(ours["ids"], case["ids"])) if a != b), len(ours["ids"]))
            problems.append(f"prompt {name}: the greedy tokens differ from token {at} on")
    expected = golden("perplexity.json")
    perplexity = {"transformers_f32": expected["perplexity"]}
    for dtype in ("f32", "bf16"):
        text = os.path.join(GOLDEN, expected["file"])
        [ours] = run([minke, "eval", gguf, "--text", text, "--dtype", dtype, "--json"])
        perplexity[f"minke_{dtype}"] = ours["perplexity"]
        if ours["tokens"] != expected["tokens"]:
            problems.append(f"the text has {ours['tokens']} tokens, not {expected['tokens']}")
        # Written so that NaN is a difference.
        if not abs(ours["perplexity"] / expected["perplexity"] - 1) <= TOLERANCE:
            problems.append(f"{dtype}: perplexity {ours['perplexity']:.4f}, not {expected['perplexity']:.4f}")
    print(f"greedy tokens: {same} of {len(cases)} texts as transformers'")
    print("perplexity: " + ", ".join(f"{name} {value:.4f}" for name, value in perplexity.items()))
    return problems, {"same_greedy_texts": same, "greedy_texts": len(cases), "perplexity": perplexity}


def measure(minke, gguf, llamacpp, a):
    """Rounds of tok/s by program, each a prefill and a decode."""
    env = os.environ | {"MINKE_THREADS": str(a.threads)}
    llama_bench = os.path.join(llamacpp, "llama-bench")

    def ours(dtype):
        [result] = timed([minke, "bench", gguf, "--dtype", dtype, "--prefill", str(a.prefill), "--decode", str(a.decode),
                          "--repetitions", "1", "--json"], env=env)
        prefill, decode = result["tests"]
        return {"prefill": prefill["tok_s"], "decode": decode["tok_s"]}

    def theirs(model):
        results = timed([llama_bench, "-m", model, "-p", str(a.prefill), "-n", str(a.decode), "-t", str(a.threads), "-r", "1", "-o", "jsonl"])
        builds.add(results[0]["build_commit"])
        return {"prefill" if r["n_prompt"] else "decode": r["avg_ts"] for r in results}

    builds, rounds = set(), []
    with tempfile.TemporaryDirectory() as folder:
        bf16 = os.path.join(folder, "bf16.gguf")
        subprocess.run([os.path.join(llamacpp, "llama-quantize"), "--allow-requantize", gguf, bf16, "BF16"], capture_output=True, check=True)
        # What is compared most stands side by side.
        programs = {"minke f32": lambda: ours("f32"), "llama.cpp Q4_1": lambda: theirs(gguf),
                    "minke bf16": lambda: ours("bf16"), "llama.cpp BF16": lambda: theirs(bf16)}
        for i in range(a.rounds):
            # There and back, so that a machine that grows slower favours nobody.
            order = list(programs) if i % 2 == 0 else list(programs)[::-1]
            tok_s = {name: programs[name]() for name in order}
            # Virtual cores may be moved; bandwidth tells rounds apart.
            [chips] = run([minke, "chips", "--json"], env=env)
            rounds.append({"read_gb_s": chips["measured"][-1]["read_gb_s"], "tok_s": {name: tok_s[name] for name in programs}})
            print(f"round {i + 1} of {a.rounds}", file=sys.stderr)
    return sorted(builds), rounds


def summarise(rounds, a):
    """Prints tables; medians, and ratios to the peer of the same round."""
    short = lambda s: f"{s['median']:.1f} ({s['min']:.1f}–{s['max']:.1f})"
    names, kinds = list(rounds[0]["tok_s"]), ("prefill", "decode")
    tok_s = {n: {k: spread([r["tok_s"][n][k] for r in rounds]) for k in kinds} for n in names}
    ratios = {f"{n} / {p}": {k: spread([r["tok_s"][n][k] / r["tok_s"][p][k] for r in rounds]) for k in kinds}
              for n in names if n.startswith("minke") for p in names if not p.startswith("minke")}
    print(f"\ntok/s, median (min–max) of {len(rounds)}, {a.threads} threads\n{'':28}{f'prefill {a.prefill}':>24}{f'decode {a.decode}':>24}")
    for name, row in tok_s.items():
        print(f"{name:28}" + "".join(f"{short(row[k]):>24}" for k in kinds))
    print("\nratio, by round")
    for name, row in ratios.items():
        print(f"{name:28}" + "".join(f"{row[k]['median']:.2f} ({row[k]['min']:.2f}–{row[k]['max']:.2f})".rjust(24) for k in kinds))
    return {"tok_s": tok_s, "ratios": ratios}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gguf")
    p.add_argument("--llamacpp", metavar="DIR")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/smollm2.json"))
    a = p.parse_args()
    minke = os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    gguf = os.path.abspath(a.gguf)
    problems, checked = check(minke, gguf)
    if problems:
        sys.exit("\n".join(problems))
    if a.llamacpp:
        builds, rounds = measure(minke, gguf, a.llamacpp, a)
        summary = summarise(rounds, a)
        settings = {"threads": a.threads, "prefill": a.prefill, "decode": a.decode, "llamacpp": builds}
        write(a.out, where() | settings | checked | summary | {"rounds": rounds})


if __name__ == "__main__":
    main()
