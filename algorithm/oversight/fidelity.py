"""A test that actions were drawn with the probabilities written down. It may be read at any time.

Under the hypothesis that action a_t is 1 with probability p_t, whatever p_t was chosen from before its draw,

    M_n(h) = prod_t exp(h a_t) / (1 - p_t + p_t exp(h)),        M_0 = 1,

is a martingale for every tilt h: each factor has mean [(1 - p) + p exp(h)] / [1 - p + p exp(h)] = 1. It is
the likelihood ratio of draws whose log odds are shifted by h, and the capital of a gambler who bets the share
(exp(h) - 1) / (1 - p_t + p_t exp(h)) on a_t - p_t (Waudby-Smith and Ramdas, JRSS B 86, 2024). An average over
tilts, and over sets of decisions that are chosen before their draws, is one too. It is never negative, so by
Ville's inequality

    P(there is an n with E_n >= 1 / alpha) <= alpha.

The guarantee needs no fixed number of decisions, no bounds on p_t and no schedule of looking: somebody who
looks after every decision and stops at the worst moment is still wrong with probability alpha at most.
"""

import math

import numpy as np
from scipy.special import logsumexp

from algorithm.core.arrays import Bools, Floats, frozen

TILTS = frozen(np.array([sign * size for size in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) for sign in (-1, 1)]))
"""The tilts h (K,) that are averaged. exp(h) is the factor by which the odds are off: from about 1.05 to 5,
in both directions."""


def are_draws(act_prob: Floats, action: Floats) -> Bools:
    """Return for each of n decisions whether it can be a draw at all, (n,): its probability is in [0, 1] and
    its action is 0 or 1."""
    return np.asarray((act_prob >= 0) & (act_prob <= 1) & ((action == 0) | (action == 1)))


def log_wealth(act_prob: Floats, action: Floats) -> Floats:
    """Return log M_n(h) for each tilt, (K,), over n decisions. Values of disjoint sets of decisions add up.

    act_prob, action: (n,), the probabilities and the actions drawn, 0 or 1. Raises ValueError for anything
    else.
    """
    if not are_draws(act_prob, action).all():
        raise ValueError("probabilities must lie in [0, 1], actions be 0 or 1")
    log_mean = np.log1p(act_prob[:, None] * np.expm1(TILTS))
    return np.asarray((action[:, None] * TILTS - log_mean).sum(axis=0))


def log_evidence(wealth: Floats) -> float:
    """Return log E of a set of decisions, E being the average over tilts of its wealth exp(`wealth`), (K,).
    It is 0 before the first decision."""
    return float(logsumexp(wealth)) - math.log(len(wealth))


def weight(policy_id: int) -> float:
    """Return the share of policy k = `policy_id` = 0, 1, 2, ... in an average over all policies there may
    ever be.

    It is 1 / ((k + 1) (k + 2)). These shares add up to 1, so the number of policies need not be known.
    """
    return 1 / ((policy_id + 1) * (policy_id + 2))


def combined(evidence: Floats, weights: Floats) -> float:
    """Return the log of the average of exp(evidence) under `weights`, both (k,). The weights may add up to 1
    at most."""
    unused_weight = 1 - float(weights.sum())
    if unused_weight < -1e-9 or not (weights >= 0).all():
        raise ValueError("weights must not be negative, nor add up to more than 1")
    # the unused weight is capital that was never bet: it keeps the value 1, whose logarithm is 0
    return float(logsumexp(np.append(evidence, 0.0), b=np.append(weights, max(unused_weight, 0.0))))
