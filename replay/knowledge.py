"""What was known when: which versions of answers a transaction at a given instant can have seen.

A row's `created_at` is the begin of its transaction; it became visible at its end, which nobody wrote down.
So a version stored shortly before an instant, or just after it by another clock, may have been seen or not.
"""

from datetime import datetime, timedelta

from replay.study import Study
from replay.trial import Row, reward

LONGEST_TRANSACTION = timedelta(seconds=60)
CLOCKS = timedelta(seconds=5)
"""How far the clocks of two machines of the service may be apart, with the time that a transaction waits."""


def possible_rewards(study: Study, decision: Row, at: datetime) -> list[float | None]:
    """What may have been known at `at` as the reward reported at a decision, the likeliest first."""
    versions = study.answers.get(decision["id"], [])
    surely = [row for row in versions if row["created_at"] < at - LONGEST_TRANSACTION]
    perhaps = [row for row in versions if at - LONGEST_TRANSACTION <= row["created_at"] <= at + CLOCKS]
    before = [row for row in versions if row["created_at"] <= at]
    found = [reward(decision, before), reward(decision, surely)]
    found += [row["reward"] for row in perhaps if row["reward"] is not None]
    return list(dict.fromkeys(found))
