#!/usr/bin/env python3
"""Training steps beside PyTorch's, pair by pair: forward, backward and AdamW on the same shapes.

usage: bench/training.py PYTHON PEER_SCRIPT [--pairs 5] [--models dsv3 llama10m] [--out bench/results/training.json]

PYTHON is an interpreter with torch and transformers; PEER_SCRIPT the peer's measurement (bench_small.py: SIZE MODE COMPILE,
one JSON line with tok_s). Every mode of the peer in MODES is tried once; the best is then measured against minke, in turn.
Nothing else should be running.
"""
import argparse, json, os, platform, statistics, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEER = {"dsv3": "dsv3", "llama10m": "10m", "llama3m": "3m"}
MODES = [("fp32", 0), ("fp32", 1), ("bf16", 0), ("autocast", 0)]


def last_json(command, **kw):
    run = subprocess.run(command, capture_output=True, text=True, **kw)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr[-400:]}")
    return json.loads(lines[-1])


def cpu():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.processor())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("python"), p.add_argument("peer")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--models", nargs="+", default=["dsv3", "llama10m"])
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/training.json"))
    a = p.parse_args()
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "minke-train", "--example", "speed"], cwd=ROOT, check=True)
    ours = os.path.join(ROOT, "target/release/examples/speed")
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | {"HF_HUB_OFFLINE": "1"}
    peer = lambda name, mode, compiled: last_json([a.python, a.peer, PEER[name], mode, str(compiled)], env=env, cwd=os.path.dirname(a.peer))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    results = []
    for name in a.models:
        tried = {}
        for mode, compiled in MODES:
            try:
                tried[mode, compiled] = peer(name, mode, compiled)["tok_s"]
            except RuntimeError as error:
                print(f"  {name} {mode} compile={compiled}: {str(error)[:200]}", file=sys.stderr)
        for key, tok_s in tried.items():
            print(f"  {name} torch {key[0]} compile={key[1]}: {tok_s:.0f} tok/s", file=sys.stderr)
        best = max(tried, key=tried.get)
        pairs = []
        for _ in range(a.pairs):
            mine, theirs = last_json([ours, name]), peer(name, *best)["tok_s"]
            pairs.append((mine["tok_s"], theirs))
        median = lambda values: statistics.median(values)
        results.append({
            "model": name, "peer_mode": f"{best[0]}{' compiled' if best[1] else ''}",
            "ours_tok_s": median([o for o, _ in pairs]), "peer_tok_s": median([t for _, t in pairs]),
            "ratio": median([o / t for o, t in pairs]), "ratios": sorted(round(o / t, 3) for o, t in pairs),
            "isa": mine["isa"], "parameters": mine["parameters"],
        })
        r = results[-1]
        print(f"{name}: minke {r['ours_tok_s']:.0f}, torch ({r['peer_mode']}) {r['peer_tok_s']:.0f} tok/s, ratio {r['ratio']:.2f} {r['ratios']}")
    with open(a.out, "w") as f:
        json.dump({"commit": commit, "cpu": cpu(), "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
