"""The long table of a trial: one row for each decision point that was due. Pure: raw rows in, rows out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from algorithm.trial.decision_time import due, is_late, study_day
from algorithm.trial.protocol import Protocol, load
from replay.format.columns import Column

Row = dict[str, Any]
NOT_DECIDED = "not_decided"
NOT_DUE_YET = "not_due_yet"
NEXT_POINT_MISSED = "next_point_missed"
SURVEY_NOT_GIVEN = "survey_not_given"
WINDOW_NOT_INGESTED = "window_not_ingested"
GONE = "withdrawn"
NO_LATER_POINT = "no_later_point"
MISSING = (
    NOT_DECIDED,
    NOT_DUE_YET,
    NEXT_POINT_MISSED,
    SURVEY_NOT_GIVEN,
    WINDOW_NOT_INGESTED,
    GONE,
    NO_LATER_POINT,
)
WITHDRAWN, ENDED = "WITHDRAWN", "ENDED"  # phases of a participant
WITHDRAW = "withdraw"  # an act of the audit
AS_DECIDED = (
    *("available", "feature_version", "act_prob", "action", "seed", "fallback_level", "policy_id"),
    *("protocol_id", "act_gen_timestamp", "decision_time", "utc_offset_minutes"),
)
REPORTED = ("message_notification_sent_time", "message_notification_click_time")


class Context(NamedTuple):
    """The protocol in force and the instant that the export shows."""

    protocol: Protocol
    as_of: datetime


@dataclass
class Raw:
    """Raw rows of some participants, each list in the order of its table."""

    participants: list[Row]
    decisions: list[Row]
    windows: list[Row]
    answers: list[Row]
    learning_rows: list[Row]
    audit: list[Row]


def columns(document: Mapping[str, Any]) -> list[Column]:
    """Return the columns of the long table under a protocol document."""
    design = load(document).design
    states = [
        Column(f"state_{name}", "number", f"state variable {name} of {design.feature_version}")
        for name in design.state_names
    ]
    return [*_POINT, *states, *_DRAWN, *_OUTCOME]


def rows(raw: Raw, context: Context) -> Iterator[Row]:
    """Yield the rows of these participants, by participant and decision index."""
    # by version, since the latest report counts
    answers = _grouped(sorted(raw.answers, key=lambda row: int(row["version"])), "decision_id")
    learnt = {row["decision_id"]: row for row in raw.learning_rows}  # the highest row_seq comes last
    left = {row["participant_id"]: row["created_at"] for row in raw.audit if row["act"] == WITHDRAW}
    decisions, windows = _grouped(raw.decisions, "participant_id"), _grouped(raw.windows, "participant_id")
    for participant in sorted(raw.participants, key=lambda row: int(row["id"])):
        number = participant["id"]
        person = _Person(
            context,
            participant,
            {row["decision_index"]: row for row in decisions.get(number, [])},
            {row["decision_index"]: row for row in windows.get(number, [])},
            answers,
            learnt,
            left.get(number),
        )
        # an app may decide a point before it is due
        last = max((person.due(), *person.decisions, *person.windows), default=0)
        yield from (person.at(index) for index in range(1, last + 1))


def reward(decision: Row, answers: list[Row]) -> float | None:
    """Return the reward reported at a decision point: by the latest report that counts, else the one with
    which the decision was made."""
    rewards = [reported(decision, answer) for answer in answers]
    return next((value for value in reversed(rewards) if value is not None), decision["reward"])


def reported(decision: Row, answer: Row) -> float | None:
    """Return the reward that a version of the answers reports; None where it does not count.

    Later answers of the app never count. A report of the back end without a reward takes back an earlier
    report's reward, and leaves the one with which the decision was made."""
    if answer["source"] != "ema":
        return None
    value: float | None = decision["reward"] if answer["reward"] is None else answer["reward"]
    return value


def _grouped(rows: list[Row], key: str) -> dict[int, list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


class _Person(NamedTuple):
    """A participant with their decisions and windows by index, and everybody's answers and learning rows by
    rid."""

    context: Context
    row: Row
    decisions: dict[int, Row]
    windows: dict[int, Row]
    answers: dict[int, list[Row]]
    learnt: dict[int, Row]
    left_at: datetime | None

    def local_end(self) -> datetime:
        """Return the participant's wall clock at the end of what is shown: as of the export, or when they
        withdrew."""
        as_of = self.context.as_of
        until = as_of if self.left_at is None else min(self.left_at, as_of)
        return until.astimezone(ZoneInfo(self.row["timezone"]))

    def due(self) -> int:
        """Return the number of decision points that were due by then."""
        schedule = self.context.protocol.schedule
        count = due(
            self.local_end(),
            self.row["rl_start_date"],
            self.row["rl_end_date"],
            schedule.points_per_day,
            self.row["morning_notification_time_start"],
            self.row["evening_notification_time_start"],
        )
        return min(count, schedule.study_length)

    def at(self, index: int) -> Row:
        """Return the row of the long table for the decision point `index`."""
        per_day = self.context.protocol.schedule.points_per_day
        decision, window = self.decisions.get(index), self.windows.get(index, {})
        outcome, missing = self.outcome(index)
        removed = self.row.get("removed_row_seq") is not None
        learnt = self.learnt.get(decision["id"], {}) if decision and not removed else {}
        return {
            "participant_id": self.row["id"],
            "decision_index": index,
            "study_day": study_day(index, per_day),
            "evening": decision["evening"] if decision else is_late(index, per_day),
            "decided": decision is not None,
            **self.drawn(decision),
            "outcome": outcome,
            "outcome_missing": missing,
            **{f"window_{name}": window.get(name) for name in ("kind", "state", "code")},
            "learning_row": bool(learnt),
            "row_seq": learnt.get("row_seq"),
            "learnt_outcome": learnt.get("outcome"),
        }

    def drawn(self, decision: Row | None) -> Row:
        """Return the columns of a row that describe its decision, null throughout where there is none."""
        design = self.context.protocol.design
        columns = decision or {}
        answers = self.answers.get(columns.get("id", 0), [])
        items = [answer["item"] for answer in answers if answer["source"] == "ema"]
        item = items[-1] if items else {}
        # the state variables of another version of the features have another meaning
        same_features = columns.get("feature_version") == design.feature_version
        state = (columns.get("state") if same_features else None) or [None] * len(design.state_names)
        texts = {name: item.get(name) for name in REPORTED}
        return {
            **{name: columns.get(name) for name in AS_DECIDED},
            "rid": columns.get("id"),
            "unavailable_rule": columns.get("unavailable_rule"),
            **{f"state_{name}": value for name, value in zip(design.state_names, state, strict=True)},
            **{name: None if value in (None, "") else str(value) for name, value in texts.items()},
            "reward": reward(decision, answers) if decision else None,
        }

    def outcome(self, index: int) -> tuple[float | None, str | None]:
        """Return the proximal outcome of the action at `index`, or None and the reason why it is missing."""
        if index not in self.decisions:
            return None, NOT_DECIDED
        at = index + self.context.protocol.schedule.outcome_lag
        reporting = self.decisions.get(at)
        if reporting is None:
            return None, self.why_undecided(at)
        value = reward(reporting, self.answers.get(reporting["id"], []))
        if value is not None:
            return value, None
        # with an outcome lag of 0 the point's own window brings the outcome
        awaited = at == index and self.windows.get(at, {}).get("state") != "ingested"
        return None, WINDOW_NOT_INGESTED if awaited else SURVEY_NOT_GIVEN

    def why_undecided(self, at: int) -> str:
        """Return the reason why nothing was decided at the point `at`, where an outcome would have been
        reported."""
        if at > self.context.protocol.schedule.study_length:
            return NO_LATER_POINT
        if at in self.windows or (at <= self.due() and self.left_at is None):
            return NEXT_POINT_MISSED
        if self.row["phase"] == WITHDRAWN:
            return GONE
        over = self.row["phase"] == ENDED or self.local_end().date() > self.row["rl_end_date"]
        return NO_LATER_POINT if over else NOT_DUE_YET


_POINT = (
    Column("participant_id", "integer", "opaque number of the participant", range=">= 1", nullable=False),
    Column("decision_index", "integer", "number of the decision point", range=">= 1", nullable=False),
    Column("study_day", "integer", "day of the study that the point belongs to", "days", ">= 1", False),
    Column("evening", "boolean", "time of day, as decided with, else by the index", nullable=False),
    Column("decision_time", "instant", "when the point was, as the app told", "UTC"),
    Column("utc_offset_minutes", "integer", "of the participant's wall clock then", "minutes east of UTC"),
    Column("decided", "boolean", "whether there is a decision", nullable=False),
    Column("available", "boolean", "whether randomisation was allowed"),
    Column("unavailable_rule", "text", "the rule that forbade it"),
)
_DRAWN = (
    Column("feature_version", "text", "changes when the meaning of a state variable changes"),
    Column("act_prob", "number", "probability of action 1, after all rules", range="[0, 1]"),
    Column("action", "integer", "1 sent, 0 not", range="0, 1"),
    Column("seed", "integer", "action is 1 where seed / 2^53 < act_prob", range="[0, 2^53)"),
    Column(
        "fallback_level",
        "text",
        "the rung of the ladder that decided; none where a rule forbade a draw",
        range="F0, F1, F2, F3, F4, none",
    ),
    Column("policy_id", "integer", "the policy whose probability this is; null at F4 and none", range=">= 0"),
    Column("protocol_id", "integer", "id in `protocols`"),
    Column("rid", "integer", "id of the decision"),
    Column("act_gen_timestamp", "instant", "when the action was drawn, by the server's clock", "UTC"),
    Column("message_notification_sent_time", "text", "as the study's back end reported it, latest version"),
    Column("message_notification_click_time", "text", "the same"),
    Column("reward", "number", "what was reported at this point, after corrections", "reward units"),
)
_OUTCOME = (
    Column(
        "outcome", "number", "the proximal outcome of this row's action, after corrections", "reward units"
    ),
    Column(
        "outcome_missing",
        "text",
        "why there is no outcome; null where there is one",
        range=", ".join(MISSING),
    ),
    Column("window_kind", "text", "how the point's window ended", range="ended, end_missing, missed"),
    Column("window_state", "text", "its survey data", range="ended (awaited), ingested, failed, missed"),
    Column("window_code", "integer", "why there are none; see docs/errors.md"),
    Column("learning_row", "boolean", "whether fits learn from this row", nullable=False),
    Column("row_seq", "integer", "of the learning row that counts", range=">= 1"),
    Column("learnt_outcome", "number", "the outcome in that learning row", "reward units"),
)
