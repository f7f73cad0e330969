#!/usr/bin/env python3
"""Whole GRPO steps beside TRL's, in turn: the same model, prompts, rewards and sizes; and beside GRPO written by hand in PyTorch.

usage: bench/grpo.py MODEL PYTHON [--by-hand PEER_DIR] [--rounds 3] [--steps 3] [--threads 2] [--dtypes f32,bf16]
       [--minke FILE] [--out FILE]

MODEL is a Hugging Face directory of SmolLM2-135M-Instruct, PYTHON an interpreter with torch, trl and reasoning-gym. A step samples
8 completions of up to 128 tokens for each of 4 countdown prompts, and learns from them (4 prompts of about 140 tokens). Rewards
look at a completion's last character, so that nearly every group has something to learn. TRL is tried in each of the dtypes, in
micro-batches of 8, and measured against in whichever is faster here; so is the peer's grpo_plain.py (micro-batches of 8, trimmed,
with rewards of its own that leave no group without something to learn). The first step of a run, which warms up, is left out.
Nothing else should be running.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

from common import ROOT, build, by_hand, spread, watched, where, write

RECIPE = """
version = 1
seed = {seed}
[model]
reference = "{model}"
dtype = "bf16"
moments = "bf16"
activations_mb = 600
[task]
file = "{prompts}"
checker = "regex"
[format]
think = false
lenient = true
[[stage]]
kind = "grpo"
steps = {steps}
prompts = 4
samples = 8
max_new_tokens = 128
level = 1
loss = "dapo"
scale_rewards = "group"
lr = 1e-6
[eval]
level = 1
items = 1
samples = 0
max_new_tokens = 1
[checkpoint]
every = 1000
"""


def measured(command, env):
    """What a program printed, and the most memory it took, in GB."""
    with watched(), tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        child = subprocess.Popen(command, env=env, stdout=said, stderr=complained)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0), complained.seek(0)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)}: {complained.read()[-600:]}")
        return said.read(), usage.ru_maxrss / 1e6


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model"), p.add_argument("python")
    p.add_argument("--by-hand", metavar="PEER_DIR", help="has grpo_plain.py and what it imports")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--dtypes", type=lambda text: text.split(","), default=["f32", "bf16"])
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/grpo.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    peer = os.path.join(ROOT, "bench/grpo_trl.py")
    # A forced core type would slow torch down.
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    env |= {"HF_HUB_OFFLINE": "1", "MINKE_THREADS": str(a.threads)}
    with tempfile.TemporaryDirectory() as folder:
        prompts = os.path.join(folder, "prompts.jsonl")
        subprocess.run([a.python, peer, "prompts", prompts, "256"], env=env, check=True)

        def trl(dtype):
            said, memory = measured([a.python, peer, "train", a.model, prompts, dtype, str(a.steps)], env)
            row = json.loads([line for line in said.splitlines() if line.startswith('{"seconds"')][-1])
            return {"step_s": statistics.median(row["seconds"][1:]), "completion_tokens": statistics.mean(row["completion_tokens"][1:]),
                    "memory_gb": memory}

        def plain(dtype):
            script, path = by_hand(os.path.abspath(a.by_hand), folder, dtype)
            settings = ["--bench", "--task", "countdown", "--P", "4", "--G", "8", "--new", "128", "--mb", "8", "--trim"]
            own = env | {"PYTHONPATH": path, "SMOLLM2_HF": os.path.abspath(a.model), "RESULTS": os.path.join(folder, "by-hand.jsonl")}
            said, memory = measured([a.python, script, *settings, "--steps", str(a.steps - 1)], own)
            # Its own benchmark adds the step that warms up.
            rows = [json.loads(line) for line in said.splitlines() if line.startswith('{"step"')][1:]
            return {"step_s": statistics.median(row["t"] for row in rows), "completion_tokens": statistics.mean(row["len"] for row in rows),
                    "memory_gb": memory}

        def ours(seed):
            recipe, run = os.path.join(folder, "grpo.toml"), os.path.join(folder, f"run-{seed}")
            with open(recipe, "w") as f:
                f.write(RECIPE.format(seed=seed, model=os.path.abspath(a.model), prompts=prompts, steps=a.steps))
            _, memory = measured([minke, "train", recipe, "--out", run], env)
            with open(os.path.join(run, "metrics.jsonl")) as f:
                steps = [json.loads(line) for line in f][1:]
            return {"step_s": statistics.median(step["wall_s"] for step in steps),
                    "completion_tokens": statistics.mean(step["rollouts"]["completion_tokens"] for step in steps),
                    "agreeing_groups": statistics.mean(step["rollouts"]["zero_variance"] for step in steps), "memory_gb": memory}

        peers = {"trl": trl} | ({"by_hand": plain} if a.by_hand else {})
        # Among one there is nothing to choose.
        tried = {name: {dtype: peer(dtype) for dtype in a.dtypes} for name, peer in peers.items()} if len(a.dtypes) > 1 else {}
        best = {name: min(tried[name], key=lambda dtype: tried[name][dtype]["step_s"]) if tried else a.dtypes[0] for name in peers}
        for name, dtypes in tried.items():
            print(f"{name}, tried: " + ", ".join(f"{dtype} {row['step_s']:.1f} s" for dtype, row in dtypes.items()), file=sys.stderr)
        rounds = []
        for seed in range(1, a.rounds + 1):
            sides = {"minke": lambda: ours(seed)} | {name: lambda name=name: peers[name](best[name]) for name in peers}
            order = list(sides) if seed % 2 else list(sides)[::-1]
            rounds.append({name: sides[name]() for name in order})
    table = {name: {key: spread([r[name][key] for r in rounds]) for key in rounds[0][name]} for name in sides}
    ratios = {name: spread([r[name]["step_s"] / r["minke"]["step_s"] for r in rounds]) for name in peers}
    for name, row in table.items():
        print(f"{name:8} {row['step_s']['median']:7.1f} s a step, {row['completion_tokens']['median']:.0f} tokens a completion, "
              f"{row['memory_gb']['median']:.1f} GB")
    for name, ratio in ratios.items():
        print(f"{ratio['median']:.2f} times as fast as {name} ({ratio['min']:.2f}–{ratio['max']:.2f})")
    write(a.out, where() | {"threads": a.threads, "dtypes": best, "tried": tried, "table": table, "ratios": ratios, "rounds": rounds})


if __name__ == "__main__":
    main()
