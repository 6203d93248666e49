"""What was known when: which versions of answers a transaction at a given instant can have seen.

A row's `created_at` is the begin of its transaction; it became visible at its end, which nobody wrote down.
So a version stored shortly before an instant, or just after it by another clock, may have been seen or not.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from replay.format.long_table import Row, reported, reward
from replay.tables import Study

LONGEST_TRANSACTION = timedelta(seconds=60)
CLOCKS = timedelta(seconds=5)
"""How far the clocks of two machines of the service may be apart, with the time that a transaction waits."""


class Known(NamedTuple):
    """The answers of a decision point and the reward that they report, as they were known at some time."""

    answers: dict[str, Any]
    reward: float | None


def possible(study: Study, decision: Row, at: datetime) -> list[Known]:
    """What may have been known at `at` of a decision point, the likeliest first.

    A decision that was made with a reward keeps its answers, whatever corrects the reward; where it had none
    they are those that told one."""
    versions = study.answers.get(decision["id"], [])
    surely = [row for row in versions if row["created_at"] < at - LONGEST_TRANSACTION]
    perhaps = [row for row in versions if at - LONGEST_TRANSACTION <= row["created_at"] <= at + CLOCKS]
    before = [row for row in versions if row["created_at"] <= at]
    found = [_known(decision, before), _known(decision, surely)]
    found += [_known(decision, [row]) for row in perhaps if reported(decision, row) is not None]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def possible_rewards(study: Study, decision: Row, at: datetime) -> list[float | None]:
    """The rewards among what may have been known."""
    return list(dict.fromkeys(known.reward for known in possible(study, decision, at)))


def _known(decision: Row, versions: list[Row]) -> Known:
    told = [row["item"] for row in versions if reported(decision, row) is not None]
    comes_later = decision["reward"] is None and told
    return Known(told[-1] if comes_later else decision["answers"], reward(decision, versions))
