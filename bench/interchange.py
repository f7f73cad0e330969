"""What minke writes, read by the tools that others use: adapters by PEFT, models with a block for multi-token prediction by transformers, GGUF
files by gguf-py and llama.cpp.

    python3 bench/interchange.py MINKE LLAMA_SERVER    # needs torch, transformers, peft and gguf; a minute; writes bench/results/interchange.json

Tiny models are trained: adapters on golden/models/llama-chat, a DeepSeek-V3 from scratch with `mtp`, and random models of three families.
Logits are compared on sequences of random tokens, in f32; greedy tokens after five prompts of the task.
"""

import importlib.metadata
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import gguf
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
MINKE, SERVER = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
TOLERANCE = 1e-4
PROMPTS = ["3+4+5=", "9+9=", "1+2+3+4=", "7+8+", "6"]

SFT = """[[stage]]
kind = "sft"
steps = {steps}
batch = 16
examples = 400
level = [2, 3]
mixture = {{ direct = 0.4, think = 0.6 }}
lr = {lr}
{more}
[eval]
level = 2
items = 8
samples = 0
max_new_tokens = 24
"""
# Tiny models of the families that minke writes as GGUF, whose vocabulary is that of golden/models/llama-chat.
SIZES = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False}
FAMILIES = ("llama", "qwen2", "qwen3")


def minke(place, *arguments):
    done = subprocess.run([MINKE, *arguments], cwd=place, env={**os.environ, "MINKE_HOME": "home"}, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"minke {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def train(place, name, model, more="", steps=60, lr=3e-3):
    recipe = f'version = 1\n[model]\n{model}[task]\nname = "chain_sum"\ndigits = 1\n' + SFT.format(steps=steps, lr=lr, more=more)
    (place / f"{name}.toml").write_text(recipe)
    minke(place, "train", f"{name}.toml", "--out", name)


def logits_apart(place, model, name):
    """The largest difference between transformers' logits and minke's of the model in directory `name`."""
    draw, apart = random.Random(name), 0.0
    for length in (1, 17, 60):
        ids = [draw.randrange(model.config.vocab_size) for _ in range(length)]
        ours = json.loads(minke(place, "debug", "logits", name, "--tokens", ",".join(map(str, ids)), "--json"))["logits"]
        with torch.no_grad():
            apart = max(apart, (torch.tensor(ours) - model(torch.tensor([ids])).logits[0]).abs().max().item())
    return apart


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def greedy_same(place, name, model):
    """After how many of the prompts transformers writes the tokens that minke writes, and how many those are."""
    tokenizer, same, tokens = AutoTokenizer.from_pretrained(place / name / "model"), 0, 0
    for prompt in PROMPTS:
        ours = json.loads(minke(place, "debug", "generate", name, "--prompt", prompt, "--tokens", "24", "--json"))["ids"]
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)[0, ids.shape[1] :].tolist()
        # Whether the token that ends a text is told as well is the program's habit.
        end = tokenizer.eos_token_id
        same, tokens = same + ([token for token in theirs if token != end] == [token for token in ours if token != end]), tokens + len(ours)
    return {"greedy_same": f"{same} of {len(PROMPTS)}", "greedy_tokens": tokens}


def adapters(place):
    base = shutil.copytree(ROOT / "golden" / "models" / "llama-chat", place / "base")
    lora = "[lora]\nrank = 4\nalpha = 12\n"
    train(place, "adapters", f'reference = "base"\ndtype = "f32"\n{lora}', lr=1e-2)
    bare = load(base)
    model = PeftModel.from_pretrained(load(base), place / "adapters" / "stages" / "1").eval()
    return {
        "logits_apart": logits_apart(place, model, "adapters"),
        "base_logits_apart": logits_apart(place, bare, "adapters"),
        **greedy_same(place, "adapters", model),
    }


def prediction(place):
    tiny = (ROOT / "recipes" / "tiny.toml").read_text()
    scratch = tiny[tiny.index("[model.scratch]") : tiny.index("[task]")]
    train(place, "mtp", f'dtype = "f32"\n{scratch.strip()}\nnum_nextn_predict_layers = 1\n', more="mtp = 0.3\n")
    with (place / "mtp" / "model" / "model.safetensors").open("rb") as file:
        names = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    layers = json.loads((place / "mtp" / "model" / "config.json").read_text())["num_hidden_layers"]
    model = load(place / "mtp" / "model")
    block = sum(name.startswith(f"model.layers.{layers}.") for name in names)
    return {"tensors_of_the_block": block, "logits_apart": logits_apart(place, model, "mtp"), **greedy_same(place, "mtp", model)}


def base(path, family):
    """A random model with a tokenizer that GGUF files can have: those from scratch know characters, which they can't."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "golden" / "models" / "llama-chat" / name, path / name)


def complete(url, prompt):
    body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
    request = urllib.request.Request(f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def llama_cpp(place, name):
    """A trained model as a GGUF file, opened by gguf-py and run by llama.cpp."""
    path = place / f"{name}.gguf"
    minke(place, "quantize", name, "f32", "-o", path.name)
    reader = gguf.GGUFReader(path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([SERVER, "-m", str(path), "--port", str(port), "-c", "128", "-t", "1", "--no-webui"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                if server.poll() is not None:
                    return {"tensors": len(reader.tensors), "greedy_same": f"llama-server ended with {server.returncode}"}
                time.sleep(0.1)
        same, tokens = 0, 0
        for prompt in PROMPTS:
            ours = json.loads(minke(place, "debug", "generate", name, "--prompt", prompt, "--tokens", "24", "--json"))["ids"]
            theirs = complete(url, prompt)["tokens"]
            end = reader.fields["tokenizer.ggml.eos_token_id"].contents()
            same, tokens = same + ([token for token in theirs if token != end] == [token for token in ours if token != end]), tokens + len(ours)
    finally:
        server.kill()
        server.wait()
    return {"tensors": len(reader.tensors), "greedy_same": f"{same} of {len(PROMPTS)}", "greedy_tokens": tokens}


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        results = {"adapters in PEFT": adapters(place), "mtp in transformers": prediction(place)}
        for family in FAMILIES:
            base(place / f"{family}-base", family)
            train(place, family, f'reference = "{family}-base"\ndtype = "f32"\n', steps=60)
        for name in ("adapters", *FAMILIES):
            results[f"{name} in llama.cpp"] = llama_cpp(place, name)
    version = subprocess.run([MINKE, "--version"], text=True, capture_output=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True).stdout.strip()
    server = subprocess.run([SERVER, "--version"], text=True, capture_output=True)
    server = next(line for line in (server.stderr + server.stdout).splitlines() if line.startswith("version: ")).removeprefix("version: ")
    report = {"minke": version, "commit": commit, "llama_server": server}
    report |= {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "gguf")}
    text = json.dumps({**report, "results": results}, indent=1)
    print(text)
    (ROOT / "bench" / "results" / "interchange.json").write_text(text + "\n")
    apart = [result["logits_apart"] for result in results.values() if "logits_apart" in result]
    if max(apart) > TOLERANCE or any(result["greedy_same"] != f"{len(PROMPTS)} of {len(PROMPTS)}" for result in results.values()):
        sys.exit("something is read otherwise")


if __name__ == "__main__":
    main()
