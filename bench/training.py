#!/usr/bin/env python3
"""Training steps and sampling beside PyTorch's, pair by pair, on the same shapes.

usage: bench/training.py PYTHON PEERS [--pairs 5] [--work NAME …] [--modes NAME …] [--speed FILE] [--out bench/results/training.json]

PYTHON is an interpreter with torch and transformers; PEERS the folder of the peers' measurements: bench_small.py SIZE MODE COMPILE,
bench_train.py MODE SEQUENCES LENGTH COMPILE and bench_gen.py MODE SEQUENCES NEW REPETITIONS, each of which prints one JSON line
with tok_s; the last two read SmolLM2-135M-Instruct from the Hugging Face directory that SMOLLM2_HF names. Every mode of the peer and
both dtypes of minke are tried once; the best of each are then measured in turn. Nothing else should be running.
"""
import argparse, os, sys

from common import ROOT, build, spread, timed, where, write

# What minke's own program is told besides the dtype, and the peer's: {0} is the dtype, {1} whether to compile.
WORK = {
    "smollm2-4x256": (["smollm2", "3", "4", "256"], ["bench_train.py", "{0}", "4", "256", "{1}", "3"]),
    "smollm2-8x512": (["smollm2", "3", "8", "512"], ["bench_train.py", "{0}", "8", "512", "{1}", "3"]),
    "smollm2-sample-32x128": (["smollm2", "3", "32", "128", "generate"], ["bench_gen.py", "{0}", "32", "128", "3"]),
    "llama10m": (["llama10m"], ["bench_small.py", "10m", "{0}", "{1}"]),
    "dsv3": (["dsv3"], ["bench_small.py", "dsv3", "{0}", "{1}"]),
}
MODES = {mode + compiled: (mode, "1" if compiled else "0") for mode in ("fp32", "bf16", "autocast") for compiled in ("", " compiled")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("python"), p.add_argument("peers")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    p.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="torch's bf16 is of no use without instructions for it")
    p.add_argument("--speed", metavar="FILE", help="minke's own program, instead of building it")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/training.json"))
    a = p.parse_args()
    ours = a.speed or os.path.join(build("-p", "minke-train", "--example", "speed"), "examples/speed")
    # The peer's own file of results is not needed, and a forced core type would slow it down.
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | {"HF_HUB_OFFLINE": "1", "RESULTS": os.devnull}
    results = []
    for name in a.work:
        mine, (script, *arguments) = WORK[name]
        peer = lambda mode: timed([a.python, os.path.join(a.peers, script), *(x.format(*MODES[mode]) for x in arguments)],
                                  env=env, cwd=a.peers)[-1]["tok_s"]
        # Sampling knows neither autocast nor this way to compile.
        modes = [mode for mode in a.modes if "{1}" in arguments or mode in ("fp32", "bf16")]
        tried = {}
        for mode in modes:
            try:
                tried[mode] = peer(mode)
                print(f"  {name}, torch {mode}: {tried[mode]:.0f} tok/s", file=sys.stderr)
            except RuntimeError as error:
                print(f"  {name}, torch {mode} failed: {error}", file=sys.stderr)
        if not tried:
            sys.exit("no mode of the peer runs")
        best = max(tried, key=tried.get)
        minke = lambda dtype: timed([ours, mine[0], dtype, *mine[1:]])[-1]
        own = {dtype: minke(dtype)["tok_s"] for dtype in ("bf16", "f32")}
        best_own = max(own, key=own.get)
        pairs = []
        for _ in range(a.pairs):
            measured = minke(best_own)
            pairs.append((measured["tok_s"], peer(best)))
        r = {
            "work": name, "parameters": measured["parameters"], "isa": measured["isa"], "threads": measured["threads"],
            "minke_dtype": best_own, "minke_tried": own, "peer_mode": best, "peer_tried": tried,
            "minke_tok_s": spread([m for m, _ in pairs]), "peer_tok_s": spread([t for _, t in pairs]),
            "ratio": spread([m / t for m, t in pairs]), "ratios": [round(m / t, 3) for m, t in pairs],
        }
        results.append(r)
        print(f"{name}: minke {r['minke_tok_s']['median']:.0f}, torch ({r['peer_mode']}) {r['peer_tok_s']['median']:.0f} tok/s, "
              f"ratio {r['ratio']['median']:.2f} {r['ratios']}", flush=True)
    write(a.out, where() | {"results": results})


if __name__ == "__main__":
    main()
