#!/usr/bin/env python3
"""What `minke chips` predicts of models beside what `minke bench` then measures, round by round.

usage: bench/chips.py MODEL… [--minke FILE] [--rounds 5] [--out FILE]

In a round each model is predicted and measured, one right after the other, so that both see the same machine. A round during which
bandwidth changed by more than a quarter (virtual cores may be moved) is left out, and counted. Nothing else should be running.
"""
import argparse, os

from common import ROOT, build, run, spread, timed, where, write

MOVED = 0.25


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+", metavar="MODEL")
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/chips.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    rows, left_out = {}, 0
    for _ in range(a.rounds):
        for model in a.models:
            [before] = timed([minke, "chips", model, "--json"])
            [measured] = timed([minke, "bench", model, "--repetitions", "3", "--json"])
            [after] = run([minke, "chips", model, "--json"])
            pair = [chips["rates"]["read_gb_s"] for chips in (before, after)]
            if max(pair) / min(pair) > 1 + MOVED:
                left_out += 1
                continue
            for guess, test in zip(before["models"][0]["tests"], measured["tests"]):
                row = rows.setdefault((os.path.basename(model), guess["test"]), {"predicted": [], "measured": [], "ratio": [], "of_limit": []})
                row["predicted"].append(guess["tok_s"])
                row["measured"].append(test["tok_s"])
                row["ratio"].append(guess["tok_s"] / test["tok_s"])
                row["of_limit"].append(test["of_limit"])
    table = [{"model": model, "test": test} | {key: spread(values) for key, values in row.items()} for (model, test), row in rows.items()]
    print(f"{'model':24}{'test':8}{'predicted':>11}{'measured':>11}   ratio (min–max)     of the limit")
    for row in table:
        ratio = row["ratio"]
        print(f"{row['model']:24}{row['test']:8}{row['predicted']['median']:11.1f}{row['measured']['median']:11.1f}   {ratio['median']:.2f} "
              f"({ratio['min']:.2f}–{ratio['max']:.2f})   {row['of_limit']['median']:.0%}")
    print(f"left out, since the machine changed: {left_out} of {a.rounds * len(a.models)}")
    write(a.out, where() | {"rounds": a.rounds, "left_out": left_out, "tests": table})


if __name__ == "__main__":
    main()
