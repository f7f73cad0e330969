"""reasoning-gym's datasets as tasks: in a recipe, `command = ["python3", "recipes/reasoning_gym_task.py", "leg_counting"]`.

Needs `pip install reasoning-gym`. Level n asks each attribute of the dataset's curriculum for its n-th value. Many of its
scorers give a part of the reward to an answer that has the right one in it somewhere. Here only a full score counts, and no
answer that merely contains the right one does; `--at-least 0.5` takes the scorer's word instead, from that score on.
"""

import argparse
import functools
import json
import os
import sys

import reasoning_gym
from reasoning_gym.factory import DATASETS, create_curriculum, has_curriculum


class Task:
    def __init__(self, name, at_least):
        self.name, self.at_least = name, at_least
        self.curriculum = create_curriculum(name) if has_curriculum(name) else None
        self.levels = self.count_levels() if self.curriculum else 0
        self.draw = functools.lru_cache(maxsize=1024)(self.draw)

    def count_levels(self):
        """Levels of the curriculum up to the first that its own dataset refuses."""
        most = max([len(attribute.levels) for attribute in self.curriculum.attributes.values()], default=0)
        for level in range(1, most + 1):
            try:
                self.configuration(0, level)
            except (AssertionError, ValueError):
                return level - 1
        return most

    def configuration(self, seed, level):
        for name, attribute in self.curriculum.attributes.items():
            self.curriculum.set_attr_level(name, min(level, len(attribute.levels)) - 1)
        configuration = self.curriculum.generate_configuration({"seed": seed, "size": 1})
        configuration.validate()
        return configuration

    def draw(self, seed, level):
        """The dataset of one entry that a seed and a level have, and the entry."""
        if self.levels == 0:  # Without a curriculum, as the dataset is by itself.
            data = reasoning_gym.create_dataset(self.name, seed=seed, size=1)
        else:
            data = DATASETS[self.name][0](config=self.configuration(seed, level))
        return data, data[0]

    def hello(self, request):
        answers = [self.draw(seed, 1)[1].get("answer") for seed in range(3)]
        return {
            "version": 1,
            "name": f"reasoning_gym/{self.name}",
            "levels": [1, max(1, self.levels)],
            "demonstrations": all(isinstance(answer, str) and answer for answer in answers),
        }

    def sample(self, request):
        # What it takes to draw the entry again is all that has to be kept of it.
        item = {"seed": request["seed"], "level": request["level"]}
        entry = self.draw(**item)[1]
        answer = entry.get("answer")
        return {"prompt": entry["question"], "item": item, "answer": answer if isinstance(answer, str) else None}

    def score(self, request):
        data, entry = self.draw(**request["item"])
        answer, right = request["answer"], entry.get("answer")
        try:
            score = float(data.score_answer(answer, entry))
        except Exception as error:  # Scorers are not made for whatever a model writes.
            return {"reward": 0, "reason": f"the dataset's scorer failed: {error!r}"[:200]}
        if self.at_least is not None:
            return {"reward": 1 if score >= self.at_least else 0, "reason": f"the dataset's score is {score:.3g}"}
        if isinstance(right, str) and right.strip() in answer and answer.strip() != right.strip():
            return {"reward": 0, "reason": "the right answer has other text around it"}
        return {"reward": 1 if score == 1 else 0, "reason": f"the dataset's score is {score:.3g}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=sorted(DATASETS), metavar="DATASET")
    parser.add_argument("--at-least", type=float, metavar="SCORE")
    arguments = parser.parse_args()
    # What a dataset prints must not stand between the replies.
    replies, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    task = Task(arguments.dataset, arguments.at_least)
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(task, {"hello": "hello", "sample": "sample", "score": "score"}[request["op"]])(request)
        print(json.dumps({"id": request["id"], **reply}), file=replies, flush=True)


if __name__ == "__main__":
    main()
