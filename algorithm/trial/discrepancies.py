"""Discrepancies between what a study's back end reports of a decision and what was issued. Values are equal
as the contract has it: numbers exactly, the probability within 1e-6, the time within a second."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

ACT_PROB_TOLERANCE = 1e-6
TIME_TOLERANCE = timedelta(seconds=1)
EXACT = {"action_taken": (304, "action"), "seed": (305, "seed"), "policy_id": (307, "policy_id")}
"""Fields that must be equal exactly: name in the report -> (code of the discrepancy, name in the
decision)."""
INDEX, ACT_PROB, TIME = 308, 306, 309


class Difference(NamedTuple):
    """A field of a report that is not what was issued."""

    field: str
    code: int
    issued: str
    reported: str


def instant(written: str | None, zone: str) -> datetime | None:
    """Return the instant that an ISO time stands for, in `zone` where it carries no offset. Raises ValueError
    where it is no time."""
    if written is None:
        return None
    time = datetime.fromisoformat(written)
    return time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))


def tells_outcome(
    reported: Mapping[str, Any], issued: Mapping[str, Any], zone: str, outcome_lag: int
) -> bool:
    """Return True if reported answers count for the outcome.

    With lag 0 they are recorded with the point itself and always count. Otherwise they report the outcome of
    an earlier action, and count only where the survey was finished before the new action was drawn."""
    if outcome_lag == 0:
        return True
    finished = instant(reported.get("timestamp_finished_ema"), zone)
    return finished is not None and finished <= issued["act_gen_timestamp"]


def differences(reported: Mapping[str, Any], issued: Mapping[str, Any], zone: str) -> list[Difference]:
    """Return the fields in which a report differs from the decision that was issued. `reported` has the
    fields of the contract, `issued` those of a stored decision."""
    pairs = [(name, code, issued[column], reported[name]) for name, (code, column) in EXACT.items()]
    pairs.append(("decision_index", INDEX, issued["decision_index"], reported["decision_index"]))
    differences = [
        Difference(name, code, repr(issued_value), repr(reported_value))
        for name, code, issued_value, reported_value in pairs
        if issued_value != reported_value
    ]
    if abs(reported["act_prob"] - issued["act_prob"]) > ACT_PROB_TOLERANCE:
        differences.append(
            Difference("act_prob", ACT_PROB, repr(issued["act_prob"]), repr(reported["act_prob"]))
        )
    reported_time, drawn_at = reported["act_gen_timestamp"], issued["act_gen_timestamp"]
    reported_instant = instant(reported_time, zone)
    if reported_instant is None or abs(reported_instant - drawn_at) > TIME_TOLERANCE:
        differences.append(Difference("act_gen_timestamp", TIME, drawn_at.isoformat(), reported_time))
    return differences
