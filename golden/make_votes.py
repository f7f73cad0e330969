"""Golden ratings: Bradley-Terry and Davidson fits with sandwich intervals, by SciPy, NumPy and Newman's iteration.

    python make_votes.py human.json [OUT]     # a few seconds; NumPy 2.4.6, SciPy 1.17.1

`human.json` is data/human.json of Networks-Learning/prediction-powered-ranking at af64521 (see votes/README.md). OUT is the
directory `votes` unless given; the votes of evalica are read from there.
"""

import collections
import csv
import json
import math
import pathlib
import sys

import numpy as np
from scipy.optimize import minimize, root
from scipy.special import expit, log_expit
from scipy.stats import norm

HERE = pathlib.Path(__file__).resolve().parent / "votes"
POINTS = 400 / math.log(10)
RIDGE = 1e-5  # per vote, arena-rank's `hessian_reg`
Z = norm.ppf(0.975)
OUTCOME = {"model_a": "left", "model_b": "right", "tie": "tie", "tie (bothbad)": "both-bad"}


def chatbot_arena(path):
    """Counts of (left, right, winner), in the order of the alphabet."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(collections.Counter((v["model_a"], v["model_b"], OUTCOME[v["winner"]]) for v in lines).items())


def evalica(path):
    with path.open() as file:
        votes = csv.DictReader(file)
        return sorted(collections.Counter((v["left"], v["right"], v["winner"]) for v in votes).items())


def arrays(counts):
    """Models, and for each row: indices of left and right, 1, 1/2 or 0, and how many votes."""
    models = sorted({model for (left, right, _), _ in counts for model in (left, right)})
    at = {model: i for i, model in enumerate(models)}
    value = {"left": 1.0, "tie": 0.5, "both-bad": 0.5, "right": 0.0}
    rows = [(at[left], at[right], value[winner], n) for (left, right, winner), n in counts]
    left, right, y, n = map(np.array, zip(*rows))
    return models, left, right, y, n.astype(float)


def bradley_terry(counts):
    """Maximum by SciPy on the dense design matrix, first by trust regions, then by MINPACK; covariance by NumPy."""
    models, left, right, y, n = arrays(counts)
    x = np.zeros((len(y), len(models)))
    x[np.arange(len(y)), left] = 1
    x[np.arange(len(y)), right] = -1
    votes = n.sum()

    def loss(theta):
        d = x @ theta
        return -(n * (y * log_expit(d) + (1 - y) * log_expit(-d))).sum() / votes

    def gradient(theta):
        return -x.T @ (n * (y - expit(x @ theta))) / votes

    def hessian(theta):
        p = expit(x @ theta)
        return x.T @ ((n * p * (1 - p))[:, None] * x) / votes

    # All ones are in the null space: a penalty on the sum fixes it and moves nothing else.
    one = np.ones(len(models)) / len(models)
    slope = lambda t: gradient(t) + one * (one @ t)
    curve = lambda t: hessian(t) + np.outer(one, one)
    value = lambda t: loss(t) + (one @ t) ** 2 / 2
    near = minimize(value, np.zeros(len(models)), jac=slope, hess=curve, method="trust-exact").x
    theta = root(slope, near, jac=curve, method="hybr", options={"xtol": 1e-15}).x
    theta = theta - theta.mean()
    assert np.abs(gradient(theta)).max() < 1e-15, np.abs(gradient(theta)).max()

    score = x * (y - expit(x @ theta))[:, None]
    inverse = np.linalg.inv(votes * hessian(theta) + RIDGE * votes * np.eye(len(models)))
    sandwich = inverse @ ((n[:, None] * score).T @ score) @ inverse
    # The ridge alone holds the direction of all ones; its part of the inverse means nothing.
    fisher = np.diag(inverse) - 1 / (len(models) * RIDGE * votes)
    battles = np.zeros(len(models))
    np.add.at(battles, left, n)
    np.add.at(battles, right, n)
    return models, theta, np.diag(sandwich), fisher, battles.astype(int)


def davidson(counts):
    """Maximum by Newman's iteration (JMLR 24, 2023, equations for pi and nu); scores by complex steps."""
    models, left, right, y, n = arrays(counts)
    size = len(models)
    won, tied = np.zeros((size, size)), np.zeros((size, size))
    np.add.at(won, (left[y == 1], right[y == 1]), n[y == 1])
    np.add.at(won, (right[y == 0], left[y == 0]), n[y == 0])
    np.add.at(tied, (left[y == 0.5], right[y == 0.5]), n[y == 0.5])
    tied = tied + tied.T
    points = won + tied / 2
    pi, nu = np.ones(size), 0.5
    for steps in range(1_000_000):
        root = np.sqrt(np.outer(pi, pi))
        all_ = pi[:, None] + pi[None, :] + 2 * nu * root
        above = (points * (pi[None, :] + nu * root) / all_).sum(1)
        below = (points.T * (1 + nu * np.sqrt(pi[None, :] / pi[:, None])) / all_).sum(1)
        next_pi = above / below
        next_pi /= np.exp(np.log(next_pi).mean())
        next_nu = (tied * (pi[:, None] + pi[None, :]) / all_).sum() / (4 * (won * root / all_).sum())
        moved = max(np.abs(np.log(next_pi / pi)).max(), abs(math.log(next_nu / nu)))
        pi, nu = next_pi, next_nu
        if moved < 2e-16 * size:
            break
    else:
        raise RuntimeError(f"still moving by {moved}")
    theta, eta = np.log(pi), math.log(2 * nu)

    def log_probability(d, eta, y):
        all_ = np.exp(d / 2) + np.exp(-d / 2) + np.exp(eta)
        return np.where(y == 1, d / 2, np.where(y == 0, -d / 2, eta)) - np.log(all_)

    def scores(y):
        """Derivatives by theta and eta, a row for each pair."""
        step = 1e-20
        by_d = log_probability(d + 1j * step, eta + 0j, y).imag / step
        by_eta = log_probability(d + 0j, eta + 1j * step, y).imag / step
        rows, score = np.arange(len(y)), np.zeros((len(y), size + 1))
        score[rows, left], score[rows, right], score[:, size] = by_d, -by_d, by_eta
        return score

    d = theta[left] - theta[right]
    score = scores(y)
    # The expected square of the score over outcomes, which is the information.
    information = np.zeros((size + 1, size + 1))
    for outcome in (1.0, 0.5, 0.0):
        outcome = np.full(len(y), outcome)
        weight = n * np.exp(log_probability(d, eta, outcome))
        information += (weight[:, None] * scores(outcome)).T @ scores(outcome)
    ridge = RIDGE * n.sum() * np.diag([1.0] * size + [0.0])
    inverse = np.linalg.inv(information + ridge)
    sandwich = inverse @ ((n[:, None] * score).T @ score) @ inverse
    print(f"  Newman's iteration: {steps} steps")
    return models, theta, nu, np.diag(sandwich)[:size]


def main():
    human = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    (out / "chatbot-arena").mkdir(parents=True, exist_ok=True)

    counts = chatbot_arena(human)
    with (out / "chatbot-arena/counts.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["left", "right", "winner", "votes"])
        writer.writerows((*row, n) for row, n in counts)

    models, theta, sandwich, fisher, battles = bradley_terry(counts)
    with (out / "chatbot-arena/golden_bt_sandwich.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ["model", "rating", "lower95", "upper95", "var_sandwich", "var_fisher_centred", "battles"]
        writer.writerow(names)
        for i in sorted(range(len(models)), key=lambda i: -theta[i]):
            rating, reach = 1000 + POINTS * theta[i], POINTS * Z * math.sqrt(sandwich[i])
            variances = [POINTS**2 * sandwich[i], POINTS**2 * fisher[i]]
            numbers = [round(float(x), 6) for x in (rating, rating - reach, rating + reach, *variances)]
            writer.writerow([models[i], *numbers, int(battles[i])])

    golden = {}
    sets = {"chatbot-arena": counts}
    sets |= {name: evalica(HERE / f"evalica/{name}.csv") for name in ("simple", "food", "llmfao")}
    for name, counts in sets.items():
        print(name)
        models, theta, nu, variance = davidson(counts)
        golden[name] = {"nu": nu, "models": models, "theta": theta.tolist(), "variance": variance.tolist()}
    (out / "davidson.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
