"""The running test of a study's draws, which reads each decision once, in the order of their rids."""

from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.orm import Session

from algorithm.oversight import fidelity as draws
from models.oversight import fidelity, incidents
from models.oversight.incidents import Kind

SETTLED = timedelta(minutes=1)  # between a decision's moment and its rid, whatever the machines' clocks say
BATCH = 20_000  # decisions in one run
# shares of the capital that is bet: on all decisions, on those of all policies, and on each half of the day
OF_ALL, OF_POLICIES, OF_HALF_DAYS = 1 / 3, 1 / 3, 1 / 6


def read(session: Session, study_id: int, decided_before: datetime) -> None:
    """Let the test of a study read its new decisions, of those made before `decided_before`.

    1. The test begins anew if its incident was acknowledged since: evidence does not go away by itself.
    2. The decisions that were not read yet are read, and divided into the streams that are tested.
    3. For each stream the bets are won or lost, and draws that do not follow from their seeds are counted.
    """
    acknowledged_at = incidents.acknowledged_at(session, study_id, Kind.RANDOMISATION)
    if acknowledged_at is not None:
        fidelity.restart(session, study_id, acknowledged_at)
    new = fidelity.unread(session, study_id, decided_before - SETTLED, BATCH)
    if not len(new.rid):
        return
    # each stream is a mask of the new decisions and a share; all shares there may ever be add up to one
    streams = {fidelity.ALL: (np.ones(len(new.rid), dtype=bool), OF_ALL)}
    for name, mask in (("evening", new.evening), ("morning", ~new.evening)):
        if mask.any():
            streams[name] = mask, OF_HALF_DAYS
    for policy_id in np.unique(new.policy_id[new.policy_id >= 0]).tolist():
        streams[f"policy {policy_id}"] = new.policy_id == policy_id, OF_POLICIES * draws.weight(policy_id)
    rows = fidelity.locked(session, study_id, list(streams))
    # a value that is no draw at all is a mismatch, and nobody can have bet on it
    are_draws = draws.are_draws(new.act_prob, new.action)
    for name, (mask, share) in streams.items():
        stream = rows.get(name) or fidelity.begin(session, study_id, name, share, len(draws.TILTS))
        bet = mask & are_draws
        wealth = np.array(stream.log_wealth) + draws.log_wealth(new.act_prob[bet], new.action[bet])
        stream.log_wealth = wealth.tolist()
        stream.log_evidence = draws.log_evidence(wealth)
        stream.decisions += int(mask.sum())
        stream.mismatched += int((mask & (new.mismatched | ~are_draws)).sum())
        stream.last_rid = int(new.rid[-1])
