#!/usr/bin/env python3
"""minke beside candle and mistral.rs on the same files, in turn: reading 512 tokens and writing 128.

usage: bench/candle.py GGUF… [--mistralrs FILE] [--rounds 5] [--threads 2] [--out FILE]

`bench/candle` is candle's own quantised Llama, built for this processor; files must be of a type that candle reads. mistral.rs is
measured where its program is given (`RUSTFLAGS="-C target-cpu=native" cargo install mistralrs-cli`), by its own `bench`. In each
round the programs run one after the other, in the other order every second round. Nothing else should be running.
"""
import argparse, os, re, subprocess

from common import ROOT, beside, build, named, show, timed, watched, where, write


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gguf", nargs="+")
    p.add_argument("--mistralrs", metavar="FILE")
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

    def candle(gguf):
        [one] = timed([os.path.join(folder, "release/minke-bench-candle"), gguf], env=env)
        return one

    def mistralrs(gguf):
        command = [a.mistralrs, "bench", "--cpu", "-m", os.path.dirname(os.path.abspath(gguf)), "--format", "gguf", "-f",
                   os.path.basename(gguf), "--prompt-len", "512", "--gen-len", "128", "--iterations", "1"]
        with watched():
            done = subprocess.run(command, env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        rates = re.findall(r"(?:Prefill|Decode) \(.*?([0-9.]+) ±", done.stdout)
        if done.returncode or len(rates) != 2:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-400:]} {done.stderr[-400:]}")
        return dict(zip(("pp512", "tg128"), map(float, rates)))

    programs = [("candle 0.11.1", candle), *([("mistral.rs 0.8.1", mistralrs)] if a.mistralrs else []), ("minke", ours)]
    rounds = {gguf: [] for gguf in a.gguf}
    for i in range(a.rounds):
        for gguf in a.gguf:
            order = programs if i % 2 == 0 else programs[::-1]
            rounds[gguf].append({name: run(gguf) for name, run in order})
    tables = {peer: beside(peer, rounds) for peer, _ in programs[:-1]}
    for peer, table in tables.items():
        show(peer, table)
    write(a.out, where() | {"threads": a.threads, "tables": tables, "rounds": named(rounds)})


if __name__ == "__main__":
    main()
