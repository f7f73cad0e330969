#!/usr/bin/env python3
"""What guessing tokens gains: a text that repeats itself, one that does not, and one that misleads (`minke bench --speculate`).

usage: bench/speculative.py MODEL [--draft off|MODEL] [--rounds 5] [--decode 128] [--threads 2] [--cores LIST] [--dtype f32]
       [--out FILE]

MODEL is any that minke runs and that has a tokenizer. minke writes each text with guesses by look-up and without, in pairs, and
with --draft by that model as well. A further table says what a further row of a step costs here, in units of a step of one
row: from the rates of 1 to 16 sequences at once. Nothing else should be running.
"""
import argparse, os

from common import ROOT, build, timed, where, write

# Floors: at least so many times as fast.
FLOORS = {"list": 1.5, "story": 0.97, "digits": 0.97}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--draft", default="off")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--cores", help="run on these cores alone, as taskset has them")
    p.add_argument("--dtype", default="f32")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/speculative.json"))
    a = p.parse_args()
    minke = os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    pin = ["taskset", "-c", a.cores] if a.cores else []
    env = os.environ | {"MINKE_THREADS": str(a.threads)}
    bench = [*pin, minke, "bench", a.model, "--dtype", a.dtype, "--repetitions", str(a.rounds), "--prefill", "16", "--json"]

    [rows] = timed([*bench, "--decode", "16", "--sequences", "1,2,4,8,16"], env=env)
    counts = (1, 2, 4, 8, 16)
    seconds = {n: n / test["tok_s"] for n, test in zip(counts, rows["tests"][1:])}
    row = {n: (seconds[n] / seconds[1] - 1) / (n - 1) for n in counts[1:]}
    print("a further row costs " + ", ".join(f"{cost:.3f} of a step at {n}" for n, cost in row.items()))

    result, missed = {}, []
    for drafter in ["lookup"] + ([a.draft] if a.draft != "off" else []):
        [run] = timed([*bench, "--decode", str(a.decode), "--speculate", drafter], env=env)
        name = drafter if drafter == "lookup" else "model"
        result[name] = run["speculation"]
        for test in run["speculation"]:
            print(f"{name:7} {test['test']:10} {test['plain_tok_s']:7.1f} tok/s, with guesses {test['tok_s']:7.1f}: {test['times']:.2f} times "
                  f"({test['least']:.2f}–{test['most']:.2f}), {test['accepted']} of {test['drafted']} right")
            floor = FLOORS[test["test"].rstrip("0123456789")]
            if name == "lookup" and test["times"] < floor:
                missed.append(f"{test['test']}: {test['times']:.3f} times, below {floor}")
    settings = {"model": os.path.basename(a.model), "draft": os.path.basename(a.draft), "rounds": a.rounds, "decode": a.decode,
                "threads": a.threads, "cores_used": a.cores, "dtype": a.dtype, "isa": rows["isa"]}
    write(a.out, where() | settings | {"row": row, "speculation": result, "below_floor": missed})
    if missed:
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
