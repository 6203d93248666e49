"""Synthetic people of a MiWaves study: the testbed's reward models with a real person's calendar."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from algorithm.trial import testbed
from rehearsal.contract import Enrolment, Survey
from rehearsal.people import NOTHING, Person, Point, local_time

FIRST_DAY = date(2026, 10, 12)  # a Monday, as the testbed has it; clocks change on the way
ENROLLED_EACH_WEEK = 8
ZONES = (None, "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Auckland")
MORNINGS, EVENINGS = (730,) * 5 + (930,) * 2, (2015,) * 5 + (2145,) * 2
EFFECT = "low"


def people(count: int, points: int, seed: int) -> list[Person]:
    """Return `count` people with `points` decision points each; every second one habituates to messages."""
    return [_person(number, points, seed) for number in range(count)]


def _person(number: int, points: int, seed: int) -> Person:
    generator = np.random.default_rng([seed, number])
    drawn = testbed.draw_participant(generator, points, EFFECT, habituates=number % 2 == 1)
    enrolment = enrol(number, points)

    def answers(index: int, actions: Sequence[int]) -> Survey:
        if not actions:  # nothing happened before the first point
            return NOTHING
        fields = drawn.respond(index - 1, actions[-1], actions[:-1]).answers
        use = fields["cannabis_use"]
        return Survey(**fields | {"cannabis_use": None if use is None else tuple(map(float, use))})

    return Person(enrolment, list(calendar(enrolment, points)), answers)


def enrol(number: int, points: int) -> Enrolment:
    """Return the enrolment of participant `number`.

    ENROLLED_EACH_WEEK people start each week, and every second one is notified an hour later.
    """
    start = FIRST_DAY + timedelta(weeks=number // ENROLLED_EACH_WEEK)
    end = start + timedelta(days=(points - 1) // testbed.POINTS_PER_DAY)
    later = 100 * (number % 2)
    mornings, evenings = (tuple(time + later for time in week) for week in (MORNINGS, EVENINGS))
    zone = ZONES[number % len(ZONES)]
    return Enrolment(f"synthetic-{number + 1:03}", start, end, start, end, mornings, evenings, zone)


def calendar(enrolled: Enrolment, count: int) -> Iterator[Point]:
    """Yield `count` decision points, morning and evening in turn, at each weekday's notification time."""
    zone = ZoneInfo(enrolled.timezone or "UTC")
    halves = (enrolled.morning_notification_time_start, enrolled.evening_notification_time_start)
    for number in range(count):
        day = enrolled.rl_start_date + timedelta(days=number // testbed.POINTS_PER_DAY)
        evening = number % testbed.POINTS_PER_DAY
        yield Point(number + 1, local_time(day, halves[evening][day.weekday()], zone), evening == 1)
