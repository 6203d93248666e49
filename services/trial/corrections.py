"""Corrections: the answers of a repeated call, kept beside the different ones of its decision."""

from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from models.core import audit
from models.core.audit import Actor
from models.trial import answers, participants
from models.trial.acts import TrialAct

REASON = "other answers for a decision point that has its decision"


class Correction(NamedTuple):
    """The answers `item` for the decision `rid`."""

    participant_id: int
    rid: int
    item: dict[str, Any]


def keep(session: Session, actor: Actor, correction: Correction) -> None:
    """Store a correction once.

    It needs a transaction of its own at READ COMMITTED: many may come at once, and all of a study meet at the
    end of its audit. Each waits there for its turn and then sees the committed rows; at REPEATABLE READ all
    but one would have to begin anew.
    """
    participant_id, rid, item = correction
    # corrections and ingests take turns at the participant's row, or each could wait for what the other has
    participants.locked_by_id(session, participant_id)
    earlier = answers.of_decisions(session, [rid])[rid]
    if answers.add(session, actor.study_id, rid, earlier, source="actions", item=item, reward=None):
        after = {"rid": rid, "source": "actions"}
        audit.note(session, actor, TrialAct.CORRECT, REASON, participant_id=participant_id, after=after)
