"""Every dataset of reasoning-gym through recipes/reasoning_gym_task.py: can it be drawn and scored, what can be had for nothing, does a step train?

    python3 bench/gym_datasets.py MINKE           # needs `pip install reasoning-gym`; goes on with bench/results/gym_datasets.json
    python3 bench/gym_datasets.py MINKE NAME…     # measures these anew

For each dataset five problems are drawn at its first and its last level, twice, and scored: the right answer must be worth 1
(where the dataset gives one); the right answer with text around it, the question itself, nothing and nonsense must be worth 0.
`lenient` is the highest score that the dataset's own scorer gives to such an answer.

Then `minke train` takes one step on its demonstrations, where it has any, and one GRPO step, with a tiny random model of bytes
at the first level: `step` says how that ended, `step_s` after how long, program and measurements included. Whatever a dataset
does, the next one is measured.
"""

import gzip
import importlib.metadata
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ADAPTER = ROOT / "recipes" / "reasoning_gym_task.py"
RESULTS = ROOT / "bench" / "results" / "gym_datasets.json"
SEEDS = range(5)
TIME_S = 60
STEP_S = 300

RECIPE = """version = 1
[model]
reference = "model"
dtype = "f32"
[task]
command = [{command}]
{demonstrations}[[stage]]
kind = "grpo"
steps = 1
prompts = 2
samples = 4
max_new_tokens = 16
level = 1
lr = 1e-3
[eval]
level = 1
items = 2
samples = 0
max_new_tokens = 16
"""
DEMONSTRATIONS = """[[stage]]
kind = "sft"
steps = 1
batch = 2
examples = 4
level = 1
mixture = { direct = 1 }
lr = 1e-3
"""


class Program:
    """The adapter of a dataset, ended when it takes too long."""

    def __init__(self, *arguments):
        command = [sys.executable, str(ADAPTER), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.id = 0

    def ask(self, **request):
        self.id += 1
        timer = threading.Timer(TIME_S, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"id": self.id, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self.process.kill()
            said = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(said[-1] if said else f"no answer within {TIME_S} s")
        return json.loads(line)


def around(question, answer):
    """What must be worth nothing: the answer with text around it, echoes, nothing, nonsense."""
    free = ["", " ", "I don't know", question, "0" * 400, "<answer></answer>", "١٢٣", "None", "[]", "{}"]
    if answer:
        free += [f"{answer} or not", f"The answer is {answer}.", f"{answer} {answer}", f"x{answer}", question + answer]
    return [text for text in free if not answer or text.strip() != answer.strip()]


def measure(name):
    strict, lenient = Program(name), Program(name, "--at-least", "0")
    result = {"levels": 1, "right": "none given", "lenient": 0.0, "rewarded": []}
    try:
        hello = strict.ask(op="hello", version=1)
        lenient.ask(op="hello", version=1)
        result["levels"], rewards, same = hello["levels"][1], [], True
        for level in sorted({1, hello["levels"][1]}):
            for seed in SEEDS:
                drawn = [p.ask(op="sample", seed=seed, level=level) for p in (strict, lenient)]
                same &= all(drawn[0][key] == drawn[1][key] for key in ("prompt", "item", "answer"))
                item, answer = drawn[0]["item"], drawn[0]["answer"]
                if answer:
                    rewards.append(strict.ask(op="score", item=item, answer=answer)["reward"])
                for text in around(drawn[0]["prompt"], answer):
                    if strict.ask(op="score", item=item, answer=text)["reward"]:
                        result["rewarded"].append(text[:80])
                    reason = lenient.ask(op="score", item=item, answer=text)["reason"]
                    if reason.startswith("the dataset's score is "):
                        result["lenient"] = max(result["lenient"], float(reason.rsplit(" ", 1)[1]))
        if rewards:
            result["right"] = f"{sum(rewards)} of {len(rewards)}"
        result["state"] = "works" if same and all(rewards) else "the same seed draws other problems" if not same else "its own answer fails"
    except (RuntimeError, json.JSONDecodeError) as error:
        result["state"] = f"fails: {str(error)[:200]}"
    finally:
        for program in (strict, lenient):
            program.process.kill()
            program.process.communicate()
    result["rewarded"] = sorted(set(result["rewarded"]))
    return result


def prepare(home):
    """A tiny model that reads any bytes, with room for long prompts."""
    model = shutil.copytree(ROOT / "golden" / "models" / "llama-chat", home / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1 << 16}))


def step(minke, name, demonstrations):
    """How the two steps end, and after how many seconds."""
    with tempfile.TemporaryDirectory() as directory:
        home = pathlib.Path(directory)
        prepare(home)
        command = ", ".join(json.dumps(word) for word in (sys.executable, str(ADAPTER), name))
        (home / "step.toml").write_text(RECIPE.format(command=command, demonstrations=DEMONSTRATIONS if demonstrations else ""))
        start = time.monotonic()
        train = [minke, "train", "step.toml", "--out", "run"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(train, cwd=home, env={**os.environ, "MINKE_HOME": "home"}, text=True, start_new_session=True, **pipes)
        try:
            said = process.communicate(timeout=STEP_S)[1].strip().splitlines()
            last = (said or ["no word"])[-1].replace(sys.executable, "python3").replace(f"{ROOT}/", "")
            ended = "works" if process.returncode == 0 else f"fails: {last[:200]}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            ended = f"fails: not done within {STEP_S} s"
        seconds = round(time.monotonic() - start, 1)
        if ended == "works":
            with gzip.open(next((home / "run" / "rollouts").glob("*.jsonl.gz")), "rt") as file:
                reasons = {json.loads(line)["reason"] for line in list(file)[1:]}
            # A program that failed is named in the reason of the rollout that it was to judge.
            failed = [reason for reason in reasons if "the task's program" in reason or "scorer failed" in reason]
            ended = f"works, but: {failed[0][:200]}" if failed else ended
        return {"step": ended, "step_s": seconds}


def main():
    from reasoning_gym.factory import DATASETS

    minke, *names = sys.argv[1:]
    minke = str(pathlib.Path(minke).resolve())
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"datasets": {}}
    report["reasoning_gym"], results = importlib.metadata.version("reasoning-gym"), report["datasets"]
    for name in names or [name for name in sorted(DATASETS) if "step" not in results.get(name, {})]:
        result = measure(name) if names or name not in results else results[name]
        results[name] = result | step(minke, name, result["right"] != "none given")
        print(name, json.dumps(results[name]), flush=True)
        report["datasets"] = dict(sorted(results.items()))
        RESULTS.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for key in ("state", "step"):
        states = [result.get(key) for result in results.values()]
        print(f"{key}: {states.count('works')} of {len(states)} work", file=sys.stderr)


if __name__ == "__main__":
    main()
