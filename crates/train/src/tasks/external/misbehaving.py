"""A task's program for tests, which misbehaves in the way that an answer, or its argument, asks for."""

import json
import os
import subprocess
import sys
import time

mode = sys.argv[1] if len(sys.argv) > 1 else ""
starts = sys.argv[2] if len(sys.argv) > 2 else None


def say(request, **reply):
    print(json.dumps({"id": request["id"], **reply}))


def hello(request):
    levels = [1, 3]
    if mode == "changes":  # It introduces itself otherwise when it is started again.
        with open(starts, "a+") as file:
            file.write("x")
            levels[1] += file.tell()
    version = {"old": 0}.get(mode, request["version"])
    extra = {"demonstrations": True} if mode in ("demonstrates", "whims") else {}
    if mode == "splits":
        extra["splits"] = ["train", "held_out"]
    say(request, version=version, name="sums", levels=levels, **extra)


def sample(request):
    if mode == "no samples":
        sys.exit(3)
    first, second = request["seed"] % 1000, request["level"]
    if mode == "one sample":
        first = 1
    if mode == "whims":  # Another problem each time.
        first = time.monotonic_ns() % 1000
    answer = {"answer": str(first + second), "thought": "easy"} if mode in ("demonstrates", "whims") else {}
    say(request, prompt=f"{first}+{second}=" + request.get("split", ""), item=[first, second], **answer)


def score(request):
    answer, right = request["answer"], str(sum(request["item"]))
    if answer == "hang":
        child = subprocess.Popen(["sleep", "60"])
        with open(starts, "w") as file:
            file.write(str(child.pid))
        time.sleep(60)
    elif answer == "flood":
        while True:
            sys.stdout.write("x" * 4096)
    elif answer == "lines":
        while True:
            print("{}")
    elif answer == "crash":
        sys.exit("it hurts")
    elif answer == "die":
        os.abort()
    elif answer == "memory":
        bytearray(4 << 30)
    elif answer == "deaf":
        os.close(1)
        time.sleep(60)
    elif answer == "text":
        print("reward: 1")
    elif answer == "list":
        print([1])
    elif answer == "nan":
        say(request, reward=float("nan"))
    elif answer == "seven":
        say(request, reward=7)
    elif answer == "minus":
        say(request, reward=-1)
    elif answer == "yes":
        say(request, reward=True)
    elif answer == "word":
        say(request, reward="1")
    elif answer == "nothing":
        say(request)
    elif answer == "other":
        print(json.dumps({"id": request["id"] - 1, "reward": 1}))
    elif answer == "twice":
        say(request, reward=0)
        say(request, reward=1)
    elif answer == "error":
        say(request, error="no such item")
    elif answer == "half":
        say(request, reward=0.5)
    elif answer == "nearly":
        say(request, reward=0.999999, reason="a digit is missing")
    else:
        say(request, reward=1 if answer == right else 0)


for line in sys.stdin:
    request = json.loads(line)
    {"hello": hello, "sample": sample, "score": score}[request["op"]](request)
