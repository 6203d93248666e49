"""Survey answers as they came after a decision, and every report that disagrees with what was issued."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import CheckConstraint, UniqueConstraint, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, DecisionId, Document, Id, ParticipantId, StudyId
from models.core.declarations import Export, means
from models.core.session import Prepared
from models.trial.decisions import Decision


class Answer(Base):
    """One reported set of answers for a decision. Append-only: a correction is a higher version.

    source: `actions` (a later body of the same decision point) or `ema` (the study's back end).
    reward: the proximal outcome by these answers, where they may correct the one decided with; else None.
    Of the back end's reports the latest one counts: one without a reward takes back what an earlier one said.
    """

    __tablename__ = "answers"
    __rights__ = "INSERT"
    __export__ = Export.LONG_TABLE
    __table_args__ = (
        UniqueConstraint("decision_id", "version"),
        CheckConstraint("source IN ('actions', 'ema')", name="source"),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    decision_id: Mapped[DecisionId]
    version: Mapped[int] = mapped_column(
        info=means("number of the version of the decision's answers", range=">= 1")
    )
    source: Mapped[str] = mapped_column(
        info=means("a later body of the same decision point, or the study's back end")
    )
    item: Mapped[Document] = mapped_column(info=means("the answers as reported, without the person's name"))
    reward: Mapped[float | None] = mapped_column(
        info=means("the outcome by these answers, where they may correct it; else null", "reward units")
    )
    created_at: Mapped[CreatedAt]


class Discrepancy(Base):
    """A report that differs from what was issued, or that fits no decision. What was issued stands."""

    __tablename__ = "discrepancies"
    __rights__ = "INSERT"
    __export__ = Export.ROWS
    __table_args__ = (
        UniqueConstraint(
            "participant_id", "decision_id", "field", "reported", postgresql_nulls_not_distinct=True
        ),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    participant_id: Mapped[ParticipantId]
    decision_id: Mapped[DecisionId | None] = mapped_column(
        info=means("rid: id of the decision; null where the report fits none")
    )
    field: Mapped[str] = mapped_column(info=means("the field that differs"))
    code: Mapped[int] = mapped_column(info=means("its error code; see docs/errors.md"))
    issued: Mapped[str] = mapped_column(info=means("what the service had issued, as text"))
    reported: Mapped[str] = mapped_column(
        info=means("what was reported, as text; where it fits no decision, with the point that was asked for")
    )
    created_at: Mapped[CreatedAt]


ADD = Prepared(
    "add_answer",
    "INSERT INTO answers (study_id, decision_id, version, source, item, reward) "
    "VALUES ($1, $2, $3, $4, $5, $6)",
)


def of_decisions(session: Session, decision_ids: Collection[int]) -> dict[int, list[Answer]]:
    """Return all stored answers of these decisions, oldest first, by decision."""
    by_decision: dict[int, list[Answer]] = {decision_id: [] for decision_id in decision_ids}
    query = select(Answer).where(Answer.decision_id.in_(decision_ids)).order_by(Answer.version)
    for answer in session.scalars(query):
        by_decision[answer.decision_id].append(answer)
    return by_decision


def add(
    session: Session,
    study_id: int,
    decision_id: int,
    earlier: list[Answer],
    source: str,
    item: Mapping[str, Any],
    reward: float | None,
) -> bool:
    """Store `item`, at the latest with COMMIT, where it differs from the latest of its source; True where
    something is stored.

    `earlier` are the decision's answers so far. Two writers of one version meet at the unique constraint,
    and the later one runs again.
    """
    same_source = [answer for answer in earlier if answer.source == source]
    if same_source and same_source[-1].item == item:
        return False
    version = earlier[-1].version + 1 if earlier else 1
    ADD.later(session, (study_id, decision_id, version, source, json.dumps(dict(item)), reward))
    return True


def outcome(decision: Decision, answers: list[Answer]) -> float | None:
    """Return the proximal outcome reported at a decision point, by its answers, oldest first.

    A report without a reward leaves the one decided with; where there is none, it says nothing.
    """
    rewards = [reported(decision, answer.reward) for answer in answers if answer.source == "ema"]
    return next((reward for reward in reversed(rewards) if reward is not None), decision.reward)


def reported(decision: Decision, reward: float | None) -> float | None:
    """Return the outcome by one report of the back end with this `reward`; None: the report says nothing."""
    return decision.reward if reward is None else reward


def disagree(session: Session, discrepancies: Sequence[Mapping[str, Any]]) -> None:
    """Record discrepancies once, however often they are reported."""
    if discrepancies:
        session.execute(insert(Discrepancy).on_conflict_do_nothing(), discrepancies)


def discrepancy_count(session: Session, study_id: int) -> int:
    """Return how many discrepancies the study has."""
    return session.scalar(select(func.count()).where(Discrepancy.study_id == study_id)) or 0
