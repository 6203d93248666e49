"""Storing what a back end sent: each item with its decision, everything that fits none as a discrepancy."""

from collections import defaultdict
from typing import Any

from sqlalchemy.orm import Session

from algorithm.protocol import Protocol
from algorithm.reports import Difference
from models import answers, audit, decisions, participants
from models.answers import Answer
from models.decisions import Decision
from models.windows import Target
from workers import items
from workers.backend import NO_DATA, BackEndFailed
from workers.items import BadItem, Item

TWO_ITEMS = 318
UNKNOWN_RID = 319


class Reception:
    """One reply on its way into the database: where it goes and what was wrong with it."""

    def __init__(self, session: Session, target: Target, protocol: Protocol) -> None:
        self.session = session
        self.study_id = target.decision.study_id
        self.participant_id = target.decision.participant_id
        self.zone = target.zone
        self.protocol = protocol
        self.bad: list[BadItem] = []

    def read(self, reply: list[dict[str, Any]], user_id: str) -> dict[int, list[Item]]:
        """The readable items of this participant by rid; the others become discrepancies."""
        by_rid: dict[int, list[Item]] = defaultdict(list)
        for raw in reply:
            try:
                item = items.read(raw, self.protocol.design)
            except BadItem as bad:
                self.bad.append(bad)
                self.disagree(None, Difference("item", bad.code, "a well-formed item", str(bad)))
                continue
            if item.user_id != user_id:
                self.disagree(
                    None, Difference("rid", UNKNOWN_RID, "a decision of the participant", str(item.rid))
                )
            elif item not in by_rid[item.rid]:
                by_rid[item.rid].append(item)
        return by_rid

    def keep(self, item: Item, decision: Decision, earlier: list[Answer]) -> None:
        """Store an item and whatever it says that differs from what was issued."""
        for difference in items.differences(item, decision, self.zone):
            self.disagree(decision.id, difference)
        reward = None
        if items.tells_outcome(item, decision, self.zone, self.protocol.schedule.outcome_lag):
            reward = self.protocol.design.reward(item.answers, self.protocol.state)
        stored = answers.add(self.session, self.study_id, decision.id, earlier, "ema", item.content(), reward)
        before = answers.outcome(decision, earlier)
        if stored and reward not in {None, before}:
            participants.corrected(self.session, self.participant_id)
            if before is not None:
                self._note_correction(decision, before, reward)

    def _note_correction(self, decision: Decision, before: float, reward: float | None) -> None:
        audit.note(
            self.session,
            self.study_id,
            None,
            audit.CORRECT,
            "the study's back end reports another outcome",
            self.participant_id,
            {"rid": decision.id, "outcome": before},
            {"rid": decision.id, "outcome": reward, "source": "ema"},
            audit.SERVICE,
        )

    def disagree(self, decision_id: int | None, difference: Difference) -> None:
        """Record a difference, once."""
        answers.disagree(
            self.session,
            study_id=self.study_id,
            participant_id=self.participant_id,
            decision_id=decision_id,
            **difference._asdict(),
        )


def items_of(
    session: Session, target: Target, protocol: Protocol, user_id: str, reply: list[dict[str, Any]]
) -> BackEndFailed | None:
    """Store a reply to the query for the window of a decision; what the window lacks, or None."""
    reception, asked = Reception(session, target, protocol), target.decision
    by_rid = reception.read(reply, user_id)
    known, earlier = _known(session, target, list(by_rid))
    features = protocol.design.feature_version
    for rid, found in by_rid.items():
        if rid not in known:
            reception.disagree(
                None, Difference("rid", UNKNOWN_RID, "a decision of the participant", str(rid))
            )
        elif len(found) > 1:
            reception.disagree(rid, Difference("item", TWO_ITEMS, "one item", f"{len(found)} items"))
        elif known[rid].feature_version == features:  # the answers of others are other answers
            reception.keep(found[0], known[rid], earlier[rid])
    return _lack(by_rid.get(asked.id, []), reception.bad)


def _known(
    session: Session, target: Target, rids: list[int]
) -> tuple[dict[int, Decision], dict[int, list[Answer]]]:
    """The participant's decisions among `rids`, and what is reported of them already."""
    asked = target.decision
    alone = rids == [asked.id]  # as nearly always
    known = {asked.id: asked} if alone else decisions.by_rids(session, asked.participant_id, rids)
    if alone and not target.reports:
        return known, {asked.id: []}
    return known, answers.of_decisions(session, known)


def _lack(found: list[Item], bad: list[BadItem]) -> BackEndFailed | None:
    if len(found) == 1:
        return None
    if found:
        return BackEndFailed(TWO_ITEMS, "two items for the window's decision", soon=False)
    if bad:
        return BackEndFailed(bad[0].code, str(bad[0]), soon=False)
    return BackEndFailed(NO_DATA, "no item for the window's decision", soon=False)
