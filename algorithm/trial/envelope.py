"""The safety envelope: rules under which a decision point must not be randomised. Pure: history and clock are
arguments.

The rules are checked before the randomisation, in the order of `RULES`. A decision is stored with the first
rule that forbids a message.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

APP, QUIET, COOL_DOWN, DAILY, WEEKLY = "app", "quiet_hours", "cool_down", "daily_cap", "weekly_cap"
RULES = (APP, QUIET, COOL_DOWN, DAILY, WEEKLY)
WEEK = timedelta(days=7)
LOOK_BACK_DAYS = 8  # a day more than any limit reaches back
"""Messages older than this, by the server's clock, count for no rule."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The limits that a protocol sets, each None where it sets none.

    quiet_hours: (from, to), HHMM on the participant's wall clock, over midnight where `from` is later.
    cool_down_hours: the fewest hours between two messages. daily_cap: the most messages on a local date.
    weekly_cap: the most messages in any 168 hours.
    """

    quiet_hours: tuple[int, int] | None = None
    cool_down_hours: float | None = None
    daily_cap: int | None = None
    weekly_cap: int | None = None

    @property
    def looks_back_days(self) -> int:
        """The number of days of sent messages that the rules look at; 0 where they look at none."""
        history_limits = (self.cool_down_hours, self.daily_cap, self.weekly_cap)
        return LOOK_BACK_DAYS if any(limit is not None for limit in history_limits) else 0


class Sent(NamedTuple):
    """A sent message: the instant of its draw by the server's clock, and its decision point's local date."""

    at: datetime
    day: date


def local_time(instant: datetime, utc_offset_minutes: int) -> datetime:
    """Return an instant as the wall clock of a decision point shows it."""
    return instant.astimezone(timezone(timedelta(minutes=utc_offset_minutes)))


def envelope_of(section: Mapping[str, Any]) -> Envelope:
    """Return the limits that the section `envelope` of a protocol document sets."""
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
    """Return the first rule that forbids a message, or None.

    available: whether the app says that it can show a message. now: the server's clock. local: the decision
    point on the participant's wall clock. sent: the messages before this point, at least those of the last
    `LOOK_BACK_DAYS`, in any order.
    """
    if not available:
        return APP
    if envelope.quiet_hours is not None and is_quiet(envelope.quiet_hours, local):
        return QUIET
    recent = [message for message in sent if now - message.at < timedelta(days=LOOK_BACK_DAYS)]
    if envelope.cool_down_hours is not None:
        pause = timedelta(hours=envelope.cool_down_hours)
        if any(now - message.at < pause for message in recent):
            return COOL_DOWN
    if _is_full(envelope.daily_cap, sum(message.day == local.date() for message in recent)):
        return DAILY
    in_a_week = sum(now - message.at < WEEK for message in recent)
    return WEEKLY if _is_full(envelope.weekly_cap, in_a_week) else None


def is_quiet(hours: tuple[int, int], local: datetime) -> bool:
    """Return True if a wall clock shows a time from the first of two HHMM times on and before the second."""
    begin, end = hours
    time = local.hour * 100 + local.minute
    return begin <= time < end if begin < end else time >= begin or time < end


def _is_full(cap: int | None, count: int) -> bool:
    return cap is not None and count >= cap


def quiet_minutes(hours: tuple[int, int] | None) -> frozenset[int]:
    """Return the minutes of a day, 0 to 1439, that are quiet."""
    if hours is None:
        return frozenset()
    begin, end = (time // 100 * 60 + time % 100 for time in hours)
    span = (end - begin) % 1440
    return frozenset((begin + minute) % 1440 for minute in range(span))
