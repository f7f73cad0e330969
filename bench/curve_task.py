#!/usr/bin/env python3
"""The peer's problems as a task's program, for bench/curve.py: chain_sum of two terms of one digit, judged by the peer's own rule.

usage: bench/curve_task.py PEER_DIR SEED HELD_OUT
"""
import json, sys

sys.path.insert(0, sys.argv[1])
import task

TRAINED = 100_000


def main(seed, held_out):
    # Sizes and seeds are those of the peer's script.
    sides = {"train": task.make("cs2_1", TRAINED, 1234 + seed), "held_out": task.make("cs2_1", held_out, 999)}
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "hello":
            reply = {"version": 1, "name": "cs2_1", "levels": [1, 1], "splits": list(sides)}
        elif request["op"] == "sample":
            side = request["split"]
            index = request["seed"] % len(sides[side])
            reply = {"prompt": sides[side][index]["question"], "item": [side, index]}
        else:
            side, index = request["item"]
            reply = {"reward": task.score(request["answer"], sides[side][index]["answer"])}
        print(json.dumps({"id": request["id"], **reply}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[2:]))
