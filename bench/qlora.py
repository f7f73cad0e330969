#!/usr/bin/env python3
"""Adapters trained on a quantised model that nobody has: how much memory and time a step takes.

usage: bench/qlora.py [--layers 28] [--hidden 1536] [--intermediate 8960] [--heads 12] [--kv-heads 2] [--head-dim 128]
       [--vocabulary 151936] [--type q4_k_m] [--rank 16] [--dtype bf16] [--prompts 2] [--samples 8] [--tokens 32] [--steps 3]
       [--threads 2] [--limit GB] [--minke FILE] [--folder DIR] [--out FILE]

The model is shaped as Qwen2 (the sizes are those of Qwen2.5-1.5B unless others are given), of random weights, with the tokenizer
and chat template of golden/models/llama-chat; minke makes it a GGUF file of the type. Two runs follow, each of one stage: sft in
batches of PROMPTS * SAMPLES, and grpo. Of each, the most memory that the process took (with the pages of the file that it read,
and with what measures and writes the merged model at the end) and the tokens a second of its steps, but for the first, are kept.
Nobody rewards a random model, so grpo's gradients are all zero: passes backward are whole, but for the output projection's own,
which leaves out what has no gradient; tokens that learn something take longer. `gradient_norms` shows it.
It is an error if that is more memory than the limit. Needs numpy, and room for 5 bytes a parameter in DIR. Nothing else should be
running.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

import numpy

from common import ROOT, build, run, watched, where, write

RECIPE = """
version = 1
[model]
reference = "{model}"
dtype = "{dtype}"
recompute = true
[lora]
rank = {rank}
[task]
name = "chain_sum"
digits = [1, 2]
[[stage]]
{stage}
[eval]
level = 2
items = 1
samples = 0
max_new_tokens = 1
[checkpoint]
every = 1000
"""
STAGES = {
    "sft": """kind = "sft"
steps = {steps}
batch = {batch}
examples = 256
level = [2, 3]
mixture = {{ direct = 0.2, think = 0.8 }}
lr = 1e-4""",
    # A penalty, so that groups whose rewards are all equal, as a random model's are, are passed over neither forward nor backward.
    "grpo": """kind = "grpo"
steps = {steps}
prompts = {prompts}
samples = {samples}
max_new_tokens = {tokens}
level = 2
kl = 0.01
lr = 1e-5""",
}


def make_model(folder, a):
    """Writes a Hugging Face directory of random weights in bf16, a tensor at a time; how many parameters it has."""
    query, key = a.heads * a.head_dim, a.kv_heads * a.head_dim
    tensors = {"model.embed_tokens.weight": [a.vocabulary, a.hidden], "model.norm.weight": [a.hidden]}
    for i in range(a.layers):
        at = f"model.layers.{i}."
        tensors |= {at + "input_layernorm.weight": [a.hidden], at + "post_attention_layernorm.weight": [a.hidden]}
        for name, rows in ("q", query), ("k", key), ("v", key):
            tensors[f"{at}self_attn.{name}_proj.weight"] = [rows, a.hidden]
            tensors[f"{at}self_attn.{name}_proj.bias"] = [rows]
        tensors[at + "self_attn.o_proj.weight"] = [a.hidden, query]
        tensors[at + "mlp.gate_proj.weight"] = tensors[at + "mlp.up_proj.weight"] = [a.intermediate, a.hidden]
        tensors[at + "mlp.down_proj.weight"] = [a.hidden, a.intermediate]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        end = offset + 2 * int(numpy.prod(shape))
        header[name], offset = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = numpy.random.default_rng(1)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            if name.endswith("norm.weight"):
                values = numpy.ones(shape, numpy.float32)
            else:
                values = random.standard_normal(shape, numpy.float32) * numpy.float32(0.02)
            f.write((values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": a.vocabulary, "hidden_size": a.hidden,
              "intermediate_size": a.intermediate, "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
              "num_key_value_heads": a.kv_heads, "head_dim": a.head_dim, "hidden_act": "silu", "max_position_embeddings": 32768,
              "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    for name in "tokenizer.json", "tokenizer_config.json", "chat_template.jinja":
        shutil.copy(os.path.join(ROOT, "golden/models/llama-chat", name), folder)
    return offset // 2


def trained(minke, recipe, out, env):
    """Runs a recipe; the GB of memory that it took at most, and its steps."""
    with watched(), tempfile.TemporaryFile("w+") as complained:
        child = subprocess.Popen([minke, "train", recipe, "--out", out], env=env, stdout=subprocess.DEVNULL, stderr=complained)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            complained.seek(0)
            raise RuntimeError(f"minke train {recipe}: {complained.read()[-600:]}")
    with open(os.path.join(out, "metrics.jsonl")) as f:
        return usage.ru_maxrss / 1e6 * 1.024, [json.loads(line) for line in f]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("layers", 28), ("hidden", 1536), ("intermediate", 8960), ("heads", 12), ("kv-heads", 2), ("head-dim", 128),
                          ("vocabulary", 151936), ("rank", 16), ("prompts", 2), ("samples", 8), ("tokens", 32), ("steps", 3),
                          ("threads", 2)]:
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--type", default="q4_k_m")
    p.add_argument("--dtype", default="bf16")
    p.add_argument("--limit", type=float, default=6, metavar="GB")
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--folder", metavar="DIR", help="where the model and the runs are made")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/qlora.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    env = os.environ | {"MINKE_THREADS": str(a.threads)}
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        place = lambda name: os.path.join(folder, name)
        os.mkdir(place("source"))
        parameters = make_model(place("source"), a)
        [made] = run([minke, "quantize", place("source"), a.type, "-o", place("base.gguf"), "--json"], env=env)
        shutil.rmtree(place("source"))
        sizes = vars(a).copy()
        for name in "threads", "limit", "minke", "folder", "out":
            del sizes[name]
        result = {"parameters": parameters, "file_gb": round(made["bytes"] / 1e9, 3), "threads": a.threads, **sizes, "runs": {}}
        for kind, stage in STAGES.items():
            stage = stage.format(batch=a.prompts * a.samples, **vars(a))
            with open(place(f"{kind}.toml"), "w") as f:
                f.write(RECIPE.format(model=place("base.gguf"), stage=stage, **vars(a)))
            memory, steps = trained(minke, place(f"{kind}.toml"), place(kind), env)
            timed = steps[1:] or steps
            result["runs"][kind] = {
                "peak_gb": round(memory, 3),
                "tokens_a_step": statistics.median(step["tokens"] for step in timed),
                "tok_s": round(statistics.median(step["tokens"] / step["wall_s"] for step in timed), 2),
                "step_s": round(statistics.median(step["wall_s"] for step in timed), 2),
                "losses": [round(step["loss"], 4) for step in steps],
                "gradient_norms": [round(step["gradient_norm"], 6) for step in steps],
            }
            print(kind, result["runs"][kind], flush=True)
            # A merged model in f32 for each run would fill the disk.
            shutil.rmtree(place(kind))
            write(a.out, where() | result)
    over = [kind for kind, row in result["runs"].items() if row["peak_gb"] > a.limit]
    if over:
        sys.exit(f"{' and '.join(over)} took more than {a.limit} GB")


if __name__ == "__main__":
    main()
