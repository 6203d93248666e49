"""The answers that were known when: which versions of them a transaction at a given instant can have read.

A row's `created_at` is the beginning of its transaction; it became visible at the end, which nobody wrote
down. So a version that was stored shortly before an instant, or just after it by another clock, may have been
read or not.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from replay.format.long_table import Row, reported, reward
from replay.tables import Study

LONGEST_TRANSACTION = timedelta(seconds=60)
CLOCKS = timedelta(seconds=5)
"""The difference that the clocks of two machines of the service may have, with the time that a transaction
waits."""


class Known(NamedTuple):
    """The answers of a decision point and the reward that they report, as they were known at some time."""

    answers: dict[str, Any]
    reward: float | None


def possible(study: Study, decision: Row, at: datetime) -> list[Known]:
    """Return the answers and rewards of a decision point that may have been known at `at`, the likeliest
    first."""
    versions = study.answers.get(decision["id"], [])
    surely = [row for row in versions if row["created_at"] < at - LONGEST_TRANSACTION]
    perhaps = [row for row in versions if at - LONGEST_TRANSACTION <= row["created_at"] <= at + CLOCKS]
    before = [row for row in versions if row["created_at"] <= at]
    candidates = [_known(decision, before), _known(decision, surely)]
    candidates += [_known(decision, [row]) for row in perhaps if reported(decision, row) is not None]
    return [known for place, known in enumerate(candidates) if known not in candidates[:place]]


def possible_rewards(study: Study, decision: Row, at: datetime) -> list[float | None]:
    """Return the rewards of a decision point that may have been known at `at`, the likeliest first."""
    return list(dict.fromkeys(known.reward for known in possible(study, decision, at)))


def _known(decision: Row, versions: list[Row]) -> Known:
    # a decision that was made with a reward keeps its answers, whatever corrects the reward; one without
    # takes the answers of the latest report that has a reward
    reports = [row["item"] for row in versions if reported(decision, row) is not None]
    comes_later = decision["reward"] is None and reports
    return Known(reports[-1] if comes_later else decision["answers"], reward(decision, versions))
