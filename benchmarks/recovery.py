"""The accuracy of the hyper-parameter fit and of the posterior on simulated data whose truth is known.

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
    """The result of one trial.

    noise, trace, intercept: fitted over true noise variance, trace of Sigma_u, its intercept element.
    coverage: the share of credible intervals that hold the truth with the true hyper-parameters, the fitted
    ones and the start.
    """

    noise: float
    trace: float
    intercept: float
    coverage: tuple[float, float, float]


def recover(spread: float, m: int, number: int) -> Recovered:
    """Simulate and fit trial `number` of m participants with Sigma_u = spread I."""
    generator = np.random.default_rng([7, m, number, round(1000 * spread)])
    sigma_u = spread * np.eye(24)
    rows, theta = made_up_trials.model_rows(generator, [DECISIONS] * m, sigma_u, NOISE)
    fitted = fit_hyperparameters(PROTOCOL, rows, m).hyperparameters
    coverage = []
    for hyperparameters in (Hyperparameters(sigma_u, NOISE), fitted, learner.start(PROTOCOL)):
        fit = learner.fit(PROTOCOL, rows, m, hyperparameters)
        sd = np.sqrt(np.einsum("sq,iqr,sr->is", FEATURES, fit.V, FEATURES))
        error = (fit.beta - theta[:, -8:]) @ FEATURES.T  # theta's last 8 are the advantage's coefficients
        coverage.append(float((np.abs(error) < WIDTH * sd).mean()))
    shares = fitted.sigma_u.diagonal() / spread
    return Recovered(
        noise=fitted.noise_variance / NOISE,
        trace=float(shares.mean()),
        intercept=float(shares[0]),
        coverage=(coverage[0], coverage[1], coverage[2]),
    )


def line(spread: float, m: int, results: Sequence[Recovered]) -> str:
    """Return a row of the table: means over trials with their standard errors."""
    columns = [
        [result.noise for result in results],
        [result.trace for result in results],
        [result.intercept for result in results],
        *zip(*(result.coverage for result in results), strict=True),
    ]
    cells = [
        f"{np.mean(column):.3f} ({np.std(column, ddof=1) / len(column) ** 0.5:.3f})" for column in columns
    ]
    return f"| {spread} | {m} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What is recovered of a known truth.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print("| Sigma_u / I | participants | noise variance | trace of Sigma_u | its intercept element ", end="")
    print("| coverage, true | coverage, fitted | coverage, start |")
    print("|" + "---|" * 8)
    with ProcessPoolExecutor(options.processes) as pool:
        for spread in SPREADS:
            for m in SIZES:
                results = pool.map(partial(recover, spread, m), range(options.trials))
                label = f"Sigma_u {spread}, {m} participants"
                trials = list(tqdm(results, total=options.trials, desc=label, leave=False))
                print(line(spread, m, trials), flush=True)


if __name__ == "__main__":
    main()
