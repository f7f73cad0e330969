#!/usr/bin/env python3
"""minke beside candle on the same files, pair by pair: reading 512 tokens and writing 128.

usage: bench/candle.py GGUF… [--rounds 5] [--threads 2] [--out FILE]

`bench/candle` is candle's own quantised Llama, built for this processor; files must be of a type that candle reads. In each round both
programs run one after the other, in the other order every second round. Nothing else should be running.
"""
import argparse, os, subprocess

from common import ROOT, beside, build, show, timed, where, write


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gguf", nargs="+")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/candle.json"))
    a = p.parse_args()
    minke = os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    folder = os.path.join(ROOT, "target/bench-candle")
    native = os.environ | {"RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": folder}
    subprocess.run(["cargo", "build", "--release", "-q"], cwd=os.path.join(ROOT, "bench/candle"), env=native, check=True)
    env = os.environ | {"MINKE_THREADS": str(a.threads), "RAYON_NUM_THREADS": str(a.threads)}

    def ours(gguf):
        [one] = timed([minke, "bench", gguf, "--prefill", "512", "--decode", "128", "--repetitions", "1", "--json"], env=env)
        return {test["test"].removesuffix(" x1"): test["tok_s"] for test in one["tests"]}

    def theirs(gguf):
        [one] = timed([os.path.join(folder, "release/minke-bench-candle"), gguf], env=env)
        return one

    rounds = {gguf: [] for gguf in a.gguf}
    for i in range(a.rounds):
        for gguf in a.gguf:
            both = [("candle", theirs), ("minke", ours)]
            rounds[gguf].append({name: run(gguf) for name, run in (both if i % 2 == 0 else both[::-1])})
    table = beside("candle", rounds)
    show("candle", table)
    write(a.out, where() | {"candle": "0.11.1", "threads": a.threads, "table": table, "rounds": rounds})


if __name__ == "__main__":
    main()
