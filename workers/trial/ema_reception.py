"""Storing what a back end sent: each item with its decision, everything that fits none as a discrepancy."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from algorithm.trial.discrepancies import Difference
from algorithm.trial.protocol import Protocol
from models.core import audit
from models.core.audit import SERVICE, Actor
from models.trial import answers, decisions, participants
from models.trial.acts import TrialAct
from models.trial.answers import Answer
from models.trial.decisions import Decision
from models.trial.windows import Target
from workers.trial import ema_items
from workers.trial.ema_client import NO_DATA, BackEndFailed
from workers.trial.ema_items import BadItem, Item

TWO_ITEMS = 318
UNKNOWN_RID = 319


class Outcome(NamedTuple):
    """What came of a reply: what the window lacks (None: nothing), and whether any outcome is another now."""

    lack: BackEndFailed | None
    changed: bool


class Sent(NamedTuple):
    """An item, and all that was sent with it: the answers are read once its decision is known."""

    item: Item
    raw: dict[str, Any]


class Reception:
    """One reply on its way into the database: where it goes and what is wrong with it."""

    def __init__(self, session: Session, target: Target, protocols: Callable[[int], Protocol]) -> None:
        self.session = session
        self.study_id = target.decision.study_id
        self.participant_id = target.decision.participant_id
        self.point = target.decision.decision_index
        self.zone = target.zone
        self.protocols = protocols
        self.bad: list[BadItem] = []
        self.changed = False
        self.disagreements: list[tuple[int | None, Difference]] = []

    def read(self, reply: list[dict[str, Any]], user_id: str) -> dict[int, list[Sent]]:
        """The readable items of this participant by rid."""
        by_rid: dict[int, list[Sent]] = defaultdict(list)
        for raw in reply:
            try:
                item = ema_items.read(raw)
            except BadItem as bad:
                self.bad.append(bad)
                continue
            if item.user_id == user_id:
                by_rid[item.rid].append(Sent(item, raw))
            else:
                self.strange(item.rid)
        return by_rid

    def receive(self, decision: Decision, earlier: list[Answer], sent: list[Sent]) -> int:
        """Store what was sent of a decision where all of it says the same; how much of it does not.

        The answers are those of the version that it was decided under, which may not be that of the window.
        """
        protocol = self.protocols(decision.protocol_id)
        found: dict[str, tuple[Item, dict[str, Any]]] = {}
        for item, raw in sent:
            try:
                content = item.content(ema_items.answers(raw, protocol.design))
            except BadItem as bad:
                self.bad.append(bad)
            else:
                found[json.dumps(content, sort_keys=True)] = item, content
        if len(found) > 1:
            self.disagree(decision.id, Difference("item", TWO_ITEMS, "one item", f"{len(found)} items"))
        for item, content in found.values() if len(found) == 1 else ():
            self._keep(item, content, decision, protocol, earlier)
        return len(found)

    def _keep(
        self,
        item: Item,
        content: dict[str, Any],
        decision: Decision,
        protocol: Protocol,
        earlier: list[Answer],
    ) -> None:
        """Store an item and whatever it says that differs from what was issued."""
        for difference in ema_items.differences(item, decision, self.zone):
            self.disagree(decision.id, difference)
        reward = None
        if ema_items.tells_outcome(item, decision, self.zone, protocol.schedule.outcome_lag):
            reward = protocol.design.reward(content, protocol.state)
        stored = answers.add(self.session, self.study_id, decision.id, earlier, "ema", content, reward)
        before, after = answers.outcome(decision, earlier), answers.reported(decision, reward)
        if stored and after not in {None, before}:
            self.changed = True
            participants.corrected(self.session, self.participant_id)
            if before is not None:
                self._note_correction(decision, before, after)

    def _note_correction(self, decision: Decision, before: float, after: float | None) -> None:
        audit.note(
            self.session,
            Actor(self.study_id, role=SERVICE),
            TrialAct.CORRECT,
            "the study's back end reports another outcome",
            participant_id=self.participant_id,
            before={"rid": decision.id, "outcome": before},
            after={"rid": decision.id, "outcome": after, "source": "ema"},
        )

    def strange(self, rid: int) -> None:
        """An item of a decision that is not the participant's."""
        reported = f"{rid} (for point {self.point})"
        self.disagree(None, Difference("rid", UNKNOWN_RID, "a decision of the participant", reported))

    def disagree(self, decision_id: int | None, difference: Difference) -> None:
        """What fits no decision names the point that was asked for: the next one has a row of its own."""
        self.disagreements.append((decision_id, difference))

    def close(self) -> None:
        """Record all that was wrong, each once, however often the same reply comes for the same window."""
        for (code, text), count in Counter((bad.code, str(bad)) for bad in self.bad).items():
            reported = f"{text} ({count} for point {self.point})"
            self.disagree(None, Difference("item", code, "a well-formed item", reported))
        whose = {"study_id": self.study_id, "participant_id": self.participant_id}
        answers.disagree(
            self.session,
            [{**whose, "decision_id": rid, **difference._asdict()} for rid, difference in self.disagreements],
        )


def items_of(
    session: Session,
    target: Target,
    protocols: Callable[[int], Protocol],
    user_id: str,
    reply: list[dict[str, Any]],
) -> Outcome:
    """Store a reply to the query for the window of a decision.

    protocols: a version by its id."""
    reception = Reception(session, target, protocols)
    by_rid = reception.read(reply, user_id)
    known, earlier = _known(session, target, list(by_rid))
    counts = {rid: reception.receive(known[rid], earlier[rid], by_rid[rid]) for rid in by_rid if rid in known}
    for rid in by_rid:
        if rid not in known:
            reception.strange(rid)
    reception.close()
    return Outcome(_lack(counts.get(target.decision.id, 0), reception.bad), reception.changed)


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


def _lack(count: int, bad: list[BadItem]) -> BackEndFailed | None:
    """What the window lacks that `count` different items came for."""
    if count == 1:
        return None
    if count:
        return BackEndFailed(TWO_ITEMS, "two items for the window's decision", soon=False)
    if bad:
        return BackEndFailed(bad[0].code, str(bad[0]), soon=False)
    return BackEndFailed(NO_DATA, "no item for the window's decision", soon=False)
