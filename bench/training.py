#!/usr/bin/env python3
"""Training steps beside PyTorch's, pair by pair: forward, backward and AdamW on the same shapes.

usage: bench/training.py PYTHON PEER_SCRIPT [--pairs 5] [--models dsv3 llama10m] [--out bench/results/training.json]

PYTHON is an interpreter with torch and transformers; PEER_SCRIPT the peer's measurement (bench_small.py: SIZE MODE COMPILE,
one JSON line with tok_s). Every mode of the peer in MODES is tried once; the best is then measured against minke, in turn.
Nothing else should be running.
"""
import argparse, os, sys

from common import ROOT, build, spread, timed, where, write

PEER = {"dsv3": "dsv3", "llama10m": "10m", "llama3m": "3m"}
MODES = {mode + compiled: (mode, "1" if compiled else "0") for mode in ("fp32", "bf16", "autocast") for compiled in ("", " compiled")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("python"), p.add_argument("peer")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--models", nargs="+", choices=PEER, default=["dsv3", "llama10m"])
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/training.json"))
    a = p.parse_args()
    ours = os.path.join(build("-p", "minke-train", "--example", "speed"), "examples/speed")
    # The peer's own file of results is not needed, and a forced core type would slow it down.
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | {"HF_HUB_OFFLINE": "1", "RESULTS": os.devnull}
    peer = lambda name, mode: timed([a.python, a.peer, PEER[name], *MODES[mode]], env=env)[-1]["tok_s"]
    results = []
    for name in a.models:
        tried = {}
        for mode in MODES:
            try:
                tried[mode] = peer(name, mode)
                print(f"  {name}, torch {mode}: {tried[mode]:.0f} tok/s", file=sys.stderr)
            except RuntimeError as error:
                print(f"  {name}, torch {mode} failed: {error}", file=sys.stderr)
        if not tried:
            sys.exit("no mode of the peer runs")
        best = max(tried, key=tried.get)
        pairs = []
        for _ in range(a.pairs):
            mine = timed([ours, name])[-1]
            pairs.append((mine["tok_s"], peer(name, best)))
        r = {
            "model": name, "parameters": mine["parameters"], "isa": mine["isa"], "threads": mine["threads"],
            "peer_mode": best, "peer_tried": tried,
            "minke_tok_s": spread([m for m, _ in pairs]), "peer_tok_s": spread([t for _, t in pairs]),
            "ratio": spread([m / t for m, t in pairs]), "ratios": [round(m / t, 3) for m, t in pairs],
        }
        results.append(r)
        print(f"{name}: minke {r['minke_tok_s']['median']:.0f}, torch ({r['peer_mode']}) {r['peer_tok_s']['median']:.0f} tok/s, "
              f"ratio {r['ratio']['median']:.2f} {r['ratios']}")
    write(a.out, where() | {"results": results})


if __name__ == "__main__":
    main()
