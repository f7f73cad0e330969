"""What the comparisons share: building, running and timing programs fairly, and saying where and at which commit."""
import contextlib, json, os, resource, statistics, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Above this share of the machine taken by others, a time says little.
QUIET = 0.05
# Ours, and torch's name for it.
DTYPES = {"bf16": "bfloat16", "f32": "float32"}
_loudest = 0.0


def build(*what):
    """Builds with optimisation; the folder of what was built."""
    subprocess.run(["cargo", "build", "--release", "-q", *what], cwd=ROOT, check=True)
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, capture_output=True, check=True)
    return os.path.join(json.loads(metadata.stdout)["target_directory"], "release")


def _busy():
    """Seconds that all cores were busy together since the machine started."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _ours():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command, **kw):
    """Runs a program to its end; the JSON lines that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, **kw)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-400:]}")
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def watched():
    """Watches how busy others are while something is timed."""
    global _loudest
    busy, ours, start = _busy(), _ours(), time.monotonic()
    yield
    others = (_busy() - busy) - (_ours() - ours)
    _loudest = max(_loudest, others / (time.monotonic() - start) / os.cpu_count())


def timed(command, **kw):
    """`run`, and watches how busy others are meanwhile."""
    with watched():
        return run(command, **kw)


def by_hand(peer, folder, dtype):
    """The peer's GRPO in plain PyTorch, as it is but for its dtype, in a folder; its path, and the path of what it imports."""
    script = os.path.join(folder, f"peer-{dtype}.py")
    with open(os.path.join(peer, "grpo_plain.py")) as source, open(script, "w") as f:
        f.write(source.read().replace("dtype=torch.bfloat16", f"dtype=torch.{DTYPES[dtype]}"))
    return script, os.pathsep.join([peer, os.environ.get("PYTHONPATH", "")])


def where():
    """What a result must say of its origin; `others` is the largest share of the cores that others took during a timed run."""
    git = lambda *command: subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "crates", "recipes", "Cargo.toml", "Cargo.lock")
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    if _loudest > QUIET:
        print(f"others took up to {_loudest:.0%} of the machine: these times say little", file=sys.stderr)
    # The last commit that changed what is measured.
    commit = git("log", "-1", "--format=%h", "--", "crates", "recipes", "Cargo.toml", "Cargo.lock") + ("-changed" if changed else "")
    return {"commit": commit, "cpu": cpu, "cores": os.cpu_count(), "others": round(_loudest, 3)}


def spread(values):
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def beside(peer, rounds):
    """Of each file and test, how the peer and minke did and the ratio of the two in the same round.

    `rounds` has for each file its rounds, {program: {test: rate}}."""
    rows = {}
    for path, figures in rounds.items():
        for test in figures[0]["minke"] if figures else []:
            ours, theirs = ([r[name][test] for r in figures] for name in ("minke", peer))
            rows[f"{os.path.basename(path)} {test}"] = {
                peer: spread(theirs),
                "minke": spread(ours),
                "ratio": spread([x / y for x, y in zip(ours, theirs)]),
            }
    return rows


def named(rounds):
    """The same by files' names: where they lie is nobody's concern."""
    return {os.path.basename(path): figures for path, figures in rounds.items()}


def show(peer, table):
    """Prints what `beside` has made."""
    print(f"{'':34}{peer:>12}{'minke':>12}   ratio (of the same round)")
    for name, row in table.items():
        ratio = row["ratio"]
        print(f"{name:34}{row[peer]['median']:12.1f}{row['minke']['median']:12.1f}   "
              f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})")


def write(path, result):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
