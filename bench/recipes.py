#!/usr/bin/env python3
"""The headline recipes, seed by seed: held-out accuracy after each stage, the control's, and the time all of it took.

usage: bench/recipes.py [RECIPE ...] [--seeds 1 2 3] [--budget TIME] [--runs DIR] [--minke FILE] [--no-run]

Each run's report goes to bench/results/RECIPE-SEED.json with the commit and the machine; a run whose file is there at this
commit is not made again, so evidence may accumulate over several sittings. The table is of all files there are for the
recipes named. With --runs, what is interrupted is gone on with the next time. Nothing else should be running, or the times mislead; the control gets as many core-seconds as the run took.
"""
import argparse, contextlib, json, os, tempfile

from common import ROOT, build, timed, where, write

RESULTS = os.path.join(ROOT, "bench/results")


def train(minke, recipe, seed, runs, budget):
    with contextlib.nullcontext(runs) if runs else tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, f"{recipe}-{seed}")
        limit = ["--budget", budget] if budget else []
        begun = os.path.exists(os.path.join(out, "run.json"))
        how = [out, "--resume"] if begun else [f"recipes/{recipe}.toml", "--control", "--seed", str(seed), *limit, "--out", out]
        [report] = timed([minke, "train", *how, "--json"], cwd=ROOT)
    del report["directory"]
    return where() | {"report": report}


def percent(x):
    return f"{100 * x:.1f} %"


def row(name, report):
    first, last, control = report["stages"][0], report["final"], report["control"]
    minutes = [sum(s["wall_s"] for s in report["stages"]) / 60, control["wall_s"] / 60, report["wall_s"] / 60]
    both = lambda e: f"{percent(e['accuracy'])} / {percent(e['sampled']['pass_at_1']) if e.get('sampled') else '–'}"
    above = [percent(e["above"]["accuracy"]) if e.get("above") else "–" for e in (first, last)]
    return (f"| {name} | {both(first['think'])} | **{both(last['think'])}** | {both(control)} | {above[0]} → {above[1]} | "
            f"{minutes[0]:.1f} + {minutes[1]:.1f} min | {minutes[2]:.1f} min |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recipes", nargs="*", default=["sums", "sums-dense", "countdown"])
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--budget", help="instead of the recipe's")
    p.add_argument("--runs", metavar="DIR", help="where runs are kept")
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--no-run", action="store_true", help="only the table of what there is")
    a = p.parse_args()
    minke = None if a.no_run else a.minke or os.path.join(build("-p", "minke"), "minke")
    print("greedy / sampled accuracy, held out\n")
    print("| recipe, seed | after sft | at the end | control | one level above | trained, control | all without control |")
    print("|---|---|---|---|---|---|---|")
    for recipe in a.recipes:
        for seed in a.seeds:
            path = os.path.join(RESULTS, f"{recipe}-{seed}.json")
            there = json.load(open(path)) if os.path.exists(path) else None
            if minke and (there is None or there["commit"] != where()["commit"]):
                there = train(minke, recipe, seed, a.runs, a.budget)
                write(path, there)
            if there:
                print(row(f"{recipe}, {seed}", there["report"]), flush=True)


if __name__ == "__main__":
    main()
