"""Whether actions were drawn with the probabilities written down: a test that may be read at any time.

Under the hypothesis that action a_t is 1 with probability p_t, whatever p_t was chosen from before its draw,

    M_n(h) = prod_t exp(h a_t) / (1 - p_t + p_t exp(h)),        M_0 = 1,

is a martingale for every tilt h: each factor has mean [(1 - p) + p exp(h)] / [1 - p + p exp(h)] = 1. It is
the likelihood ratio of draws whose log odds are shifted by h, and the capital of a gambler who bets the share
(exp(h) - 1) / (1 - p_t + p_t exp(h)) on a_t - p_t (Waudby-Smith and Ramdas, JRSS B 86, 2024). An average over
tilts, and over sets of decisions that are chosen before their draws, is one too. It is never negative, so by
Ville's inequality

    P(there is an n with E_n >= 1 / alpha) <= alpha.

The guarantee needs no number of decisions, no bounds on p_t and no schedule of looking: who looks at every
decision and stops at the worst is still wrong with probability alpha at most.
"""

import math

import numpy as np
from scipy.special import logsumexp

from algorithm.core.arrays import Bools, Floats, frozen

TILTS = frozen(np.array([sign * size for size in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) for sign in (-1, 1)]))
"""The tilts h (K,) that are averaged: odds between a twentieth and five times off, in both directions."""


def are_draws(act_prob: Floats, action: Floats) -> Bools:
    """Which of n decisions can be draws at all, (n,): a probability in [0, 1], and 0 or 1 drawn."""
    return np.asarray((act_prob >= 0) & (act_prob <= 1) & ((action == 0) | (action == 1)))


def log_wealth(act_prob: Floats, action: Floats) -> Floats:
    """log M_n(h) of each tilt (K,) over n decisions; that of disjoint sets adds up.

    act_prob, action: (n,), probabilities and what was drawn, 0 or 1. Raises ValueError for anything else.
    """
    if not are_draws(act_prob, action).all():
        raise ValueError("probabilities must lie in [0, 1], actions be 0 or 1")
    expected = np.log1p(act_prob[:, None] * np.expm1(TILTS))
    return np.asarray((action[:, None] * TILTS - expected).sum(axis=0))


def log_evidence(wealth: Floats) -> float:
    """log E of one set of decisions: the average over tilts of its wealth (K,). 0 before the first one."""
    return float(logsumexp(wealth)) - math.log(len(wealth))


def weight(policy_id: int) -> float:
    """The share of policy `policy_id` = 0, 1, 2, ... in an average over all policies there may ever be.

    1 / ((k + 1) (k + 2)), which adds up to 1, so that the number of policies need not be known.
    """
    return 1 / ((policy_id + 1) * (policy_id + 2))


def combined(evidence: Floats, weights: Floats) -> float:
    """log of the average of exp(evidence) under `weights`, (k,) both. The weights may add up to 1 at most.

    What is missing to 1 is capital that was never bet.
    """
    rest = 1 - float(weights.sum())
    if rest < -1e-9 or not (weights >= 0).all():
        raise ValueError("weights must not be negative, nor add up to more than 1")
    return float(logsumexp(np.append(evidence, 0.0), b=np.append(weights, max(rest, 0.0))))
