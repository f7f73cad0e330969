#!/usr/bin/env python3
"""How many tokens the trainer sees with another log-probability than they were sampled with: minke's, and TRL's.

usage: bench/exactness.py PYTHON [--steps 200] [--peer-steps 200] [--minke FILE] [--out bench/results/exactness.json]

PYTHON is an interpreter with torch and trl. minke trains a dense model and a mixture of experts from random weights, on one
thread and on two, with groups of differing lengths in continuous batches; a run ends at the first token that differs by a bit,
so a run that ends well has none. It must also end with the same weights whatever the threads. TRL trains a dense model of the
same sizes with its own generation (transformers), in f32; what it samples with and what it trains with are taken from the inside.
"""
import argparse, hashlib, json, os, subprocess, sys, tempfile

from common import ROOT, build, where, write

DENSE = """
model_type = "llama"
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 3
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
max_position_embeddings = 96
"""
MIXTURE = """
model_type = "deepseek_v3"
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 3
num_attention_heads = 4
q_lora_rank = 32
kv_lora_rank = 32
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
first_k_dense_replace = 1
n_routed_experts = 8
num_experts_per_tok = 2
n_shared_experts = 1
moe_intermediate_size = 32
n_group = 2
topk_group = 1
routed_scaling_factor = 1.0
max_position_embeddings = 96
"""
RECIPE = """
version = 1
[model]
dtype = "{dtype}"
[model.scratch]{model}
[task]
name = "chain_sum"
digits = 1
[[stage]]
kind = "sft"
steps = 200
batch = 32
examples = 2000
level = [2, 3, 4]
mixture = {{ think = 1.0 }}
lr = 3e-3
warmup = 10
[[stage]]
kind = "grpo"
steps = {steps}
prompts = 8
samples = 8
max_new_tokens = 48
level = [2, 3, 4]
refills = 1
lr = 3e-4
[eval]
level = 4
items = 100
samples = 0
max_new_tokens = 48
[checkpoint]
every = 1000
"""


def ours(minke, name, model, dtype, steps, threads, folder):
    recipe, run = os.path.join(folder, f"{name}-{dtype}.toml"), os.path.join(folder, f"{name}-{dtype}-{threads}")
    with open(recipe, "w") as f:
        f.write(RECIPE.format(model=model, dtype=dtype, steps=steps))
    subprocess.run([minke, "train", recipe, "--out", run], env=os.environ | {"MINKE_THREADS": str(threads)}, check=True,
                   stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with open(os.path.join(run, "metrics.jsonl")) as f:
        rollouts = [step["rollouts"] for step in map(json.loads, f) if step.get("rollouts")]
    with open(os.path.join(run, "model/model.safetensors"), "rb") as f:
        weights = hashlib.sha256(f.read()).hexdigest()
    return {"model": name, "dtype": dtype, "threads": threads, "steps": len(rollouts), "differing": 0,
            "tokens": sum(step["compared"] for step in rollouts), "reward": [rollouts[0]["reward"], rollouts[-1]["reward"]],
            "weights": weights}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("python")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--peer-steps", type=int, default=200)
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/exactness.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in [("dense", DENSE), ("mixture", MIXTURE)]:
            for dtype in ("f32", "bf16"):
                both = [ours(minke, name, model, dtype, a.steps, threads, folder) for threads in (1, 2)]
                if both[0]["weights"] != both[1]["weights"]:
                    sys.exit(f"{name}, {dtype}: one thread and two came to different weights")
                rows += both
                print(f"minke, {name}, {dtype}: {both[0]['differing']} of {both[0]['tokens']} tokens differ in {both[0]['steps']} steps; "
                      f"the same weights on one thread and on two")
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    said = subprocess.run([a.python, os.path.join(ROOT, "bench/exactness_trl.py"), str(a.peer_steps)], env=env, check=True,
                          capture_output=True, text=True).stdout
    peer = json.loads([line for line in said.splitlines() if line.startswith('{"steps"')][-1])
    print(f"TRL, dense, f32: {peer['differing']} of {peer['tokens']} tokens differ in {peer['steps']} steps, by up to {peer['largest']:.1e}")
    write(a.out, where() | {"minke": rows, "trl": peer})


if __name__ == "__main__":
    main()
