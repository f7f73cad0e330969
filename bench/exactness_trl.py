#!/usr/bin/env python3
"""TRL's side of bench/exactness.py: log-probabilities at sampling and in the trainer, of a small Llama from random weights.

usage: bench/exactness_trl.py STEPS      prints one JSON line
"""
import json, sys, tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

PROMPTS, SAMPLES, NEW = 8, 8, 48
CHARACTERS = "0123456789+=<>/.;"


def main(steps):
    torch.set_num_threads(2)
    torch.manual_seed(1)
    words = {c: i for i, c in enumerate(CHARACTERS)} | {"<pad>": len(CHARACTERS), "<end>": len(CHARACTERS) + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=96, pad_token_id=words["<pad>"], eos_token_id=words["<end>"]))
    prompts = [f"{a}+{b}=" for a in range(10) for b in range(10)] + [f"{a}+{b}+{a}=" for a in range(10) for b in range(10)]

    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
        max_completion_length=NEW, beta=0.0, learning_rate=3e-4, temperature=1.0, max_steps=steps, logging_steps=50,
        save_strategy="no", report_to=[], gradient_checkpointing=False, bf16=False, disable_tqdm=True)
    trainer = GRPOTrainer(model=model, args=settings, train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tokenizer,
                          reward_funcs=lambda completions, **_: [float(sum(c in "02468" for c in text)) for text in completions])

    sampled, seen = {}, {"steps": 0, "tokens": 0, "differing": 0, "largest": 0.0}
    generate, logps = model.generate, trainer._get_per_token_logps_and_entropies

    def generating(*args, **kwargs):
        out = generate(*args, **kwargs, output_logits=True, return_dict_in_generate=True)
        new = out.sequences[:, -len(out.logits):]
        log_probs = torch.stack(out.logits, 1).float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
        sampled.clear()
        for tokens, row in zip(new.tolist(), log_probs.tolist()):
            end = tokens.index(words["<end>"]) + 1 if words["<end>"] in tokens else len(tokens)
            sampled.setdefault(tuple(tokens[:end]), []).append(row[:end])
        return out.sequences

    def training(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        result = logps(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        if model.training and torch.is_grad_enabled():
            completions, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:].bool()
            seen["steps"] += 1
            for tokens, keep, new in zip(completions, mask, result[0].detach()):
                # Two completions may be of the same tokens, after different prompts: the nearest is meant.
                olds = sampled[tuple(tokens[keep].tolist())]
                new = new[keep]
                off = min(((new - torch.tensor(old)).abs() for old in olds), key=lambda off: off.max().item())
                seen["tokens"] += len(off)
                seen["differing"] += int((off != 0).sum())
                seen["largest"] = max(seen["largest"], off.max().item())
        return result

    model.generate, trainer._get_per_token_logps_and_entropies = generating, training
    trainer.train()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]))
