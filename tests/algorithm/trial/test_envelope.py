"""The safety envelope against slow formulas over whole histories, days that change the clock included."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.trial.envelope import APP, RULES, Envelope, Sent, forbids, is_quiet, local_time, quiet_minutes

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Kiritimati")
CHANGES = (datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC))
"""When New York's clocks go forward and back."""

hhmm = st.builds(lambda hour, minute: 100 * hour + minute, st.integers(0, 23), st.integers(0, 59))
quiet = st.tuples(hhmm, hhmm).filter(lambda pair: pair[0] != pair[1])
envelopes = st.builds(
    Envelope,
    st.none() | quiet,
    st.none() | st.floats(0.25, 168),
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 12),
)
steps = st.lists(st.integers(1, 30 * 60), min_size=1, max_size=60)  # minutes from one point to the next


class Lived:
    """One participant's points, each decided by the code under test and again by brute force."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.sent: list[tuple[datetime, datetime]] = []  # instants, and as wall clocks showed them

    def point(self, now: datetime, zone: str, wants: bool) -> str | None:
        local = now.astimezone(ZoneInfo(zone))
        known = [Sent(at, wall.date()) for at, wall in self.sent]
        rule = forbids(self.envelope, True, now, local, known)
        assert rule == self.slow(now, local)
        if rule is None and wants:
            self.sent.append((now, local))
        return rule

    def slow(self, now: datetime, local: datetime) -> str | None:
        """Each rule from the whole history, minute by minute and second by second."""
        one = self.envelope
        holds = {
            "quiet_hours": one.quiet_hours is not None and self.by_minutes(one.quiet_hours, local.time()),
            "cool_down": one.cool_down_hours is not None
            and any((now - at).total_seconds() < 3600 * one.cool_down_hours for at, _ in self.sent),
            "daily_cap": one.daily_cap is not None
            and len([1 for _, wall in self.sent if wall.date() == local.date()]) >= one.daily_cap,
            "weekly_cap": one.weekly_cap is not None
            and len([1 for at, _ in self.sent if (now - at).total_seconds() < 7 * 86400]) >= one.weekly_cap,
        }
        return next((rule for rule in RULES if holds.get(rule)), None)

    @staticmethod
    def by_minutes(hours: tuple[int, int], wall: time) -> bool:
        """Walk a clock from the first time to the second."""
        begin, end = (100 * (one // 100) + one % 100 for one in hours)
        hour, minute = divmod(begin, 100)
        while 100 * hour + minute != end:
            if (wall.hour, wall.minute) == (hour, minute):
                return True
            hour, minute = (hour + (minute + 1) // 60) % 24, (minute + 1) % 60
        return False


@settings(max_examples=150)
@given(envelopes, st.sampled_from(ZONES), st.sampled_from(CHANGES), steps, st.randoms())
def test_every_history_is_decided_as_the_slow_formula_says(
    envelope: Envelope, zone: str, change: datetime, gaps: list[int], chance: object
) -> None:
    lived, now = Lived(envelope), change - timedelta(days=6)
    for gap in gaps:
        now += timedelta(minutes=gap)
        lived.point(now, zone, wants=chance.random() < 0.8)  # type: ignore[attr-defined]
    instants = [at for at, _ in lived.sent]
    if envelope.cool_down_hours is not None:
        pause = timedelta(hours=envelope.cool_down_hours)
        assert all(after - before >= pause for before, after in pairwise(instants))
    if envelope.daily_cap is not None:
        days = [wall.date() for _, wall in lived.sent]
        assert max(map(days.count, days), default=0) <= envelope.daily_cap
    if envelope.weekly_cap is not None:
        inside = [sum(end - timedelta(days=7) < at <= end for at in instants) for end in instants]
        assert max(inside, default=0) <= envelope.weekly_cap
    if envelope.quiet_hours is not None:
        assert not [wall for _, wall in lived.sent if is_quiet(envelope.quiet_hours, wall)]


@given(quiet, st.integers(0, 1439))
def test_quiet_minutes_are_those_that_are_quiet(hours: tuple[int, int], minute: int) -> None:
    wall = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=minute)
    assert is_quiet(hours, wall) == (minute in quiet_minutes(hours))


@pytest.mark.parametrize(
    ("instant", "wall"), [("06:30", 130), ("07:30", 330)]
)  # the hour from 2 to 3 does not exist on that day
def test_quiet_hours_are_those_of_the_wall_clock_on_the_day_it_goes_forward(instant: str, wall: int) -> None:
    local = datetime.fromisoformat(f"2026-03-08T{instant}:00+00:00").astimezone(ZoneInfo("America/New_York"))
    assert local.hour * 100 + local.minute == wall
    assert is_quiet((200, 300), local) is False
    assert is_quiet((100, 400), local) is True


def test_an_hour_that_comes_twice_is_quiet_twice() -> None:
    zone = ZoneInfo("America/New_York")
    walls = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC).astimezone(zone) for hour in (5, 6)]
    assert [(wall.hour, wall.fold) for wall in walls] == [(1, 0), (1, 1)]
    assert all(is_quiet((100, 200), wall) for wall in walls)


def test_a_day_of_25_hours_is_one_day_and_a_week_is_168_hours() -> None:
    zone, envelope = ZoneInfo("America/New_York"), Envelope(daily_cap=1)
    first = datetime(2026, 11, 1, 4, 5, tzinfo=UTC)  # five past midnight
    sent = [Sent(first, first.astimezone(zone).date())]
    late, next_day = first + timedelta(hours=24, minutes=50), first + timedelta(hours=25)
    assert forbids(envelope, True, late, late.astimezone(zone), sent) == "daily_cap"
    assert forbids(envelope, True, next_day, next_day.astimezone(zone), sent) is None
    weekly, week = Envelope(weekly_cap=1), timedelta(hours=168)
    almost = first + week - timedelta(microseconds=1)
    assert forbids(weekly, True, almost, almost, sent) == "weekly_cap"
    assert forbids(weekly, True, first + week, first + week, sent) is None


def test_the_app_has_the_first_word_and_the_rules_their_order() -> None:
    strict = Envelope((0, 2359), 24.0, 0, 0)
    now = datetime(2026, 6, 1, 12, tzinfo=UTC)
    sent = [Sent(now, date(2026, 6, 1))]
    named = []
    for rule in (
        strict,
        Envelope(None, 24.0, 0, 0),
        Envelope(None, None, 0, 0),
        Envelope(None, None, None, 0),
    ):
        named.append(forbids(rule, True, now, now, sent))
    assert [forbids(strict, False, now, now, sent), *named] == list(RULES)
    assert forbids(Envelope(), False, now, now, []) == APP
    assert forbids(Envelope(), True, now, now, sent) is None


def test_a_traveller_keeps_to_the_dates_that_their_clocks_showed() -> None:
    envelope, now = Envelope(daily_cap=1), datetime(2026, 6, 1, 9, tzinfo=UTC)
    sent = [Sent(now, local_time(now, 14 * 60).date())]  # 23:00 on the first of June
    later = now + timedelta(hours=2)
    assert forbids(envelope, True, later, local_time(later, 14 * 60), sent) is None  # the second of June
    assert forbids(envelope, True, later, local_time(later, -5 * 60), sent) == "daily_cap"  # the first again


def test_only_rules_about_messages_look_back() -> None:
    assert Envelope().looks_back_days == Envelope((2200, 700)).looks_back_days == 0
    assert Envelope(cool_down_hours=1).looks_back_days == Envelope(daily_cap=0).looks_back_days == 8
