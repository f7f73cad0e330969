#!/usr/bin/env python3
"""How long a published model trains until it has learnt something, beside GRPO written by hand in PyTorch.

usage: bench/curve.py PYTHON PEER_DIR [--model DIR] [--seeds 1 2 3] [--steps 120] [--every 10] [--items 256]
       [--dtype bf16] [--peer-dtype bf16] [--minke FILE] [--out FILE]

PEER_DIR has grpo_plain.py and what it imports, PYTHON is an interpreter with torch, transformers and reasoning-gym, the model a
Hugging Face directory of SmolLM2-135M-Instruct (SMOLLM2_HF unless given). Both begin with its weights, in bf16 with f32 masters
(or in f32, where a processor has no bf16 instructions and torch is slow with it), and learn chain_sum of two one-digit terms: 8
prompts a step, 8 completions of up to 24 tokens each, in the same words, judged by
the same rule. That both put the problems in the same tokens is checked first. Seconds are of training alone, from each side's own
account, at the first measurement on held-out problems that is good enough, and a side is stopped when it has reached the last
goal; minke counts a problem that is drawn twice once. The problems are few, so those held out have been trained on too, on both
sides: this says how soon something is learnt, not how widely.
Seeds of the same settings that the file of results has already are kept there. Nothing else should be running.
"""
import argparse, json, os, signal, subprocess, sys, tempfile, time

from common import DTYPES, ROOT, build, by_hand, run, spread, watched, where, write

GOALS = (0.8, 0.9)
PROMPTS, SAMPLES, NEW, RATE = 8, 8, 24, 1e-5
SYSTEM = "Answer with only the final number."
RECIPE = """
version = 1
seed = {seed}
[model]
reference = {model}
dtype = "{dtype}"
[task]
command = {command}
[format]
system = "{system}"
instruction = ""
think = false
lenient = true
[[stage]]
kind = "grpo"
steps = {steps}
prompts = {prompts}
samples = {samples}
max_new_tokens = {new}
level = 1
loss = "dapo"
scale_rewards = "group"
lr = {rate}
beta1 = 0.9
beta2 = 0.99
[eval]
level = 1
items = {held_out}
samples = 0
max_new_tokens = {new}
every = {every}
[checkpoint]
every = 1000
"""
# How the peer puts the held-out problems, as lines of JSON.
PEER_PROMPTS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import task
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
for problem in task.make("cs2_1", int(sys.argv[3]), 999):
    text = tokenizer.apply_chat_template(task.msgs(problem["question"], "short"), tokenize=False, add_generation_prompt=True)
    print(json.dumps({"tokens": tokenizer(text).input_ids}))
"""


def reached(points, goal):
    """Seconds of training at the first point that is good enough, if there is one."""
    return next((point["seconds"] for point in points if point["accuracy"] >= goal), None)


def lines(path):
    """The whole lines of a file of JSON that is being written, if it is there yet."""
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f.read().split("\n")[:-1]]


def until_good(command, points, **kw):
    """Runs a program until its `points` reach the last goal, or to its end; the points."""
    with watched(), tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, **kw)
        while child.poll() is None and reached(points(), GOALS[-1]) is None:
            time.sleep(1)
        stopped = child.poll() is None
        if stopped:
            child.send_signal(signal.SIGTERM)
        if child.wait() and not stopped:
            said.seek(0)
            sys.exit(f"{os.path.basename(command[0])}: {said.read()[-600:]}")
    return points()


def table(rows):
    """Seconds until each goal, of the seeds in which both sides reached it."""
    result = {}
    for goal in GOALS:
        pairs = [(reached(row["minke"], goal), reached(row["pytorch"], goal)) for row in rows]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            result[f"{goal:.0%}"] = {"seeds": len(pairs), "minke": spread([x for x, _ in pairs]), "pytorch": spread([y for _, y in pairs]),
                                     "ratio": spread([y / max(x, 1e-9) for x, y in pairs])}
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("python"), p.add_argument("peer")
    p.add_argument("--model", default=os.environ.get("SMOLLM2_HF", "smollm2-hf"))
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--steps", type=int, default=120, help="at least 2, which the peer needs")
    p.add_argument("--every", type=int, default=10, help="steps from one measurement to the next")
    p.add_argument("--items", type=int, default=256, help="held-out problems")
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    p.add_argument("--peer-dtype", choices=DTYPES, default="bf16")
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/curve.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    model, peer = os.path.abspath(a.model), os.path.abspath(a.peer)
    # A forced core type would slow torch down.
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    env |= {"HF_HUB_OFFLINE": "1", "SMOLLM2_HF": model}
    settings = {"prompts": PROMPTS, "samples": SAMPLES, "max_new_tokens": NEW, "lr": RATE, "steps": a.steps, "every": a.every,
                "items": a.items, "dtype": a.dtype, "peer_dtype": a.peer_dtype}
    rows = []
    if os.path.exists(a.out):
        with open(a.out) as f:
            before = json.load(f)
        rows = [row for row in before["rows"] if before["settings"] == settings and row["seed"] not in a.seeds]
    with tempfile.TemporaryDirectory() as folder:
        script, path = by_hand(peer, folder, a.peer_dtype)

        def recipe(seed):
            path = os.path.join(folder, f"curve-{seed}.toml")
            command = [a.python, os.path.join(ROOT, "bench/curve_task.py"), peer, str(seed), str(a.items)]
            with open(path, "w") as f:
                f.write(RECIPE.format(seed=seed, model=json.dumps(model), dtype=a.dtype, command=json.dumps(command), system=SYSTEM, steps=a.steps,
                                      prompts=PROMPTS, samples=SAMPLES, new=NEW, rate=RATE, held_out=a.items, every=a.every))
            return path

        def ours(seed):
            directory = os.path.join(folder, f"run-{seed}")
            points = lambda: [{"step": line["step"], "seconds": line["wall_s"], "core_seconds": line.get("core_s"),
                               "accuracy": line["held_out"]["accuracy"]}
                              for line in lines(os.path.join(directory, "metrics.jsonl")) if "held_out" in line]
            return until_good([minke, "train", recipe(seed), "--out", directory], points, env=env)

        def theirs(seed):
            log = os.path.join(folder, f"peer-{seed}.jsonl")
            settings = {"task": "cs2_1", "style": "short", "P": PROMPTS, "G": SAMPLES, "new": NEW, "lr": RATE, "mb": 16, "seed": seed,
                        "steps": a.steps, "evaln": a.items, "eval_every": a.every, "log": log}
            flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
            points = lambda: [{"step": line["step"], "seconds": line["active_s"], "accuracy": line["eval"]}
                              for line in lines(log) if "eval" in line]
            own = env | {"RESULTS": os.path.join(folder, "peer.jsonl"), "PYTHONPATH": path}
            return until_good([a.python, script, *flags, "--trim", "--skip0"], points, cwd=folder, env=own)

        answers = os.path.join(folder, "answers.jsonl")
        run([minke, "eval", model, "--recipe", recipe(a.seeds[0]), "--max-tokens", "1", "--answers", answers, "--json"], env=env)
        with open(answers) as f:
            put = {tuple(json.loads(line)["prompt_tokens"]) for line in f}
        said = run([a.python, "-c", PEER_PROMPTS, peer, model, str(a.items)], env=env)
        if not put or not put <= {tuple(line["tokens"]) for line in said}:
            sys.exit("minke and the peer put the held-out problems in other tokens")
        print(f"{len(put)} held-out problems, in the same tokens on both sides")
        for index, seed in enumerate(a.seeds):
            both = {"minke": ours, "pytorch": theirs}
            order = list(both) if index % 2 == 0 else list(both)[::-1]
            row = {"seed": seed} | {name: both[name](seed) for name in order} | where()
            rows.append(row)
            write(a.out, {"model": os.path.basename(model), "settings": settings, "table": table(rows), "rows": rows})
            for name in both:
                points = row[name]
                goals = ", ".join(f"{goal:.0%} at {'–' if (s := reached(points, goal)) is None else f'{s:.0f} s'}" for goal in GOALS)
                print(f"seed {seed}, {name:8} {points[0]['accuracy']:.1%} at first, {points[-1]['accuracy']:.1%} after "
                      f"{points[-1]['seconds']:.0f} s; {goals}", flush=True)
    for goal, row in table(rows).items():
        print(f"{goal}: {row['ratio']['median']:.1f} times as soon, of {row['seeds']} seeds")


if __name__ == "__main__":
    main()
