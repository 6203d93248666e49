"""Refits: requests for a new policy, and the pause before each."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from models.core import audit, studies
from models.core.audit import Actor
from models.core.jobs import REFIT, QueuedJob
from models.trial import refits, sufficient_statistics
from models.trial.acts import TrialAct
from services.core import callers
from services.core.callers import Caller
from services.trial import protocols


def request(session: Session, caller: Caller, now: datetime, hyperparameters: bool) -> QueuedJob:
    """Request a refit in a caller's name; a client's waits as long as the protocol says. Raises Refusal."""
    pause = refits.NO_PAUSE
    if callers.check_standing(session, caller) == "client":
        minutes = protocols.in_force(session, caller.study_id).refit.min_interval_minutes
        pause = timedelta(minutes=minutes)
    job_id = refits.request(session, caller.study_id, now, hyperparameters, pause).job_id
    return QueuedJob(REFIT, job_id)


def rebuild_statistics(session: Session, actor: Actor, reason: str, now: datetime) -> QueuedJob:
    """Throw a study's statistics away and request a fit that makes them, and a policy, anew from the rows.

    The policy that serves may come of wrong statistics. It counts as out of date until it is replaced:
    should the fit fail, the next one tries again.
    """
    study = studies.locked(session, actor.study_id)
    before = {"policy_id": study.policy_id, "row_seq": study.row_seq}
    study.row_seq += 1  # as a removal does: a policy without this number is out of date
    participants = sufficient_statistics.forget(session, study.id)
    refit = refits.request(session, study.id, now, hyperparameters=False)
    after = {"row_seq": study.row_seq, "participants": participants, "refit_job_id": refit.job_id}
    audit.note(session, actor, TrialAct.REBUILD, reason, before=before, after=after)
    return QueuedJob(REFIT, refit.job_id)
