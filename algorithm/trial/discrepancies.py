"""What a study's back end reports of a decision, against what was issued. Equality is that of the contract:
numbers exactly, the probability within 1e-6, the time within a second."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

ACT_PROB_TOLERANCE = 1e-6
TIME_TOLERANCE = timedelta(seconds=1)
EXACT = {"action_taken": (304, "action"), "seed": (305, "seed"), "policy_id": (307, "policy_id")}
INDEX, ACT_PROB, TIME = 308, 306, 309


class Difference(NamedTuple):
    """A field of a report that is not what was issued."""

    field: str
    code: int
    issued: str
    reported: str


def instant(written: str | None, zone: str) -> datetime | None:
    """A time as written, in `zone` where it carries no offset. Raises ValueError where it is no time."""
    if written is None:
        return None
    read_as = datetime.fromisoformat(written)
    return read_as if read_as.tzinfo else read_as.replace(tzinfo=ZoneInfo(zone))


def tells_outcome(
    reported: Mapping[str, Any], issued: Mapping[str, Any], zone: str, outcome_lag: int
) -> bool:
    """Whether reported answers count for the outcome.

    Recorded with the point itself (lag 0), they always do. Else they are of an earlier action, and count
    where the survey was finished before the new one was drawn."""
    if outcome_lag == 0:
        return True
    finished = instant(reported.get("timestamp_finished_ema"), zone)
    return finished is not None and finished <= issued["act_gen_timestamp"]


def differences(reported: Mapping[str, Any], issued: Mapping[str, Any], zone: str) -> list[Difference]:
    """Where a report says something else than what was issued. `reported` has the fields of the contract,
    `issued` those of a stored decision."""
    pairs = [(name, code, issued[ours], reported[name]) for name, (code, ours) in EXACT.items()]
    pairs.append(("decision_index", INDEX, issued["decision_index"], reported["decision_index"]))
    found = [
        Difference(name, code, repr(ours), repr(theirs))
        for name, code, ours, theirs in pairs
        if ours != theirs
    ]
    if abs(reported["act_prob"] - issued["act_prob"]) > ACT_PROB_TOLERANCE:
        found.append(Difference("act_prob", ACT_PROB, repr(issued["act_prob"]), repr(reported["act_prob"])))
    written, drawn = reported["act_gen_timestamp"], issued["act_gen_timestamp"]
    read_as = instant(written, zone)
    if read_as is None or abs(read_as - drawn) > TIME_TOLERANCE:
        found.append(Difference("act_gen_timestamp", TIME, drawn.isoformat(), written))
    return found
