#!/usr/bin/env python3
"""transformers' side of bench/agreement.py.

usage: bench/agreement_transformers.py MODEL_DIR ANSWERS REPLIES MAX_NEW_TOKENS THINK BATCH

Reads what `minke eval --answers` wrote, generates greedily in f32 from the same prompts, and writes a line of JSON for each
problem; its last line on stdout has the versions.
"""
import json, sys

import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def ended(tokens, ends):
    """Tokens up to the first that ends a completion."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))]


def main(path, answers, replies, limit, think, batch):
    limit, think, batch = int(limit), json.loads(think), int(batch)
    with open(answers) as f:
        problems = [json.loads(line) for line in f]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    # What the model's own generation_config.json asks for besides is left out.
    model.generation_config = GenerationConfig()

    def prompt(problem):
        if "messages" not in problem:
            return tokenizer(problem["prompt"]).input_ids
        text = tokenizer.apply_chat_template(
            problem["messages"], tokenize=False, add_generation_prompt=True, enable_thinking=think, thinking=think)
        return tokenizer(text, add_special_tokens=False).input_ids

    def text(tokens, ends):
        body = tokens[:-1] if tokens and tokens[-1] in ends else tokens
        return tokenizer.decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # Prompts of one length stand side by side, so that nothing is padded.
    lengths = {}
    for problem in problems:
        lengths.setdefault(len(problem["prompt_tokens"]), []).append(problem)
    for same in lengths.values():
        for part in (same[i : i + batch] for i in range(0, len(same), batch)):
            ids, ends = torch.tensor([problem["prompt_tokens"] for problem in part]), part[0]["ends"]
            with torch.no_grad():
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit,
                                     eos_token_id=ends, pad_token_id=ends[0])
            for problem, tokens in zip(part, out[:, ids.shape[1] :].tolist()):
                # minke stops where the model's context ends, too.
                problem["theirs"] = ended(tokens, ends)[: len(problem["tokens"]) if problem["truncated"] else limit]
    with open(replies, "w") as f:
        for problem in problems:
            ours, theirs, ends = problem["tokens"], problem["theirs"], problem["ends"]
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
            if at is None and len(ours) != len(theirs):
                at = min(len(ours), len(theirs))
            gap = None
            if at is not None and at < min(len(ours), len(theirs)):
                with torch.no_grad():
                    logits = model(torch.tensor([problem["prompt_tokens"] + ours[:at]])).logits[0, -1]
                gap = abs(logits[ours[at]] - logits[theirs[at]]).item()
            line = {"same_prompt": prompt(problem) == problem["prompt_tokens"], "differs_at": at, "gap": gap, "tokens": len(ours),
                    "minke": text(ours, ends), "transformers": text(theirs, ends)}
            f.write(json.dumps(line) + "\n")
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
