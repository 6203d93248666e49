"""The fallback ladder, which chooses the posterior that decides, and the randomisation probability on its
rung.

F0 the participant's own block in the active policy, or the policy's population block for a participant who
was not in that fit; F2 the active policy's population block where the participant's own is unusable; F1 the
accepted policy with the next lower number where the active one's population block is unusable too; F3 the
prior; F4 a probability of 1/2 where the state cannot be computed. Every decision is stored with its rung and
its true probability.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.trial.allocation import probability
from algorithm.trial.protocol import Protocol

Level = Literal["F0", "F1", "F2", "F3", "F4", "none"]
_ROUNDING = 1e-9


class UnusableBlock(ValueError):
    """A posterior block must not decide; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The posterior mean (q,) and covariance (q, q) of the advantage coefficients beta, which is all that a
    decision needs."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True)
class Randomisation:
    """Mean and variance of the advantage's posterior at a state, and the probability of action 1."""

    mean: float
    variance: float
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A block that may decide, the policy it belongs to and its level on the ladder."""

    level: Level
    policy_id: int
    block: Block


@dataclass(frozen=True, slots=True)
class Choice:
    """The probability of action 1 and the rung it comes from. `policy_id` is None on F4 and where nothing is
    randomised; `mean` and `variance` of the advantage are None there and under the algorithm
    `fixed_probability`, where no posterior is used."""

    level: Level
    policy_id: int | None
    mean: float | None
    variance: float | None
    probability: float


UNKNOWN_STATE = Choice("F4", None, None, None, 0.5)
"""The choice where the state cannot be computed. Such a decision is no learning row."""

UNAVAILABLE = Choice("none", None, None, None, 0.0)
"""No choice: the safety envelope forbids a message, so nothing is randomised."""


def prior_block(protocol: Protocol) -> Block:
    """Return the prior's block for any participant: the last q elements of the prior mean, with the variances
    sd^2 + sigma_u (sigma_u is 0 under the algorithm `pooled`)."""
    q = len(protocol.design.feature_names)
    spread = 0.0 if protocol.algorithm == "pooled" else protocol.prior.sigma_u
    return Block(protocol.prior.mean[-q:], np.diag(protocol.prior.sd[-q:] ** 2 + spread))


def randomise(features: Floats, block: Block, protocol: Protocol) -> Randomisation:
    """Return the randomisation of a decision with `features` (q,) under `block`. Raises UnusableBlock where
    the block has a wrong shape, is not finite, is not symmetric within rounding, or gives a negative
    variance."""
    q, V = len(features), block.covariance
    if block.mean.shape != (q,) or V.shape != (q, q):
        raise UnusableBlock(f"shapes {block.mean.shape} and {V.shape} are not ({q},) and ({q}, {q})")
    # every decision comes through here: a sum and a comparison of bytes are cheaper than tests by element
    if not math.isfinite(np.add.reduce(block.mean) + np.add.reduce(V, axis=None)):
        raise UnusableBlock("the block is not finite")
    if V.tobytes() != V.T.tobytes() and np.abs(V - V.T).max() > _ROUNDING * np.abs(V).max():
        raise UnusableBlock("the covariance is not symmetric")
    mean = float(features @ block.mean)
    variance = float(features @ V @ features)
    if not math.isfinite(mean) or not math.isfinite(variance):
        raise UnusableBlock("the advantage's mean or variance is not finite")
    if variance < 0:
        # rounding may push a variance of 0 a little below it
        scale = float(np.abs(V).max()) * float(features @ features)
        if variance < -_ROUNDING * scale:
            raise UnusableBlock(f"the advantage's variance is negative: {variance!r}")
        variance = 0.0
    return Randomisation(mean, variance, probability(mean, variance, protocol.allocation))


def choose(features: Floats, rungs: Iterable[Rung], protocol: Protocol) -> Choice:
    """Return the choice on the first usable one of `rungs`. Where none is usable the prior decides, on F3
    with policy 0, so there always is a choice.

    `rungs` are taken one by one, so a generator reads an older policy only when it is reached. Under the
    algorithm `fixed_probability` no block is looked at: the constant goes with the first rung's level and
    policy.
    """
    for rung in chain(rungs, _prior_rung(protocol)):
        if protocol.probability is not None:
            return Choice(rung.level, rung.policy_id, None, None, protocol.probability)
        try:
            advantage = randomise(features, rung.block, protocol)
        except UnusableBlock:
            continue
        return Choice(rung.level, rung.policy_id, advantage.mean, advantage.variance, advantage.probability)
    raise UnusableBlock("the prior is not usable")


def _prior_rung(protocol: Protocol) -> Iterator[Rung]:
    # a generator, so that the prior's block is only made when it is reached
    yield Rung("F3", 0, prior_block(protocol))
