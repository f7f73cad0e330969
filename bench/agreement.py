#!/usr/bin/env python3
"""On how many held-out problems minke and transformers write the same, greedily and in f32, from the same weights.

usage: bench/agreement.py PYTHON MODEL_DIR RECIPE [--items N] [--batch 32] [--minke FILE] [--out FILE]

MODEL_DIR is a Hugging Face directory, such as `model/` of a run; RECIPE says the task, the format and how much is measured;
PYTHON is an interpreter with torch and transformers. Compared are the completions' tokens, the answers read from them, and the
prompts' tokens as transformers' own tokenizer and chat template make them. Where completions differ, it is said how far apart
the logits of the first two tokens that differ are for transformers: next to nothing is rounding.
"""
import argparse, json, os, re, subprocess, sys, tempfile, tomllib

from common import ROOT, build, run, where, write

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def answer(text):
    """The last number of what follows a completion's thought, or all that follows where it has none."""
    follows = text.rpartition("</think>")[2].strip()
    numbers = NUMBER.findall(follows)
    return numbers[-1].replace(",", "") if numbers else follows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("python"), p.add_argument("model"), p.add_argument("recipe")
    p.add_argument("--items", type=int, help="instead of the recipe's")
    p.add_argument("--batch", type=int, default=32, help="prompts of one length that transformers is given at a time")
    p.add_argument("--minke", metavar="FILE", help="instead of building it")
    p.add_argument("--out", default=os.path.join(ROOT, "bench/results/agreement.json"))
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke", "--bin", "minke"), "minke")
    with open(a.recipe, "rb") as f:
        recipe = tomllib.load(f)
    # A forced core type would slow torch down.
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        answers, replies = os.path.join(folder, "answers.jsonl"), os.path.join(folder, "replies.jsonl")
        items = [] if a.items is None else ["--items", str(a.items)]
        [evaluation] = run([minke, "eval", a.model, "--recipe", a.recipe, "--dtype", "f32", "--samples", "0", "--answers", answers,
                            "--json", *items])
        think = json.dumps(recipe.get("format", {}).get("think", True))
        limit = str(recipe["eval"]["max_new_tokens"])
        peer = os.path.join(ROOT, "bench/agreement_transformers.py")
        said = subprocess.run([a.python, peer, a.model, answers, replies, limit, think, str(a.batch)], env=env, capture_output=True,
                              text=True)
        if said.returncode:
            sys.exit(f"transformers: {said.stderr[-600:]}")
        versions = json.loads(said.stdout.splitlines()[-1])
        with open(replies) as f:
            pairs = [json.loads(line) for line in f]
    count = len(pairs)
    differing = [pair for pair in pairs if pair["differs_at"] is not None]
    figures = {
        "prompts": sum(pair["same_prompt"] for pair in pairs),
        "completions": count - len(differing),
        "answers": sum(answer(pair["minke"]) == answer(pair["transformers"]) for pair in pairs),
    }
    for name, same in figures.items():
        print(f"{f'the same {name}':24} {same:6} of {count}  ({same / count:.1%})")
    if differing:
        gaps = sorted(pair["gap"] for pair in differing if pair["gap"] is not None) or [0.0]
        print(f"where tokens differ first, their logits are up to {gaps[-1]:.1e} apart (median {gaps[len(gaps) // 2]:.1e})")
    # A run's model is called as its run is.
    directory = os.path.abspath(a.model)
    name = os.path.basename(os.path.dirname(directory) if os.path.basename(directory) == "model" else directory)
    keys = ("level", "items", "accuracy", "interval", "truncated")
    write(a.out, where() | versions | {
        "model": name, "recipe": os.path.basename(a.recipe), "dtype": "f32",
        "max_new_tokens": int(limit), "evaluation": {key: evaluation[key] for key in keys}, "items": count, "same": figures,
        "tokens": sum(pair["tokens"] for pair in pairs),
        "differing": [{key: pair[key] for key in ("differs_at", "gap", "minke", "transformers")} for pair in differing],
    })


if __name__ == "__main__":
    main()
