"""reasoning-gym's datasets as tasks: in a recipe, `command = ["python3", "recipes/reasoning_gym_task.py", "leg_counting"]`.

Needs `pip install reasoning-gym`. Level n asks each attribute of the dataset's curriculum for its n-th value. Many of its
scorers give a part of the reward to an answer that has the right one in it somewhere. Here only a full score counts, and no
answer that merely contains the right one does; where a scorer takes nonsense for right as well, only the very answer is.
`--at-least 0.5` takes the scorer's word instead, from that score on.
"""

import argparse
import functools
import json
import os
import random
import sys

import reasoning_gym
from reasoning_gym.factory import DATASETS, create_curriculum, has_curriculum

NONSENSE = ["", " ", "I don't know", "None", "[]", "{}", "<answer></answer>", "0" * 400, "\u0661\u0662\u0663"]


class Task:
    def __init__(self, name, at_least):
        self.name, self.at_least, self.levels = name, at_least, 0
        self.curriculum = create_curriculum(name) if has_curriculum(name) else None
        self.draw = functools.lru_cache(maxsize=256)(self.draw)
        self.kept = functools.lru_cache(maxsize=16)(self.kept)
        try:  # Up to the first level that the dataset itself refuses.
            while self.curriculum and self.levels < max(len(a.levels) for a in self.curriculum.attributes.values()):
                self.configuration(0, self.levels + 1)
                self.levels += 1
        except (AssertionError, ValueError):
            pass

    def configuration(self, seed, level):
        for name, attribute in self.curriculum.attributes.items():
            self.curriculum.set_attr_level(name, min(level, len(attribute.levels)) - 1)
        configuration = self.curriculum.generate_configuration({"seed": seed, "size": 1})
        getattr(configuration, "validate", lambda: None)()
        return configuration

    def draw(self, seed, level):
        """The dataset of one entry that a seed and a level have, and the entry."""
        return reseeded(self.kept(level), seed) if self.reseeds else self.anew(seed, level)

    def anew(self, seed, level):
        random.seed(seed)  # Some datasets draw from here as well.
        if self.levels:
            data = DATASETS[self.name][0](config=self.configuration(seed, level))
        else:  # Without a curriculum, as the dataset is by itself.
            data = reasoning_gym.create_dataset(self.name, seed=seed, size=1)
        return data, data[0]

    def kept(self, level):
        """The dataset that is told one seed after another. Some take seconds to be made: they read files, or look for all solutions."""
        return self.anew(0, level)[0]

    @functools.cached_property
    def reseeds(self):
        """Whether the dataset draws only after it has been made, so that one does for all seeds."""
        data = self.kept(1)
        try:
            return all(reseeded(data, seed)[1] == self.anew(seed, 1)[1] for seed in (1, 2, 1 << 40))
        except Exception:  # It has no seed to be told, or cannot bear it.
            return False

    def hello(self, request):
        answers = [self.draw(seed, 1)[1].get("answer") for seed in range(3)]
        demonstrations = all(isinstance(answer, str) and answer for answer in answers)
        levels = [1, max(1, self.levels)]
        return {"version": 1, "name": f"reasoning_gym/{self.name}", "levels": levels, "demonstrations": demonstrations}

    def sample(self, request):
        # What it takes to draw the entry again is all that has to be kept of it.
        item = {"seed": request["seed"], "level": request["level"]}
        entry = self.draw(**item)[1]
        answer = entry.get("answer")
        return {"prompt": entry["question"], "item": item, "answer": answer if isinstance(answer, str) else None}

    def score(self, request):
        data, entry = self.draw(**request["item"])
        answer, right = request["answer"], str(entry.get("answer") or "").strip()
        score, reason = score_of(data, entry, answer)
        if self.at_least is not None:
            return {"reward": int(score >= self.at_least), "reason": reason}
        if score != 1 or right == answer.strip():
            return {"reward": int(score == 1), "reason": reason}
        if right and right in answer:
            return {"reward": 0, "reason": "the right answer has other text around it"}
        if any(score_of(data, entry, text)[0] == 1 for text in [entry["question"], *NONSENSE]):
            return {"reward": 0, "reason": "the dataset's scorer takes nonsense for right, and this is not its answer"}
        return {"reward": 1, "reason": reason}


def reseeded(data, seed):
    random.seed(seed)
    data.seed = data.config.seed = seed
    return data, data[0]


def score_of(data, entry, answer):
    try:
        score = float(data.score_answer(answer, entry))
        return score, f"the dataset's score is {score:.3g}"
    except Exception as error:  # Scorers are not made for whatever a model writes.
        return -1.0, f"the dataset's scorer failed: {error!r}"[:200]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=sorted(DATASETS), metavar="DATASET")
    parser.add_argument("--at-least", type=float, metavar="SCORE")
    arguments = parser.parse_args()
    # Some datasets go by the order of sets, which is another in every process unless it is told otherwise.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    # What a dataset prints must not stand between the replies.
    replies, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    task = Task(arguments.dataset, arguments.at_least)
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"hello": task.hello, "sample": task.sample, "score": task.score}[request["op"]](request)
        print(json.dumps({"id": request["id"], **reply}), file=replies, flush=True)
