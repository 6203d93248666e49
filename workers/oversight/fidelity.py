"""The running test of a study's draws: it reads the decisions that it has not read, in the order of their
rids."""

from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.orm import Session

from algorithm.oversight import fidelity as draws
from models.oversight import fidelity, incidents
from models.oversight.fidelity import Draws, RandomisationTest
from models.oversight.incidents import Kind

SETTLED = timedelta(minutes=1)  # between a decision's moment and its rid, whatever the machines' clocks say
BATCH = 20_000
OF_ALL, OF_POLICIES, OF_HALF_DAYS = 1 / 3, 1 / 3, 1 / 6


def read(session: Session, study_id: int, decided_before: datetime) -> None:
    """Let the test read what it has not read, up to the last decision made before `decided_before`.

    What it has found does not go away by itself: it begins anew when somebody has acknowledged it.
    """
    acknowledged_at = incidents.acknowledged_at(session, study_id, Kind.RANDOMISATION)
    if acknowledged_at is not None:
        fidelity.restart(session, study_id, acknowledged_at)
    new = fidelity.unread(session, study_id, decided_before - SETTLED, BATCH)
    if not len(new.rid):
        return
    streams = _streams(new)
    held = fidelity.locked(session, study_id, list(streams))
    for name, (mask, share) in streams.items():
        stream = held.get(name) or fidelity.begin(session, study_id, name, share, len(draws.TILTS))
        _count(stream, new, mask)


def _count(stream: RandomisationTest, new: Draws, mask: np.ndarray) -> None:
    """What is no draw at all is a mismatch, and nobody can have bet on it."""
    can_be = draws.are_draws(new.act_prob, new.action)
    bet = mask & can_be
    wealth = np.array(stream.log_wealth) + draws.log_wealth(new.act_prob[bet], new.action[bet])
    stream.log_wealth = wealth.tolist()
    stream.log_evidence = draws.log_evidence(wealth)
    stream.decisions += int(mask.sum())
    stream.mismatched += int((mask & (new.mismatched | ~can_be)).sum())
    stream.last_rid = int(new.rid[-1])


def _streams(new: Draws) -> dict[str, tuple[np.ndarray, float]]:
    """The sets of decisions that are tested, as (mask, share); all shares there may ever be add up to one."""
    found = {fidelity.ALL: (np.ones(len(new.rid), dtype=bool), OF_ALL)}
    for name, mask in (("evening", new.evening), ("morning", ~new.evening)):
        if mask.any():
            found[name] = mask, OF_HALF_DAYS
    for policy_id in np.unique(new.policy_id[new.policy_id >= 0]).tolist():
        found[f"policy {policy_id}"] = new.policy_id == policy_id, OF_POLICIES * draws.weight(policy_id)
    return found
