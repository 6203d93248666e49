"""The value of another policy, from the decisions of this one.

The value is the mean proximal outcome had action 1 been drawn with probability e instead of p, at the states
that the trial met. It leaves out the other policy's effect on later states. With w = e/p where a message was
sent and (1 - e)/(1 - p) where not, and N rows,

    IPS    sum w Y / N
    SNIPS  sum w Y / sum w
    DR     sum [ e Q1 + (1 - e) Q0 + w (Y - Q_A) ] / N

Q_a is a ridge regression of the outcome on the covariates and their products with the action, fitted on
other participants than those it predicts (five folds). DR is right because p is known, whatever Q is.

Each is a ratio of sums over participants, sum S_i / sum n_i; its variance is m/(m-1) sum (S_i - V n_i)^2 /
(sum n_i)^2, participants being independent, and intervals are t with m - 1 degrees of freedom.

Sources: Horvitz and Thompson (1952); Swaminathan and Joachims (NeurIPS 2015); Dudik, Langford, Li (ICML
2011). The effective sample size is (sum w)^2 / sum w^2."""

from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Floats, Ints
from analysis.wcls import Estimate, estimate

FOLDS = 5
RIDGE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A policy's value by each estimator, its gain over the trial's own policy by the doubly robust one, and
    the amount of data behind the estimates."""

    ips: Estimate
    snips: Estimate
    doubly_robust: Estimate
    gain: Estimate
    effective_rows: float
    largest_weight: float
    rows: int
    participants: int


def value(
    outcome: Floats,
    action: Floats,
    probability: Floats,
    other: Floats,
    participant: Ints,
    covariates: Floats,
    level: float = 0.95,
) -> Value:
    """Return the value of a policy that sends with probability `other` (n,) where `probability` (n,) was
    used. `covariates` (n, k), without an intercept, are for the outcome model.

    Raises ValueError unless there are two participants and every probability is within (0, 1)."""
    codes = np.unique(participant, return_inverse=True)[1]
    if not len(codes) or codes.max() < 1:
        raise ValueError("an interval needs at least two participants")
    if probability.min() <= 0 or probability.max() >= 1:
        raise ValueError("every logged probability must be within 0 and 1")
    w = np.where(action == 1, other / probability, (1 - other) / (1 - probability))
    Q0, Q1 = predictions(outcome, action, codes, covariates)
    robust = other * Q1 + (1 - other) * Q0 + w * (outcome - np.where(action == 1, Q1, Q0))
    ones = np.ones_like(w)
    return Value(
        _ratio(w * outcome, ones, codes, level),
        _ratio(w * outcome, w, codes, level),
        _ratio(robust, ones, codes, level),
        _ratio(robust - outcome, ones, codes, level),
        float(w.sum() ** 2 / (w**2).sum()),
        float(w.max()),
        len(w),
        int(codes.max()) + 1,
    )


def _ratio(top: Floats, bottom: Floats, codes: Ints, level: float) -> Estimate:
    """Return sum(top) / sum(bottom) with its interval over participants."""
    total, m = bottom.sum(), int(codes.max()) + 1
    ratio = top.sum() / total
    influence = np.bincount(codes, weights=top - ratio * bottom, minlength=m) / total
    error = np.sqrt((influence**2).sum() * m / (m - 1))
    return estimate(float(ratio), float(error), m - 1, level)


def predictions(outcome: Floats, action: Floats, codes: Ints, covariates: Floats) -> tuple[Floats, Floats]:
    """Return the predicted outcomes (n,) without and with a message, each from the other folds'
    participants."""
    spread = covariates.std(axis=0)
    x = (covariates - covariates.mean(axis=0)) / np.where(spread > 0, spread, 1)
    x = np.hstack([np.ones((len(x), 1)), x])
    without, with_ = np.hstack([x, 0 * x]), np.hstack([x, x])
    design = np.where((action == 1)[:, None], with_, without)
    Q0, Q1 = np.zeros(len(x)), np.zeros(len(x))
    # whole participants are left out, since the rows of one participant depend on each other
    fold = codes % min(FOLDS, int(codes.max()) + 1)
    for number in range(int(fold.max()) + 1):
        inside, outside = fold == number, fold != number
        rows, y = design[outside], outcome[outside]
        theta = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ y)
        Q0[inside], Q1[inside] = without[inside] @ theta, with_[inside] @ theta
    return Q0, Q1
