"""Every dataset of reasoning-gym through recipes/reasoning_gym_task.py: can it be drawn and scored, and what can be had for nothing?

    python3 bench/gym_datasets.py        # needs `pip install reasoning-gym`; writes bench/results/gym_datasets.json

For each dataset five problems are drawn at its first and its last level, twice, and scored: the right answer must be worth 1
(where the dataset gives one); the right answer with text around it, the question itself, nothing and nonsense must be worth 0.
`lenient` is the highest score that the dataset's own scorer gives to such an answer.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
ADAPTER = ROOT / "recipes" / "reasoning_gym_task.py"
SEEDS = range(5)
TIME_S = 60


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


def main():
    from reasoning_gym.factory import DATASETS

    results = {}
    for name in sys.argv[1:] or sorted(DATASETS):
        results[name] = measure(name)
        print(name, json.dumps(results[name]), flush=True)
    report = {"reasoning_gym": importlib.metadata.version("reasoning-gym"), "datasets": results}
    if not sys.argv[1:]:
        path = ROOT / "bench" / "results" / "gym_datasets.json"
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    states = [result["state"] for result in results.values()]
    print(f"{states.count('works')} of {len(states)} work", file=sys.stderr)


if __name__ == "__main__":
    main()
