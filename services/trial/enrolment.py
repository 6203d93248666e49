"""Enrolment: participants enter the trial."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from models.core import studies
from models.trial import participants
from models.trial.participants import Participant
from services.core.refusals import Refusal
from services.trial.faults import TrialFault

SAME_CALL = timedelta(hours=1)
AFTER: list[Callable[[Session, Participant, datetime], None]] = []
"""Functions of other areas that run on a participant who has just been enrolled, in the same transaction.

Filled where the program is put together (api/app.py): a lower area does not ask a higher one.
"""


class Registration(NamedTuple):
    """A participant as the study's app knows them. Dates are local; times HHMM, Monday first.

    timezone: None for the study's own. body: the registration as it was sent, to recognise a repeat.
    """

    user_id: str
    rl_start_date: date
    rl_end_date: date
    consent_start_date: date
    consent_end_date: date
    morning_notification_time_start: list[int]
    evening_notification_time_start: list[int]
    timezone: str | None
    body: dict[str, Any]


def enrol(session: Session, study_id: int, registration: Registration, now: datetime) -> int:
    """Add a participant and return the id. Raises Refusal.

    The same registration again within the hour is a retry and gets the first one's id, also where the study
    has been closed meanwhile.
    """
    study = studies.by_id(session, study_id)
    columns = registration._asdict()
    body = columns.pop("body")
    columns["timezone"] = registration.timezone or study.timezone
    participant_id = None if study.closed_at else participants.enrol(session, study_id, body, **columns)
    if participant_id is not None:
        for act in AFTER:
            act(session, participants.locked_by_id(session, participant_id), now)
        return participant_id
    earlier = participants.by_user(session, study_id, registration.user_id)
    if earlier is None:
        raise Refusal(TrialFault.STUDY_CLOSED)
    if earlier.registration != body or now - earlier.created_at >= SAME_CALL:
        raise Refusal(TrialFault.PARTICIPANT_EXISTS)
    return earlier.id
