"""Calendar slots for programs that want one clock for all participants.

Participants meet policies at different decision points. A slot is the k-th decision that participants made
under the n-th policy; slots are ordered by policy and then by k. So everybody in a slot had the same policy,
each participant's slots are in the order of the decisions, and policies are numbered 0, 1, 2, ... as they
came into use. Between a participant's first and last slot there are slots without a decision of that
participant; such programs may be told that nothing was sent there, with probability 1.

A decision that was not made by the newest policy which its participant had met (an unavailable one, a
fallback, one after a return to an older policy) belongs to a slot of that newest policy, and its probability
is taken as a constant."""

from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Bools, Floats, Ints

OWN = ("F0", "F2")
"""Levels of the fallback ladder at which the active policy decided."""


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Of n decisions, sorted by participant and decision index: their `slot` (n,), and whether the `policy`
    of the slot `decided` them, (n,). `policy` (s,) is the policy id of each of s slots, `number` (s,) its
    consecutive number."""

    slot: Ints
    decided: Bools
    policy: Ints
    number: Ints


def arrange(participant: Ints, policy_id: Floats, available: Bools, level: list[str]) -> Slots:
    """The slots of n decisions, sorted by participant and decision index; `policy_id` is NaN where no policy
    was asked."""
    newest = np.zeros(len(participant), dtype=np.int64)
    count = np.zeros(len(participant), dtype=np.int64)
    lowest = int(np.nanmin(policy_id))
    for person in np.unique(participant):
        rows = participant == person
        known = np.nan_to_num(policy_id[rows], nan=lowest).astype(np.int64)
        newest[rows] = np.maximum.accumulate(known)
        count[rows] = _running_count(newest[rows])
    pairs, slot = np.unique(np.column_stack([newest, count]), axis=0, return_inverse=True)
    own = np.isin(level, OWN) & (policy_id == newest) & available
    numbers = np.unique(pairs[:, 0], return_inverse=True)[1]
    return Slots(slot.ravel(), own, pairs[:, 0], numbers.ravel())


def _running_count(values: Ints) -> Ints:
    """0, 1, 2, ... within each run of equal, sorted `values`."""
    starts = np.searchsorted(values, values)
    return np.asarray(np.arange(len(values)) - starts, dtype=np.int64)
