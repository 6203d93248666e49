"""The premises of a storm: everything was killed as often as planned, during work, and came back, and the
back end failed its share of calls."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from tests.storm.play import SHARE

if TYPE_CHECKING:
    from tests.storm.kills import Outcome, Plan

ENOUGH = 5  # kills of each kind; with fewer, each may have met an idle process by chance
DEVIATIONS = (
    4  # standard deviations of the share of failed calls; one play in 16,000 is farther off by chance
)


def wrong(outcome: Outcome, plan: Plan) -> list[str]:
    """Return a sentence for everything that was not as planned."""
    counts = Counter(kill.kind for kill in outcome.kills)
    faults = [
        f"{kind} was killed {counts[kind]} times, not {plan.kills}"
        for kind in outcome.kinds
        if counts[kind] != plan.kills
    ]
    if not outcome.kills:
        faults.append("nothing was killed")
    faults += [
        f"{kill.kind} was killed and never came back" for kill in outcome.kills if kill.seconds is None
    ]
    failed, expected = sum(outcome.failed.values()), SHARE * outcome.back_end_calls
    if abs(failed - expected) > DEVIATIONS * math.sqrt(expected * (1 - SHARE)) or not failed:
        faults.append(f"the back end failed {failed} of {outcome.back_end_calls} calls")
    return faults


def spared(outcomes: list[Outcome], plan: Plan) -> list[str]:
    """Return a sentence where none of all those kills interrupted any work."""
    if plan.kills < ENOUGH:
        return []
    unmoved = {
        "no worker was killed in the middle of a job": not any(outcome.put_back for outcome in outcomes),
        "no call of the app had to be repeated": not all(outcome.repeated for outcome in outcomes),
    }
    return [sentence for sentence, is_so in unmoved.items() if is_so]
