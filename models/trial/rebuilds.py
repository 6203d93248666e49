"""Rebuilding a study's statistics: they are thrown away, and the fit that this asks for makes them anew.

Whoever finds them wrong may have found them too late: so a rebuild takes a number among the learning rows, as
a removal does, and the policy that serves, which does not contain it, counts as out of date until it is
replaced. Whatever becomes of a fit, the next one tries again.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from models.core import audit, studies
from models.trial import refits, sufficient_statistics
from models.trial.refits import Requested


def request(
    session: Session, study_id: int, now: datetime, reason: str, client_id: int | None, role: str | None
) -> Requested:
    """Have the study's statistics made anew, and a policy from them; the refit that does it."""
    study = studies.locked(session, study_id)
    before = {"policy_id": study.policy_id, "row_seq": study.row_seq}
    study.row_seq += 1
    participants = sufficient_statistics.forget(session, study_id)
    refit = refits.request(session, study_id, now, hyperparameters=False)
    after = {"row_seq": study.row_seq, "participants": participants, "refit_job_id": refit.job_id}
    audit.note(session, study_id, client_id, audit.REBUILD, reason, None, before, after, role)
    return refit
