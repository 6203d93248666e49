"""The learner in simulated trials: its gain over the pooled learner and over even odds.

    python -m benchmarks.testbed --trials 100 --out docs

Each trial draws 120 synthetic participants and is run three times, with the same people,
circumstances and luck: with the mixed-effects learner, with the pooled one, and with a probability of
1/2. Two decisions a day for thirty days, hyper-parameters at their start, a refit after each day, no cost
of a message. Prints a table, and with --out writes it and a plot."""

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from tqdm import tqdm

from algorithm.core.arrays import Floats, Ints
from algorithm.trial import learner, testbed
from algorithm.trial.allocation import probabilities
from algorithm.trial.learning_rows import Rows
from algorithm.trial.protocol import Protocol, load

PARTICIPANTS = 120
DECISIONS = 60
SHARES = (0.0, 0.5, 1.0)
ALGORITHMS = ("rebandit", "pooled", "fixed_probability")
FIRST_STATE = (0.0, 0.0, 1.0)


class Cell(NamedTuple):
    """One kind of trial: the effect's name and the share of participants who habituate."""

    effect: str
    habituating: float


class Gain(NamedTuple):
    """A difference in total reward per participant, and its standard error over trials."""

    mean: float
    error: float


CELLS = tuple(Cell(effect, share) for effect, share in product(testbed.EFFECTS, SHARES))


def protocol(algorithm: str) -> Protocol:
    """Return the MiWaves protocol with the steeper curve of the reference simulations."""
    document = {"protocol": "miwaves", "algorithm": algorithm, "hyperparameters": {"rule": "fixed"}}
    return load({**document, "allocation": {"B": 20 / 0.95}})


def trial(cell: Cell, number: int) -> Floats:
    """Return the mean total reward per participant, (3,), under each of ALGORITHMS with the same luck."""
    generator = np.random.default_rng([20240817, number])
    cohort = testbed.draw_cohort(generator, PARTICIPANTS, cell.effect, cell.habituating)
    course = testbed.draw_course(generator, cohort, DECISIONS)
    luck = generator.random((PARTICIPANTS, DECISIONS))
    return np.array([play(protocol(name), cohort, course, luck).sum(axis=1).mean() for name in ALGORITHMS])


def play(protocol: Protocol, cohort: testbed.Cohort, course: testbed.Course, luck: Floats) -> Ints:
    """Simulate a trial and return its rewards (m, T); `luck` (m, T) are the numbers that draw the actions."""
    m, T = luck.shape
    states, probability = np.zeros((m, T, 3)), np.zeros((m, T))
    actions, rewards = np.zeros((m, T), dtype=np.int64), np.zeros((m, T), dtype=np.int64)
    policy = learner.prior_policy(protocol)
    states[:, 0] = FIRST_STATE
    for t in range(T):
        if t > 0:
            engaged = rewards[:, max(t - 3, 0) : t].mean(axis=1) >= 2
            # the amount of cannabis is reported only in a finished survey, whose reward is 2 or 3
            abstinent = (rewards[:, t - 1] >= 2) & (course.amount[:, t - 1] == 0)
            states[:, t] = np.stack([engaged, np.full(m, t % 2 == 1), abstinent], axis=1)
        probability[:, t] = _probability(protocol, policy, states[:, t])
        actions[:, t] = luck[:, t] < probability[:, t]
        rewards[:, t] = testbed.rewards(cohort, course, t, actions[:, :t], actions[:, t])
        if t % 2 == 1 and protocol.probability is None:
            past = slice(t + 1)
            rows = Rows(
                np.repeat(np.arange(m), t + 1),
                states[:, past].reshape(-1, 3),
                probability[:, past].ravel(),
                actions[:, past].ravel(),
                rewards[:, past].ravel(),
            )
            policy = learner.fit(protocol, rows, m)
    return rewards


def _probability(protocol: Protocol, policy: learner.Fit, states: Floats) -> Floats:
    """Return the probability of a message, (m,), in `states` (m, 3) under the policy."""
    if protocol.probability is not None:
        return np.full(len(states), protocol.probability)
    fitted = len(policy.beta) > 0
    beta = policy.beta if fitted else np.tile(policy.block.mean, (len(states), 1))
    V = policy.V if fitted else np.tile(policy.block.covariance, (len(states), 1, 1))
    features = protocol.design.features(states)
    variances = np.einsum("iq,iqr,ir->i", features, V, features)
    return probabilities((features * beta).sum(axis=1), variances, protocol.allocation)


def gains(totals: Floats) -> tuple[Gain, Gain]:
    """Return the learner's gains over the pooled one and over even odds, from totals (trials, 3)."""
    differences = totals[:, :1] - totals[:, 1:]
    errors = differences.std(axis=0, ddof=1) / np.sqrt(len(totals))
    pooled, even = (Gain(float(m), float(e)) for m, e in zip(differences.mean(axis=0), errors, strict=True))
    return pooled, even


def run(cells: Iterable[Cell], trials: int, processes: int) -> dict[Cell, Floats]:
    """Simulate the trials of each cell and return their totals (trials, 3), with a progress bar."""
    totals = {}
    with ProcessPoolExecutor(processes) as pool:
        for cell in cells:
            label = f"{cell.effect}, {cell.habituating:.0%} habituating"
            results = pool.map(partial(trial, cell), range(trials))
            totals[cell] = np.array(list(tqdm(results, total=trials, desc=label)))
    return totals


def table(totals_of_cells: dict[Cell, Floats]) -> str:
    """Return the totals and gains of each cell as a Markdown table."""
    columns = ("effect", "habituating", *ALGORITHMS, "mixed - pooled (se)", "mixed - even (se)")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for cell, totals in totals_of_cells.items():
        means = " | ".join(f"{mean:.2f}" for mean in totals.mean(axis=0))
        pooled, even = (f"{gain.mean:+.3f} ({gain.error:.3f})" for gain in gains(totals))
        lines.append(f"| {cell.effect} | {cell.habituating:.0%} | {means} | {pooled} | {even} |")
    return "\n".join(lines)


def plot(totals: dict[Cell, Floats], path: Path) -> None:
    """Draw both gains of each cell with two standard errors, and save the figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "testbed"  # the same picture gives the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for side, (axis, title) in enumerate(
        zip(axes, ("over the pooled learner", "over even odds"), strict=True)
    ):
        for position, share in enumerate(SHARES):
            chosen = [gains(totals[cell])[side] for cell in totals if cell.habituating == share]
            places = np.arange(len(chosen)) + 0.2 * (position - 1)
            bars = [2 * gain.error for gain in chosen]
            axis.errorbar(
                places, [gain.mean for gain in chosen], bars, fmt="o", label=f"{share:.0%} habituating"
            )
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set_xticks(range(len(testbed.EFFECTS)), list(testbed.EFFECTS))
        axis.set_title(f"Mixed effects {title}", fontsize=10)
        axis.set_ylabel("total reward per participant")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="The learner in simulated trials.")
    parser.add_argument("--trials", type=int, default=100, help="trials in each cell")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder for testbed.svg")
    options = parser.parse_args()
    totals = run(CELLS, options.trials, options.processes)
    print(table(totals))
    if options.out:
        plot(totals, options.out / "testbed.svg")


if __name__ == "__main__":
    main()
