#!/usr/bin/env python3
"""The headline recipes, seed by seed: held-out accuracy after each stage, the control's, and the time all of it took.

usage: bench/recipes.py [RECIPE ...] [--seeds 1 2 3] [--no-run]

Each run's report goes to bench/results/RECIPE-SEED.json with the commit and the machine; a run whose file is there at this
commit is not made again, so evidence may accumulate over several sittings. The table is of all files there are for the
recipes named. Nothing else should be running.
"""
import argparse, json, os, platform, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "bench/results")


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def measured_commit():
    """The last commit that changed what a run comes to."""
    return git("log", "-1", "--format=%h", "--", "crates", "recipes", "Cargo.lock")


def cpu():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.processor())


def run(recipe, seed):
    binary = os.path.join(ROOT, "target/release/minke")
    with tempfile.TemporaryDirectory() as out:
        command = [binary, "train", f"recipes/{recipe}.toml", "--control", "--seed", str(seed), "--json",
                   "--out", os.path.join(out, f"{recipe}-{seed}")]
        made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(made.stdout)
    del report["directory"]
    return {"commit": measured_commit(), "cpu": cpu(), "cores": os.cpu_count(), "report": report}


def percent(x):
    return f"{100 * x:.1f} %"


def row(name, result):
    report = result["report"]
    first, last, control = report["stages"][0], report["final"], report["control"]
    sampled = lambda e: percent(e["think"]["sampled"]["pass_at_1"])
    above = lambda e: percent(e["above"]["accuracy"]) if e.get("above") else ""
    return (f"| {name} | {percent(first['think']['accuracy'])} | {sampled(first)} | **{percent(last['think']['accuracy'])}** | "
            f"{sampled(last)} | {above(first)} → {above(last)} | {percent(control['accuracy'])} | "
            f"{sum(s['wall_s'] for s in report['stages']) / 60:.1f} + {control['wall_s'] / 60:.1f} min of {report['wall_s'] / 60:.1f} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recipes", nargs="*", default=["sums", "sums-dense", "countdown"])
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--no-run", action="store_true", help="only the table of what there is")
    a = p.parse_args()
    if not a.no_run:
        if git("status", "--porcelain", "--", "crates", "recipes", "Cargo.lock"):
            sys.exit("there are changes that are not committed, so no commit says what would be measured")
        subprocess.run(["cargo", "build", "--release", "-q", "-p", "minke"], cwd=ROOT, check=True)
    print("| recipe, seed | greedy after sft | sampled | greedy at the end | sampled | one level above | control | trained |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in a.recipes:
        for seed in a.seeds:
            path = os.path.join(RESULTS, f"{recipe}-{seed}.json")
            if not a.no_run and not (os.path.exists(path) and json.load(open(path))["commit"] == measured_commit()):
                result = run(recipe, seed)
                with open(path, "w") as f:
                    json.dump(result, f, indent=1)
            if os.path.exists(path):
                print(row(f"{recipe}, {seed}", json.load(open(path))), flush=True)


if __name__ == "__main__":
    main()
