"""When a decision point is: local time, time of day, study day. Pure: the clock is an argument."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

TIME_OF_DAY = 214
UTC_OFFSET = 215


class Disagreement(NamedTuple):
    """Two sources that tell a decision point's time differently. What was `reported` was used."""

    field: str
    code: int
    issued: str
    reported: str


class Moment(NamedTuple):
    """A decision point's local time and time of day, and what speaks against them."""

    local: datetime
    evening: bool
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def utc_offset_minutes(self) -> int:
        """Minutes east of UTC."""
        return _offset(self.local)


def moment(
    decision_time: datetime | None,
    now: datetime,
    zone: str,
    decision_index: int,
    points_per_day: int,
    mornings: list[int],
    evenings: list[int],
) -> Moment:
    """Where in the participant's day a decision point lies.

    With the app's own `decision_time` its offset rules, and on that wall clock the midpoint of that weekday's
    two notification times parts morning from evening. Without it the index's parity tells, and `now` in
    `zone` gives the local time.
    """
    late = is_late(decision_index, points_per_day)
    if decision_time is None:
        return Moment(now.astimezone(ZoneInfo(zone)), late)
    day = decision_time.weekday()
    midpoint = (_minutes(mornings[day]) + _minutes(evenings[day])) / 2
    evening = decision_time.hour * 60 + decision_time.minute >= midpoint
    by_index = late if points_per_day > 1 else evening
    return Moment(decision_time, evening, tuple(_disagreements(decision_time, zone, evening, by_index)))


def study_day(decision_index: int, points_per_day: int) -> int:
    """The day of the study, from 1, to which a decision point belongs: it advances with every morning."""
    return (decision_index - 1) // points_per_day + 1


def is_late(decision_index: int, points_per_day: int) -> bool:
    """Whether a point is, by its index, in the later half of its day."""
    return 2 * ((decision_index - 1) % points_per_day) >= points_per_day


def _disagreements(
    decision_time: datetime, zone: str, evening: bool, by_index: bool
) -> Iterator[Disagreement]:
    if evening != by_index:
        yield Disagreement("time_of_day", TIME_OF_DAY, _name(by_index), _name(evening))
    expected, given = _offset(decision_time.astimezone(ZoneInfo(zone))), _offset(decision_time)
    if given != expected:
        yield Disagreement("utc_offset_minutes", UTC_OFFSET, str(expected), str(given))


def due(
    until: datetime, first: date, last: date, points_per_day: int, mornings: list[int], evenings: list[int]
) -> int:
    """How many decision points have come by the local time `until` in days `first` to `last`: those of the
    later half of a day at its evening notification time (HHMM by weekday), the others at its morning one."""
    today = min(until.date(), last)
    whole = (today - first).days
    if whole < 0:
        return 0
    if until.date() > last:
        return (whole + 1) * points_per_day
    late = sum(is_late(index, points_per_day) for index in range(1, points_per_day + 1))
    minutes, day = until.hour * 60 + until.minute, today.weekday()
    come = (points_per_day - late) * (minutes >= _minutes(mornings[day]))
    return whole * points_per_day + come + late * (minutes >= _minutes(evenings[day]))


def _name(evening: bool) -> str:
    return "evening" if evening else "morning"


def _offset(local: datetime) -> int:
    offset = local.utcoffset()
    return round(offset.total_seconds() / 60) if offset is not None else 0


def _minutes(hhmm: int) -> int:
    return hhmm // 100 * 60 + hhmm % 100
