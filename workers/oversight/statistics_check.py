"""The nightly comparison of the stored statistics with those computed anew from the learning rows."""

from datetime import datetime

import numpy as np
from sqlalchemy.orm import Session

from algorithm.trial.designs.design import Design
from models.core.audit import SERVICE, Actor
from models.core.session import transact
from models.core.studies import Study
from models.oversight.incidents import RED, Condition, Kind
from models.trial import learning_rows, sufficient_statistics
from models.trial.sufficient_statistics import Kept
from services.trial import protocols, refits
from workers.core.celery_app import log, send
from workers.oversight.watchdog import record
from workers.trial.sufficient_statistics import from_rows

PART = 500  # participants whose rows are in memory at once
REASON = "statistics are not what their rows give"


def compare(study: Study, now: datetime) -> None:
    """Compare every participant's statistics with those of the rows; where one differs, throw all away.

    1. The statistics are read, and computed again from the rows, PART participants at a time. Both come from
       the same rows by the same arithmetic, so they are equal to the last bit, or wrong.
    2. A difference is an incident, since policies may have been made of the statistics.
    3. All statistics are thrown away, and a fit is queued that makes them, and a new policy, from the rows.
    """

    def read(session: Session) -> tuple[Design, int, Kept]:
        design = protocols.in_force(session, study.id).design
        row_seq = sufficient_statistics.seen(session, study.id, design.feature_version)
        return design, row_seq, sufficient_statistics.kept(session, study.id, design.feature_version, row_seq)

    design, row_seq, kept = transact(read)  # at one moment: a fit that is running may store newer statistics
    features, number = design.feature_version, len(kept.participants)
    differs = not transact(sufficient_statistics.are_placed, study.id, features)
    for start in range(0, number, PART):
        if differs:
            break
        part = kept.take(slice(start, start + PART))
        rows = transact(learning_rows.snapshot, study.id, row_seq, part.participants.tolist(), features)
        computed = from_rows(design, rows)
        differs = not all(np.array_equal(*pair) for pair in zip(part, computed, strict=True))
    conditions = [Condition(Kind.STATISTICS_DIFFER, RED, {"participants": number})] if differs else []
    record(study.id, [Kind.STATISTICS_DIFFER], conditions, now)
    if differs:  # the incident is stored first: if this process dies here, the next night finds it again
        actor = Actor(study.id, role=SERVICE)
        send(*transact(refits.rebuild_statistics, actor, REASON, now))
        log.error("statistics thrown away", study_id=study.id, participants=number)
