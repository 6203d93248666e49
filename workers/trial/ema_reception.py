"""The reception of a reply: its items are stored with their decisions, and its faults as discrepancies."""

import json
from collections import Counter, defaultdict
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
from services.trial import protocols
from workers.trial import ema_items
from workers.trial.ema_client import NO_DATA, BackEndFailed
from workers.trial.ema_items import BadItem, Item

TWO_ITEMS = 318
UNKNOWN_RID = 319


class Outcome(NamedTuple):
    """The outcome of storing a reply.

    lack: the failure to be noted at the window; None where its item was stored. changed: True where the
    outcome of any decision is another now.
    """

    lack: BackEndFailed | None
    changed: bool


class Sent(NamedTuple):
    """An item and the object that it was read from, whose answers are read once the decision is known."""

    item: Item
    raw: dict[str, Any]


class Reception:
    """A reply on its way into the database: the window that it is for, and the faults in it so far."""

    def __init__(self, session: Session, target: Target) -> None:
        self.session = session
        self.study_id = target.decision.study_id
        self.participant_id = target.decision.participant_id
        self.point = target.decision.decision_index
        self.zone = target.zone
        self.bad: list[BadItem] = []
        self.changed = False
        self.disagreements: list[tuple[int | None, Difference]] = []

    def read(self, reply: list[dict[str, Any]], user_id: str) -> dict[int, list[Sent]]:
        """Return the readable items of this participant by rid; note all others as faults."""
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
        """Store the items of a decision if all say the same; return the number of different contents.

        earlier: the reports on the decision that are stored already.
        """
        # the answers are read by the version that it was decided under, perhaps not the version of the window
        protocol = protocols.loaded(self.session, decision.protocol_id)
        by_content: dict[str, tuple[Item, dict[str, Any]]] = {}
        for item, raw in sent:
            try:
                content = item.content(ema_items.answers(raw, protocol.design))
            except BadItem as bad:
                self.bad.append(bad)
            else:
                by_content[json.dumps(content, sort_keys=True)] = item, content
        if len(by_content) > 1:
            reported = f"{len(by_content)} items"
            self.disagree(decision.id, Difference("item", TWO_ITEMS, "one item", reported))
        for item, content in by_content.values() if len(by_content) == 1 else ():
            self._keep(item, content, decision, protocol, earlier)
        return len(by_content)

    def _keep(
        self,
        item: Item,
        content: dict[str, Any],
        decision: Decision,
        protocol: Protocol,
        earlier: list[Answer],
    ) -> None:
        """Store an item, and what it says that differs from the decision as it was issued."""
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
        """Note an item whose decision is not one of the participant's."""
        # it names the point of the window, so that the same item in the next window has a row of its own
        reported = f"{rid} (for point {self.point})"
        self.disagree(None, Difference("rid", UNKNOWN_RID, "a decision of the participant", reported))

    def disagree(self, decision_id: int | None, difference: Difference) -> None:
        """Note a difference; decision_id: None where it belongs to no decision of the participant."""
        self.disagreements.append((decision_id, difference))

    def close(self) -> None:
        """Store all faults that were noted, each once, however often the same reply comes for the window."""
        for (code, text), count in Counter((bad.code, str(bad)) for bad in self.bad).items():
            reported = f"{text} ({count} for point {self.point})"
            self.disagree(None, Difference("item", code, "a well-formed item", reported))
        whose = {"study_id": self.study_id, "participant_id": self.participant_id}
        answers.disagree(
            self.session,
            [{**whose, "decision_id": rid, **difference._asdict()} for rid, difference in self.disagreements],
        )


def store(session: Session, target: Target, user_id: str, reply: list[dict[str, Any]]) -> Outcome:
    """Store a reply to the query for the window of a decision.

    1. The items are read; those that cannot be read, or are not of this participant, are noted as faults.
    2. Each item is stored with its decision. Two different items of one decision are a fault.
    3. The faults are stored as discrepancies.
    4. The window has its data if exactly one item came for its decision.
    """
    reception = Reception(session, target)
    by_rid = reception.read(reply, user_id)
    expected = target.decision
    if list(by_rid) == [expected.id]:  # nearly always: then nothing has to be read but earlier reports
        of_participant = {expected.id: expected}
        is_first_report = not target.reports
    else:
        of_participant = decisions.by_rids(session, expected.participant_id, list(by_rid))
        is_first_report = False
    earlier = {expected.id: []} if is_first_report else answers.of_decisions(session, of_participant)
    counts = {
        rid: reception.receive(of_participant[rid], earlier[rid], items)
        for rid, items in by_rid.items()
        if rid in of_participant
    }
    for rid in by_rid:
        if rid not in of_participant:
            reception.strange(rid)
    reception.close()
    count = counts.get(expected.id, 0)
    if count == 1:
        lack = None
    elif count:
        lack = BackEndFailed(TWO_ITEMS, "two items for the window's decision", soon=False)
    elif reception.bad:
        lack = BackEndFailed(reception.bad[0].code, str(reception.bad[0]), soon=False)
    else:
        lack = BackEndFailed(NO_DATA, "no item for the window's decision", soon=False)
    return Outcome(lack, reception.changed)
