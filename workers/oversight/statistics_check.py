"""The nightly comparison of the stored statistics with what the learning rows give."""

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

PART = 500
REASON = "statistics are not what their rows give"


def compare(study: Study, now: datetime) -> None:
    """Make every participant's statistics anew; where one differs, all are thrown away and made again.

    They come from the same rows by the same arithmetic, so they are equal to the last bit or wrong. It is an
    incident: policies may have been made of them, so a new policy is asked for too.
    """
    kept, row_seq, design = transact(_kept, study.id)
    number, features = len(kept.participants), design.feature_version
    differs = not transact(sufficient_statistics.are_placed, study.id, features)
    parts = (kept.take(slice(start, start + PART)) for start in range(0, number, PART))
    differs = differs or not all(_is_right(study.id, part, row_seq, design) for part in parts)
    conditions = [Condition(Kind.STATISTICS_DIFFER, RED, {"participants": number})] if differs else []
    record(study.id, [Kind.STATISTICS_DIFFER], conditions, now)
    if differs:  # the incident is written down first: if this dies in between, the next night finds it again
        actor = Actor(study.id, role=SERVICE)
        send(*transact(refits.rebuild_statistics, actor, REASON, now))
        log.error("statistics thrown away", study_id=study.id, participants=number)


def _kept(session: Session, study_id: int) -> tuple[Kept, int, Design]:
    design = protocols.in_force(session, study_id).design
    row_seq = sufficient_statistics.seen(session, study_id, design.feature_version)
    kept = sufficient_statistics.kept(session, study_id, design.feature_version, row_seq)
    return kept, row_seq, design


def _is_right(study_id: int, part: Kept, row_seq: int, design: Design) -> bool:
    """Whether statistics are equal, bit by bit, to those of the same participants from their rows."""
    ids = part.participants.tolist()
    rows = transact(learning_rows.snapshot, study_id, row_seq, ids, design.feature_version)
    fresh = from_rows(design, rows)
    return all(np.array_equal(stored, right) for stored, right in zip(part, fresh, strict=True))
