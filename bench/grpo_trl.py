#!/usr/bin/env python3
"""TRL's side of bench/grpo.py.

usage: bench/grpo_trl.py prompts FILE COUNT         countdown problems of reasoning-gym, as JSON lines
       bench/grpo_trl.py train MODEL FILE DTYPE STEPS    steps of TRL's trainer on them: their seconds, as a JSON line
"""
import json, re, resource, sys, tempfile, time

PROMPTS, SAMPLES, NEW, MICRO_BATCH = 4, 8, 128, 8
# About a third of what a model writes ends so, and so is rewarded: nearly every group has something to say.
RIGHT = "(?s).*[0-3a-gA-G.]"


def prompts(path, count):
    import reasoning_gym

    problems = reasoning_gym.create_dataset("countdown", size=int(count), seed=5)
    with open(path, "w") as f:
        for problem in problems:
            f.write(json.dumps({"question": problem["question"], "answer": RIGHT}) + "\n")


def train(model, path, dtype, steps):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(2)
    with open(path) as f:
        questions = [json.loads(line)["question"] for line in f]
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": question}]} for question in questions])

    def reward(completions, **_):
        return [float(re.fullmatch(RIGHT, completion[0]["content"].strip()) is not None) for completion in completions]

    class Watch(TrainerCallback):
        def __init__(self):
            self.begun, self.seconds, self.lengths = 0.0, [], []

        def on_step_begin(self, *_, **__):
            self.begun = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.seconds.append(time.perf_counter() - self.begun)

        def on_log(self, args, state, control, logs=None, **_):
            if "completions/mean_length" in (logs or {}):
                self.lengths.append(logs["completions/mean_length"])

    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=PROMPTS * SAMPLES // MICRO_BATCH, num_generations=SAMPLES, max_completion_length=NEW, beta=0.0,
        learning_rate=1e-6, temperature=1.0, max_steps=int(steps), logging_steps=1, save_strategy="no", report_to=[],
        gradient_checkpointing=False, bf16=dtype == "bf16", disable_tqdm=True,
        model_init_kwargs={"dtype": "bfloat16" if dtype == "bf16" else "float32", "attn_implementation": "sdpa"},
    )
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    watch = Watch()
    trainer = GRPOTrainer(model=model, args=settings, train_dataset=data, reward_funcs=reward, processing_class=tokenizer,
                          callbacks=[watch])
    trainer.train()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": watch.seconds, "completion_tokens": watch.lengths, "memory_gb": memory}))


if __name__ == "__main__":
    {"prompts": prompts, "train": train}[sys.argv[1]](*sys.argv[2:])
