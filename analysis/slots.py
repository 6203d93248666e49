"""Calendar slots for programs that want one clock for all participants.

Participants meet policies at different decision points. A slot is the k-th decision that participants made
under the n-th policy; slots are ordered by policy and then by k. So everybody in a slot had the same policy,
each participant's slots are in the order of the decisions, and policies are numbered 0, 1, 2, ... as they
came into use. Between a participant's first and last slot there may be slots without a decision of that
participant. For such programs nothing was sent there, with probability 1.

A decision that was not made by the newest policy which its participant had met (an unavailable decision, a
fallback, a decision after a return to an older policy) belongs to a slot of that newest policy, and its
probability is taken as a constant."""

from dataclasses import dataclass

import numpy as np

from algorithm.core.arrays import Bools, Floats, Ints

OWN = ("F0", "F2")
"""The levels of the fallback ladder on which the active policy decides."""


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """The slots of n decisions, sorted by participant and decision index: the `slot` (n,) of each, and
    whether the policy of that slot `decided` it, (n,). `policy` (s,) is the policy id of each of s slots,
    `number` (s,) its consecutive number."""

    slot: Ints
    decided: Bools
    policy: Ints
    number: Ints


def arrange(participant: Ints, policy_id: Floats, available: Bools, level: list[str]) -> Slots:
    """Arrange n decisions, sorted by participant and decision index, in slots. `policy_id` is NaN where no
    policy decided."""
    newest = np.zeros(len(participant), dtype=np.int64)
    count = np.zeros(len(participant), dtype=np.int64)
    lowest = int(np.nanmin(policy_id))
    for person in np.unique(participant):
        rows = participant == person
        # the lowest id never raises the maximum
        ids = np.nan_to_num(policy_id[rows], nan=lowest).astype(np.int64)
        newest[rows] = np.maximum.accumulate(ids)
        # 0, 1, 2, ... within each run of the same newest policy
        run_starts = np.searchsorted(newest[rows], newest[rows])
        count[rows] = np.arange(len(run_starts)) - run_starts
    # sorted by policy, then by count: the place among the distinct pairs is the number of the slot
    pairs, slot = np.unique(np.column_stack([newest, count]), axis=0, return_inverse=True)
    own = np.isin(level, OWN) & (policy_id == newest) & available
    numbers = np.unique(pairs[:, 0], return_inverse=True)[1]
    return Slots(slot.ravel(), own, pairs[:, 0], numbers.ravel())
