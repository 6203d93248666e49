"""Whether it was a storm: all was killed as often as planned, in the midst of work, and came back, and the
back end failed."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from tests.storm.play import SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storm.kills import Outcome, Plan

ENOUGH = 5  # kills of each kind: with fewer of them chance may have it that each met somebody idle
DEVIATIONS = 4  # standard ones, that the share of failed calls may be off: one play in 16,000 is so by chance


def wrong(outcome: Outcome, plan: Plan) -> list[str]:
    """What was not as planned, one sentence each."""
    return [*_kills(outcome, plan), *_share(outcome)]


def spared(outcomes: list[Outcome], plan: Plan) -> list[str]:
    """What is wrong where all those kills interrupted no work."""
    if plan.kills < ENOUGH:
        return []
    unmoved = {
        "no worker was killed in the middle of a job": not any(outcome.put_back for outcome in outcomes),
        "no call of the app had to be repeated": not all(outcome.repeated for outcome in outcomes),
    }
    return [sentence for sentence, is_so in unmoved.items() if is_so]


def _kills(outcome: Outcome, plan: Plan) -> Iterator[str]:
    counts = Counter(kill.kind for kill in outcome.kills)
    for kind in outcome.kinds:
        if counts[kind] != plan.kills:
            yield f"{kind} was killed {counts[kind]} times, not {plan.kills}"
    if not outcome.kills:
        yield "nothing was killed"
    gone = (kill.kind for kill in outcome.kills if kill.seconds is None)
    yield from (f"{kind} was killed and never came back" for kind in gone)


def _share(outcome: Outcome) -> Iterator[str]:
    failed, expected = sum(outcome.failed.values()), SHARE * outcome.asked
    if abs(failed - expected) > DEVIATIONS * math.sqrt(expected * (1 - SHARE)) or not failed:
        yield f"the back end failed {failed} of {outcome.asked} calls"
