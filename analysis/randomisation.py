"""A test of the randomisation against its logs. Given everything before it, action A of a decision with
probability p has mean p and variance p (1 - p). So over any set of decisions that is chosen without knowing
their actions,

    z = sum (A - p) / sqrt(sum p (1 - p))

is standard normal in large samples (a martingale), however p came about and whoever the participants are.
Over k disjoint sets the sum of z^2 is chi-squared with k degrees of freedom. For a covariate x that was known
before the decision, with x centred,

    z = sum x (A - p) / (p (1 - p)) / sqrt(sum x^2 / (p (1 - p)))

tests whether x is balanced between messages sent and not sent once both are weighted by the inverse of
their probabilities."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from algorithm.core.arrays import Floats


@dataclass(frozen=True, slots=True)
class Count:
    """Messages sent and expected over `rows` decisions, and the difference in standard deviations."""

    name: str
    rows: int
    sent: int
    expected: float
    z: float


@dataclass(frozen=True, slots=True)
class Balance:
    """Weighted means of a covariate where a message was sent and where not, their difference in standard
    deviations of the covariate, and its z."""

    name: str
    sent: float
    not_sent: float
    standardised: float
    z: float


def count(name: str, action: Floats, probability: Floats) -> Count:
    """Count observed against expected messages; `action` and `probability` (n,), n at least 1. Where every
    probability is 0 or 1, z is 0 if nothing differs and infinite if something does."""
    excess = float((action - probability).sum())
    spread = float(np.sqrt((probability * (1 - probability)).sum()))
    z = excess / spread if spread > 0 else float(np.sign(excess)) * np.inf if excess else 0.0
    return Count(name, len(action), int(action.sum()), float(probability.sum()), z)


def counts(labels: list[str], action: Floats, probability: Floats) -> list[Count]:
    """Return a Count for each distinct label, in the order in which they first appear."""
    named = np.array(labels)
    return [
        count(label, action[named == label], probability[named == label]) for label in dict.fromkeys(labels)
    ]


def together(disjoint: list[Count]) -> float:
    """Return the joint p-value of counts over disjoint sets of decisions."""
    return float(stats.chi2.sf(sum(count.z**2 for count in disjoint), len(disjoint)))


def balance(name: str, covariate: Floats, action: Floats, probability: Floats) -> Balance:
    """Return the balance of `covariate` (n,); every probability must be within (0, 1). The difference and z
    are 0 for a covariate that does not vary."""
    x = covariate - covariate.mean()
    spread = float(x.std())
    sent, not_sent = action / probability, (1 - action) / (1 - probability)
    means = [float((w * covariate).sum() / w.sum()) if w.sum() else float("nan") for w in (sent, not_sent)]
    if spread == 0:
        return Balance(name, means[0], means[1], 0.0, 0.0)
    variance = probability * (1 - probability)
    z = float((x * (action - probability) / variance).sum() / np.sqrt((x**2 / variance).sum()))
    return Balance(name, means[0], means[1], (means[0] - means[1]) / spread, z)


def two_sided(z: float) -> float:
    """Return the two-sided p-value of a z."""
    return float(2 * stats.norm.sf(abs(z)))
