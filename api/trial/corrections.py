"""Answers of a repeated call that are not those that its decision was made with: kept beside them."""

from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from models.core import audit
from models.core.session import transact
from models.trial import answers, participants
from services.core.actor import Caller

WHY = "other answers for a decision point that has its decision"


class Correction(NamedTuple):
    """The answers `item` for the decision `rid`."""

    participant_id: int
    rid: int
    item: dict[str, Any]


def keep(caller: Caller, correction: Correction) -> None:
    """Store a correction once, in a transaction of its own.

    Many may come at once, and all of a study meet at the end of its audit: at READ COMMITTED each waits for
    its turn and then sees what is committed, where otherwise all but one would have to begin anew.
    """
    transact(partial(_keep, caller=caller, correction=correction), isolation="READ COMMITTED")


def _keep(session: Session, caller: Caller, correction: Correction) -> None:
    """Corrections and ingests of a participant take turns at its row, or each could wait for what the other
    has."""
    participant_id, rid, item = correction
    participants.locked_by_id(session, participant_id)
    earlier = answers.of_decisions(session, [rid])[rid]
    if answers.add(session, caller.study_id, rid, earlier, source="actions", item=item, reward=None):
        told = {"rid": rid, "source": "actions"}
        audit.note(session, caller.study_id, caller.client_id, audit.CORRECT, WHY, participant_id, after=told)
