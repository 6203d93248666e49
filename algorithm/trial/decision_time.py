"""The time of a decision point: local time, time of day, study day. Pure: the clock is an argument."""

from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

TIME_OF_DAY = 214  # codes of discrepancies, see docs/errors.md
UTC_OFFSET = 215


class Disagreement(NamedTuple):
    """A difference between two sources of a decision point's time. The `reported` value is the one that was
    used."""

    field: str
    code: int
    issued: str
    reported: str


class Moment(NamedTuple):
    """A decision point's local time and time of day, and the disagreements between their sources."""

    local: datetime
    evening: bool
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def utc_offset_minutes(self) -> int:
        """The offset of the local time, in minutes east of UTC."""
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
    """Return where in the participant's day a decision point lies.

    With the app's own `decision_time`, its UTC offset holds, and on that wall clock the midpoint between that
    weekday's two notification times (HHMM, by weekday from Monday) separates morning from evening. Without
    it, the decision index decides about the time of day, and `now` in `zone` gives the local time.
    """
    late = is_late(decision_index, points_per_day)
    if decision_time is None:
        return Moment(now.astimezone(ZoneInfo(zone)), late)
    day = decision_time.weekday()
    midpoint = (_minutes(mornings[day]) + _minutes(evenings[day])) / 2
    evening = decision_time.hour * 60 + decision_time.minute >= midpoint
    # with one point a day the index says nothing about the time of day
    by_index = late if points_per_day > 1 else evening
    disagreements = []
    if evening != by_index:
        disagreements.append(Disagreement("time_of_day", TIME_OF_DAY, _name(by_index), _name(evening)))
    zone_offset, app_offset = _offset(decision_time.astimezone(ZoneInfo(zone))), _offset(decision_time)
    if app_offset != zone_offset:
        disagreements.append(
            Disagreement("utc_offset_minutes", UTC_OFFSET, str(zone_offset), str(app_offset))
        )
    return Moment(decision_time, evening, tuple(disagreements))


def study_day(decision_index: int, points_per_day: int) -> int:
    """Return the day of the study, from 1, to which a decision point belongs. It advances with the first
    point of each day, by the index alone."""
    return (decision_index - 1) // points_per_day + 1


def is_late(decision_index: int, points_per_day: int) -> bool:
    """Return True if a decision point is, by its index, in the later half of its day."""
    return 2 * ((decision_index - 1) % points_per_day) >= points_per_day


def due(
    until: datetime, first: date, last: date, points_per_day: int, mornings: list[int], evenings: list[int]
) -> int:
    """Return the number of decision points that have come by the local time `until` in the days `first` to
    `last`. Points in the later half of a day come at its evening notification time (HHMM by weekday from
    Monday), the others at its morning notification time."""
    today = min(until.date(), last)
    past_days = (today - first).days
    if past_days < 0:
        return 0
    if until.date() > last:
        return (past_days + 1) * points_per_day
    late = sum(is_late(index, points_per_day) for index in range(1, points_per_day + 1))
    minutes, day = until.hour * 60 + until.minute, today.weekday()
    early_due = (points_per_day - late) * (minutes >= _minutes(mornings[day]))
    return past_days * points_per_day + early_due + late * (minutes >= _minutes(evenings[day]))


def _name(evening: bool) -> str:
    return "evening" if evening else "morning"


def _offset(local: datetime) -> int:
    offset = local.utcoffset()
    return round(offset.total_seconds() / 60) if offset is not None else 0


def _minutes(hhmm: int) -> int:
    return hhmm // 100 * 60 + hhmm % 100
