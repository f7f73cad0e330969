#!/usr/bin/env python3
"""minke beside llama.cpp on the same files, pair by pair: prefill, decode, decode at depth, many sequences, one short reply.

usage: bench/inference.py GGUF… --llamacpp DIR [--rounds 5] [--threads 2] [--depths 0,1024] [--sequences 32] [--isa ISA]
       [--out FILE]

In each round, for each file, both programs run one after the other, in the other order every second round. llama.cpp's
figures are llama-bench's (`-p 512 -n 128 -d DEPTH`) and, for many sequences (0 leaves them out), llama-batched-bench's generation
alone; minke's are those of `minke bench` for the same tests. `oneshot` is the time of a whole process that loads the model and says 16 tokens, in
replies a second. Nothing else should be running.
"""
import argparse, os, subprocess, sys, time

from common import ROOT, beside, build, named, run, show, timed, where, write

PROMPT = "Once upon a time"


def ours(minke, gguf, a, env):
    depths = [d for d in a.depths]
    results = {}
    for depth in depths:
        [one] = timed([minke, "bench", gguf, "--prefill", "512", "--decode", "128", "--depth", str(depth), "--repetitions", "1",
                       "--json"], env=env)
        for test in one["tests"]:
            results[test["test"].replace("tg128 x1", "tg128")] = test["tok_s"]
    if a.sequences:
        [many] = timed([minke, "bench", gguf, "--prefill", "1", "--decode", "128", "--sequences", str(a.sequences), "--repetitions",
                        "1", "--json"], env=env)
        results[f"tg128 x{a.sequences}"] = many["tests"][-1]["tok_s"]
    results["oneshot"] = oneshot([minke, "chat", gguf, PROMPT, "--temperature", "0", "--max-tokens", "16"], env)
    return results


def theirs(llamacpp, gguf, a):
    results = {}
    for depth in a.depths:
        name = lambda test: test if depth == 0 else f"{test} @ d{depth}"
        rows = timed([os.path.join(llamacpp, "llama-bench"), "-m", gguf, "-p", "512", "-n", "128", "-d", str(depth), "-t",
                      str(a.threads), "-r", "1", "-o", "jsonl"])
        for row in rows:
            results[name("pp512" if row["n_prompt"] else "tg128")] = row["avg_ts"]
            results["build"] = row["build_commit"]
    if a.sequences:
        [many] = timed([os.path.join(llamacpp, "llama-batched-bench"), "-m", gguf, "-t", str(a.threads), "-c", "8192", "-npp", "16",
                        "-ntg", "128", "-npl", str(a.sequences), "--output-format", "jsonl"])
        results[f"tg128 x{a.sequences}"] = many["speed_tg"]
    results["oneshot"] = oneshot([os.path.join(llamacpp, "llama-completion"), "-m", gguf, "-t", str(a.threads), "-n", "16",
                                  "-no-cnv", "-p", PROMPT, "--temp", "0"], None)
    return results


def oneshot(command, env):
    """Whole processes a second: the quicker of two."""
    times = []
    for _ in range(2):
        start = time.monotonic()
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        times.append(time.monotonic() - start)
    return 1 / min(times)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gguf", nargs="+")
    p.add_argument("--llamacpp", required=True, metavar="DIR")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--depths", type=lambda text: [int(d) for d in text.split(",")], default=[0, 1024])
    p.add_argument("--sequences", type=int, default=32)
    p.add_argument("--isa", help="MINKE_ISA for minke; llama.cpp keeps what it was built for")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/inference.json"))
    a = p.parse_args()
    minke = os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    env = os.environ | {"MINKE_THREADS": str(a.threads)} | ({"MINKE_ISA": a.isa} if a.isa else {})
    rounds, builds = {gguf: [] for gguf in a.gguf}, set()
    [chips] = run([minke, "chips", "--json"], env=env)
    settings = {"threads": a.threads, "isa": chips.get("isa")}
    for i in range(a.rounds):
        for gguf in a.gguf:
            both = {"minke": lambda: ours(minke, gguf, a, env), "llama.cpp": lambda: theirs(a.llamacpp, gguf, a)}
            order = list(both) if i % 2 == 0 else list(both)[::-1]
            figures = {name: both[name]() for name in order}
            builds.add(figures["llama.cpp"].pop("build"))
            rounds[gguf].append(figures)
        # Kept after every round: what is interrupted is not lost.
        write(a.out, where() | settings | {"llamacpp": sorted(builds), "table": beside("llama.cpp", rounds), "rounds": named(rounds)})
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr)
    show("llama.cpp", beside("llama.cpp", rounds))


if __name__ == "__main__":
    main()
