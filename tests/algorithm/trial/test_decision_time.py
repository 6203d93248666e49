"""Local time, time of day and study day, on days that are 23, 24 and 25 hours long."""

from datetime import UTC, datetime

import pytest

from algorithm.trial.decision_time import Moment, moment, study_day

MORNINGS, EVENINGS = [800] * 7, [1900] * 7  # the midpoint is 13:30
BERLIN = "Europe/Berlin"
SPRING, AUTUMN = "2026-03-29", "2026-10-25"  # 23 and 25 hours long in Berlin


def told(text: str, index: int = 1, zone: str = BERLIN, per_day: int = 2) -> Moment:
    """The moment of a decision whose app sent `text` as its decision_time."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return moment(datetime.fromisoformat(text), now, zone, index, per_day, MORNINGS, EVENINGS)


def untold(now: str, index: int = 1, zone: str = BERLIN, per_day: int = 2) -> Moment:
    """The moment of a decision of which only the server's clock is known."""
    return moment(None, datetime.fromisoformat(now), zone, index, per_day, MORNINGS, EVENINGS)


def named(found: Moment) -> list[tuple[str, str, str]]:
    return [(d.field, d.issued, d.reported) for d in found.disagreements]


@pytest.mark.parametrize(
    ("clock", "evening"), [("00:00", False), ("13:29:59", False), ("13:30", True), ("23:59:59", True)]
)
def test_the_midpoint_of_the_notification_times_parts_the_day(clock: str, evening: bool) -> None:
    assert told(f"2026-06-01T{clock}+02:00").evening is evening


def test_each_weekday_has_its_own_midpoint() -> None:
    mornings, evenings = [700] * 5 + [1000] * 2, [1900] * 5 + [2200] * 2  # 13:00 and 16:00
    now = datetime(2026, 1, 1, tzinfo=UTC)
    friday, saturday = (
        moment(datetime.fromisoformat(f"2026-06-{day}T15:00:00+02:00"), now, BERLIN, 1, 2, mornings, evenings)
        for day in ("05", "06")
    )
    assert (friday.evening, saturday.evening) == (True, False)


def test_the_weekday_is_that_of_the_given_offset() -> None:
    """23:30 on a Friday in Los Angeles is a Saturday in UTC, whose midpoint lies elsewhere."""
    mornings, evenings = [100] * 5 + [2300] * 2, [200] * 5 + [2359] * 2
    now = datetime(2026, 1, 1, tzinfo=UTC)
    given = datetime.fromisoformat("2026-06-05T22:30:00-07:00")
    assert moment(given, now, "America/Los_Angeles", 2, 2, mornings, evenings).evening


@pytest.mark.parametrize(("index", "evening"), [(1, False), (2, True), (59, False), (60, True)])
def test_without_a_time_the_index_tells(index: int, evening: bool) -> None:
    found = untold("2026-06-01T22:00:00+00:00", index)
    assert found.evening is evening
    assert found.disagreements == ()


def test_an_index_that_says_otherwise_is_noted_and_the_clock_is_used() -> None:
    early = told("2026-06-01T09:00:00+02:00", index=2)
    assert (early.evening, named(early)) == (False, [("time_of_day", "evening", "morning")])
    late = told("2026-06-01T20:00:00+02:00", index=1)
    assert (late.evening, named(late)) == (True, [("time_of_day", "morning", "evening")])


def test_after_midnight_belongs_to_the_next_days_morning() -> None:
    assert named(told("2026-06-02T00:30:00+02:00", index=2)) == [("time_of_day", "evening", "morning")]


def test_an_index_tells_no_time_of_day_where_each_day_has_one_point() -> None:
    assert named(told("2026-06-01T20:00:00+02:00", index=1, per_day=1)) == []


@pytest.mark.parametrize(("index", "evening"), [(1, False), (2, False), (3, True), (4, True), (5, False)])
def test_four_points_a_day_are_two_mornings_and_two_evenings(index: int, evening: bool) -> None:
    assert untold("2026-06-01T10:00:00+00:00", index, per_day=4).evening is evening


@pytest.mark.parametrize(
    ("now", "local", "offset"),
    [
        (f"{SPRING}T00:59:00+00:00", f"{SPRING}T01:59:00+01:00", 60),
        (f"{SPRING}T01:00:00+00:00", f"{SPRING}T03:00:00+02:00", 120),  # 02:00 to 03:00 does not exist
        (f"{AUTUMN}T00:30:00+00:00", f"{AUTUMN}T02:30:00+02:00", 120),  # 02:30 comes twice
        (f"{AUTUMN}T01:30:00+00:00", f"{AUTUMN}T02:30:00+01:00", 60),
        (f"{AUTUMN}T22:59:00+00:00", f"{AUTUMN}T23:59:00+01:00", 60),
    ],
)
def test_the_servers_clock_is_read_in_the_zone_of_that_day(now: str, local: str, offset: int) -> None:
    found = untold(now)
    assert found.local.isoformat() == local
    assert found.utc_offset_minutes == offset


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_the_midpoint_is_on_the_wall_clock_however_long_the_day(day: str) -> None:
    offset = "+02:00" if day == SPRING else "+01:00"
    assert not told(f"{day}T13:29:00{offset}").evening
    assert told(f"{day}T13:30:00{offset}", index=2).evening


def test_the_hour_that_comes_twice_may_be_given_with_either_offset() -> None:
    for offset in ("+02:00", "+01:00"):
        assert told(f"{AUTUMN}T02:30:00{offset}").disagreements == ()


@pytest.mark.parametrize(
    ("text", "zone", "expected", "given"),
    [
        ("2026-06-01T08:00:00+02:00", "America/New_York", "-240", "120"),  # travelling, and nobody said so
        ("2026-06-01T08:00:00+00:00", BERLIN, "120", "0"),  # an app that sends UTC
        (f"{SPRING}T08:00:00+01:00", BERLIN, "120", "60"),  # a phone that missed the change
    ],
)
def test_an_offset_that_is_not_the_zones_is_noted_and_used(
    text: str, zone: str, expected: str, given: str
) -> None:
    found = told(text, zone=zone)
    assert found.utc_offset_minutes == int(given)
    assert named(found) == [("utc_offset_minutes", expected, given)]


def test_offsets_of_half_and_quarter_hours() -> None:
    assert told("2026-06-01T08:00:00+05:45", zone="Asia/Kathmandu").utc_offset_minutes == 345
    assert untold("2026-01-01T00:00:00+00:00", zone="Australia/Lord_Howe").utc_offset_minutes == 660
    assert untold("2026-06-01T00:00:00+00:00", zone="Australia/Lord_Howe").utc_offset_minutes == 630


@pytest.mark.parametrize(
    ("index", "per_day", "day"),
    [(1, 2, 1), (2, 2, 1), (3, 2, 2), (60, 2, 30), (7, 1, 7), (8, 3, 3), (9, 3, 3)],
)
def test_the_study_day_advances_with_the_morning(index: int, per_day: int, day: int) -> None:
    assert study_day(index, per_day) == day
