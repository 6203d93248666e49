"""What the hyper-parameter fit and the posterior recover of a known truth.

    python -m benchmarks.recovery --trials 20

Rewards follow the model. First table: fitted noise variance and the trace of Sigma_u, over the truth,
against the number of participants, 60 decisions each; the penalty shrinks the trace, the more the fewer
participants there are. Second: how often 90 % credible intervals of the advantage hold the truth, with
the true hyper-parameters, with fitted ones and with the protocol's start. Prints Markdown tables."""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from algorithm.core.arrays import Floats
from algorithm.trial import learner
from algorithm.trial.hyperparameters import fit_hyperparameters
from algorithm.trial.posterior import Hyperparameters
from tests.support import made_up_trials

PROTOCOL = made_up_trials.MIWAVES
FEATURES = PROTOCOL.design.features(PROTOCOL.design.states())
SIZES = (10, 30, 60, 120, 240, 480)
DECISIONS = 60
NOISE = 1.5
SPREADS = (0.01, 0.1)
WIDTH = norm.ppf(0.95)


@dataclass(frozen=True)
class Recovered:
    """Fitted over true: noise variance, Sigma_u's trace, Sigma_u's intercept element; and, by
    hyper-parameters (true, fitted, start), the share of credible intervals that hold the truth."""

    noise: float
    trace: float
    intercept: float
    coverage: tuple[float, float, float]


def recover(spread: float, m: int, number: int) -> Recovered:
    """One simulated trial of m participants with Sigma_u = spread I."""
    generator = np.random.default_rng([7, m, number, round(1000 * spread)])
    sigma_u = spread * np.eye(24)
    rows, theta = made_up_trials.model_rows(generator, [DECISIONS] * m, sigma_u, NOISE)
    fitted = fit_hyperparameters(PROTOCOL, rows, m).hyperparameters
    given = (Hyperparameters(sigma_u, NOISE), fitted, learner.start(PROTOCOL))
    held = [_held(learner.fit(PROTOCOL, rows, m, used), theta) for used in given]
    shares = fitted.sigma_u.diagonal() / spread
    return Recovered(
        fitted.noise_variance / NOISE, float(shares.mean()), float(shares[0]), (held[0], held[1], held[2])
    )


def _held(found: learner.Fit, theta: Floats) -> float:
    sd = np.sqrt(np.einsum("sq,iqr,sr->is", FEATURES, found.V, FEATURES))
    return float((np.abs((found.beta - theta[:, -8:]) @ FEATURES.T) < WIDTH * sd).mean())


def line(spread: float, m: int, found: Sequence[Recovered]) -> str:
    """One row of the table."""
    columns = [
        [one.noise for one in found],
        [one.trace for one in found],
        [one.intercept for one in found],
        *zip(*(one.coverage for one in found), strict=True),
    ]
    cells = [
        f"{np.mean(column):.3f} ({np.std(column, ddof=1) / len(column) ** 0.5:.3f})" for column in columns
    ]
    return f"| {spread} | {m} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What is recovered of a known truth.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    print("| Sigma_u / I | participants | noise variance | trace of Sigma_u | its intercept element ", end="")
    print("| coverage, true | coverage, fitted | coverage, start |")
    print("|" + "---|" * 8)
    with ProcessPoolExecutor(given.processes) as pool:
        for spread in SPREADS:
            for m in SIZES:
                results = pool.map(partial(recover, spread, m), range(given.trials))
                label = f"Sigma_u {spread}, {m} participants"
                found = list(tqdm(results, total=given.trials, desc=label, leave=False))
                print(line(spread, m, found), flush=True)


if __name__ == "__main__":
    main()
