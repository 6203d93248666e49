"""The people that are played: an enrolment, the decision points in order, and the answers at each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from rehearsal.contract import Brushing, Enrolment, Survey

NOTHING = Survey(finished_ema=False, app_use_flag=False)
"""The answers at a point before which nothing is known to have happened."""


@dataclass(frozen=True)
class Point:
    """One decision point in the participant's own time."""

    decision_index: int
    decision_time: datetime
    evening: bool


@dataclass(frozen=True)
class Person:
    """A participant of a MiWaves study.

    `answers(t, actions)` is the survey of point t, after the `actions` drawn so far, oldest first.
    """

    enrolment: Enrolment
    points: Sequence[Point]
    answers: Callable[[int, Sequence[int]], Survey]


@dataclass(frozen=True)
class Brusher:
    """A participant of an Oralytics study.

    `brushing(t, actions)` is recorded after the action of point t, which is the last one of `actions`.
    """

    enrolment: Enrolment
    points: Sequence[Point]
    brushing: Callable[[int, Sequence[int]], Brushing]


def local_time(day: date, hhmm: int, zone: ZoneInfo) -> datetime:
    """Return the instant of HHMM on `day` by the participant's clock, with that day's offset."""
    return datetime.combine(day, time(hhmm // 100, hhmm % 100), zone)
