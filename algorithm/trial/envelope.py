"""The safety envelope: when a decision point must not be randomised. Pure: history and clock are arguments.

The rules are asked before the randomisation, in the order of `RULES`; the first that forbids is the one that
a decision is stored with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

APP, QUIET, COOL_DOWN, DAILY, WEEKLY = "app", "quiet_hours", "cool_down", "daily_cap", "weekly_cap"
RULES = (APP, QUIET, COOL_DOWN, DAILY, WEEKLY)
WEEK = timedelta(days=7)
LOOK_BACK_DAYS = 8
"""Messages older than this, by the server's clock, count for no rule."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A protocol's limits, None where it has none.

    quiet_hours: (from, to), HHMM on the participant's wall clock, over midnight where `from` is later.
    cool_down_hours: least hours between two messages. daily_cap: most messages on a local date.
    weekly_cap: most messages in any 168 hours.
    """

    quiet_hours: tuple[int, int] | None = None
    cool_down_hours: float | None = None
    daily_cap: int | None = None
    weekly_cap: int | None = None

    @property
    def looks_back_days(self) -> int:
        """How many days of sent messages the rules look at; 0 where they look at none."""
        of_history = (self.cool_down_hours, self.daily_cap, self.weekly_cap)
        return LOOK_BACK_DAYS if any(limit is not None for limit in of_history) else 0


class Sent(NamedTuple):
    """A message: when it was drawn, by the server's clock, and the local date of its decision point."""

    at: datetime
    day: date


def local_time(instant: datetime, utc_offset_minutes: int) -> datetime:
    """An instant on the wall clock of a decision point."""
    return instant.astimezone(timezone(timedelta(minutes=utc_offset_minutes)))


def envelope_of(section: Mapping[str, Any]) -> Envelope:
    """The limits that a protocol document's section `envelope` sets."""
    quiet = section["quiet_hours"]
    return Envelope(
        None if quiet is None else (quiet["from"], quiet["to"]),
        section["cool_down_hours"],
        section["daily_cap"],
        section["weekly_cap"],
    )


def forbids(
    envelope: Envelope, available: bool, now: datetime, local: datetime, sent: Iterable[Sent]
) -> str | None:
    """The first rule that forbids a message, or None.

    available: what the app says. now: the server's clock. local: the decision point on the participant's wall
    clock. sent: messages before this point, at least those of the last `LOOK_BACK_DAYS`, in any order.
    """
    if not available:
        return APP
    if envelope.quiet_hours is not None and is_quiet(envelope.quiet_hours, local):
        return QUIET
    recent = [one for one in sent if now - one.at < timedelta(days=LOOK_BACK_DAYS)]
    if _is_cooling(envelope, now, recent):
        return COOL_DOWN
    if _is_full(envelope.daily_cap, sum(one.day == local.date() for one in recent)):
        return DAILY
    return WEEKLY if _is_full(envelope.weekly_cap, sum(now - one.at < WEEK for one in recent)) else None


def is_quiet(hours: tuple[int, int], local: datetime) -> bool:
    """Whether a wall clock shows a time from the first of two HHMM times on and before the second."""
    begin, end = hours
    time = local.hour * 100 + local.minute
    return begin <= time < end if begin < end else time >= begin or time < end


def _is_cooling(envelope: Envelope, now: datetime, recent: list[Sent]) -> bool:
    if envelope.cool_down_hours is None:
        return False
    pause = timedelta(hours=envelope.cool_down_hours)
    return any(now - one.at < pause for one in recent)


def _is_full(cap: int | None, count: int) -> bool:
    return cap is not None and count >= cap


def quiet_minutes(hours: tuple[int, int] | None) -> frozenset[int]:
    """The minutes of a day that are quiet."""
    if hours is None:
        return frozenset()
    begin, end = (time // 100 * 60 + time % 100 for time in hours)
    span = (end - begin) % 1440
    return frozenset((begin + minute) % 1440 for minute in range(span))
