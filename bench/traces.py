#!/usr/bin/env python3
"""The lab's policy beside others, on days of a real cluster: who would have waited for how long, and had what share.

usage: bench/traces.py DIRECTORY [--chips 32] [--minke PATH] [--out bench/results/traces.json] [--svg docs/traces.svg] [--keep DIRECTORY]

DIRECTORY holds philly_jobs_sia.csv (timestamp,duration,num_gpus,gpu_time,cluster: github.com/siasosp23/artifacts,
sia-simulator/traces/philly.csv) and, if there, muri_philly_trace1.csv and 2 (github.com/Rivendile/Muri, simulator/trace-data).
Neither says who a job's person was: Philly's virtual clusters stand in for people, and Muri's models. Windows of 900 jobs are
taken at fixed places, of jobs of at least 30 s; durations are cut at 24 h, chips rounded up to a power of two of at most 16, and
times between jobs scaled so that the jobs make so large a load of the chips.
"""
import argparse, csv, datetime, json, os, subprocess, sys, tempfile

from common import ROOT, build, where, write

JOBS, SHORTEST_S, LONGEST_S, WIDEST = 900, 30, 86_400, 16
PLACES = [5_000, 20_000, 35_000, 50_000, 65_000]
LOADS = [0.95, 1.1]
POLICIES = ["fifo", "fairshare", "2das", "minke"]
NAMES = {"fifo": "first come", "fairshare": "fair share", "2das": "2DAS", "minke": "minke"}


def philly(path):
    with open(path) as f:
        rows = [(datetime.datetime.strptime(r["timestamp"], "%Y-%m-%d %H:%M:%S").timestamp(), float(r["duration"]), int(float(r["num_gpus"])), r["cluster"]) for r in csv.DictReader(f)]
    return sorted(row for row in rows if row[1] >= SHORTEST_S)


def muri(path):
    with open(path) as f:
        rows = [(float(r["submit_time"]) / 1000, float(r["duration"]) / 1000, int(r["num_gpu"]), r["model_name"]) for r in csv.DictReader(f)]
    return sorted(row for row in rows if row[1] >= SHORTEST_S)


def window(rows, load, chips):
    """Jobs as lines of CSV, at that load."""
    wide = lambda n: min(1 << max(n - 1, 0).bit_length(), WIDEST)
    jobs = [(at, min(runs, LONGEST_S), wide(n), who) for at, runs, n, who in rows]
    first, last = jobs[0][0], jobs[-1][0]
    scale = sum(runs * n for _, runs, n, _ in jobs) / (chips * load) / (last - first)
    lines = [f"{(at - first) * scale:.3f},{runs:.3f},{n},{who}" for at, runs, n, who in jobs]
    return "submit_s,duration_s,chips,person\n" + "\n".join(lines) + "\n"


def windows(directory, chips):
    rows = philly(os.path.join(directory, "philly_jobs_sia.csv"))
    for load in LOADS:
        for place in PLACES:
            yield f"Philly {place // 1000}k, load {load}", window(rows[place:place + JOBS], load, chips)
    for n in (1, 2):
        path = os.path.join(directory, f"muri_philly_trace{n}.csv")
        if os.path.exists(path):
            yield f"Muri {n}, load {LOADS[0]}", window(muri(path)[:JOBS], LOADS[0], chips)


def met(by):
    """What of the criterion holds on a window: not worse than 2DAS, and chips busy."""
    ours, rival = by["minke"], by["2das"]
    return {
        "wait_p95": ours["wait_p95_s"] <= rival["wait_p95_s"],
        "slowdown_p95": ours["slowdown_p95"] <= rival["slowdown_p95"],
        "jain": ours["jain"] >= rival["jain"],
        "busy": ours["busy"] >= 0.94,
    }


def table(results):
    lines = ["| window | policy | p95 wait, min | p95 slowdown | mean slowdown | Jain | worst off (ρ) | busy | gave way, per job |", "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for result in results:
        for policy in POLICIES:
            n, name = result["policies"][policy], NAMES[policy]
            bold = "**" if policy == "minke" else ""
            lines.append(f"| {result['window'] if policy == POLICIES[0] else ''} | {bold}{name}{bold} | {n['wait_p95_s'] / 60:.1f} | {n['slowdown_p95']:.2f} | {n['slowdown_mean']:.2f} | {n['jain']:.3f} | {n['rho_max']:.2f} | {n['busy']:.3f} | {n['preemptions'] / n['jobs']:.2f} |")
    return "\n".join(lines)


STYLE = """<style>
.back{fill:#fff}.text{fill:#333}.soft{fill:#777}.line{stroke:#ddd}
.fifo{fill:#b0b0b0}.fairshare{fill:#e08a1e}.d2as{fill:#3a9d5d}.minke{fill:#1f6fb4}
@media(prefers-color-scheme:dark){.back{fill:#16181c}.text{fill:#ddd}.soft{fill:#999}.line{stroke:#3a3d44}
.fifo{fill:#7d7d7d}.fairshare{fill:#f0a548}.d2as{fill:#5cc183}.minke{fill:#5aa9e6}}
</style>"""


def picture(results):
    """Three panels with a row for each window and a dot for each policy."""
    import math
    panels = [("p95 wait, minutes", "wait_p95_s", 60, (1, 10_000), True), ("p95 slowdown", "slowdown_p95", 1, (1, 1_000), True), ("Jain's index of shares", "jain", 1, (0.5, 1.0), False)]
    left, wide, gap, row, top = 150, 200, 44, 22, 62
    width, height = left + 3 * (wide + gap), top + row * len(results) + 34
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">', STYLE, "<title>Waits, slowdowns and shares by policy</title>", f'<rect class="back" width="{width}" height="{height}"/>']
    cls = lambda policy: "d2as" if policy == "2das" else policy
    x = left
    for policy in POLICIES:
        svg.append(f'<circle class="{cls(policy)}" cx="{x}" cy="14" r="5"/><text class="text" x="{x + 10}" y="18">{NAMES[policy]}</text>')
        x += 100
    for i, result in enumerate(results):
        svg.append(f'<text class="text" x="{left - 12}" y="{top + row * i + 15}" text-anchor="end">{result["window"]}</text>')
    for p, (title, key, unit, (low, high), log) in enumerate(panels):
        x0 = left + p * (wide + gap)
        place = (lambda v: math.log(max(v, low) / low) / math.log(high / low)) if log else (lambda v: (v - low) / (high - low))
        at = lambda v: x0 + 6 + min(max(place(v), 0), 1) * (wide - 12)
        svg.append(f'<text class="text" x="{x0}" y="40">{title}</text>')
        marks = [10 ** k for k in range(int(math.log10(low)), int(math.log10(high)) + 1)] if log else [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        for mark in marks:
            svg.append(f'<path class="line" d="M{at(mark):.1f},{top - 6}V{height - 30}"/><text class="soft" x="{at(mark):.1f}" y="{height - 14}" text-anchor="middle">{f"{mark:,}" if log else f"{mark:.1f}"}</text>')
        for i, result in enumerate(results):
            for policy in POLICIES:
                svg.append(f'<circle class="{cls(policy)}" cx="{at(result["policies"][policy][key] / unit):.1f}" cy="{top + row * i + 11}" r="{5 if policy == "minke" else 4}"/>')
    return "\n".join(svg + ["</svg>"]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("directory")
    p.add_argument("--chips", type=int, default=32)
    p.add_argument("--minke", help="this program instead of one that is built now")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/traces.json"))
    p.add_argument("--svg", default=os.path.join(ROOT, "docs/traces.svg"))
    p.add_argument("--keep", help="leave the windows as CSV files there")
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke"), "minke")
    place = a.keep or tempfile.mkdtemp()
    os.makedirs(place, exist_ok=True)
    results = []
    for name, text in windows(a.directory, a.chips):
        path = os.path.join(place, name.replace(" ", "-").replace(",", "") + ".csv")
        with open(path, "w") as f:
            f.write(text)
        by = {}
        for policy in POLICIES:
            command = [minke, "lab", "simulate", "--trace", path, "--chips", str(a.chips), "--policy", policy, "--json"]
            by[policy] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        results.append({"window": name, "policies": by, "met": met(by)})
        missed = [what for what, holds in results[-1]["met"].items() if not holds]
        print(f"{name}: {'all met' if not missed else 'missed ' + ', '.join(missed)}", file=sys.stderr)
    write(a.out, where() | {"chips": a.chips, "windows": results})
    with open(a.svg, "w") as f:
        f.write(picture(results))
    print(table(results))


if __name__ == "__main__":
    main()
