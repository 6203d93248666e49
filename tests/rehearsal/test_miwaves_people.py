"""The synthetic people of a MiWaves study."""

from collections import Counter
from datetime import timedelta

import pytest

from rehearsal import miwaves_people
from rehearsal.checks import reward
from rehearsal.people import NOTHING, Person

PEOPLE = miwaves_people.people(20, 60, 1)


def rewards(person: Person, action: int) -> list[int]:
    return [reward(person.answers(index, [action] * (index - 1))) for index in range(2, 61)]


def test_the_first_point_has_nothing_to_report() -> None:
    assert {person.answers(1, []) for person in PEOPLE} == {NOTHING}


def test_the_same_seed_gives_the_same_people_and_another_seed_others() -> None:
    again, others = miwaves_people.people(20, 60, 1), miwaves_people.people(20, 60, 2)
    assert [rewards(p, 1) for p in again] == [rewards(p, 1) for p in PEOPLE]
    assert [rewards(p, 1) for p in others] != [rewards(p, 1) for p in PEOPLE]


def test_messages_change_what_is_answered() -> None:
    assert [rewards(p, 1) for p in PEOPLE] != [rewards(p, 0) for p in PEOPLE]


def test_all_four_rewards_occur() -> None:
    assert set(Counter(r for person in PEOPLE for r in rewards(person, 1))) == {0, 1, 2, 3}


def test_only_a_finished_survey_reports_activity_and_cannabis() -> None:
    for person in PEOPLE:
        for index in range(2, 61):
            survey = person.answers(index, [1] * (index - 1))
            assert (survey.activity_question_response is not None) == survey.finished_ema
            assert (survey.cannabis_use is not None) == survey.finished_ema


def test_cannabis_use_is_a_list_of_hours_that_nobody_takes_for_flags() -> None:
    lists = {p.answers(i, [1] * (i - 1)).cannabis_use for p in PEOPLE for i in range(2, 61)} - {None}
    assert () in lists
    assert len(lists) > 2
    assert not any(use and len(use) == 12 and set(use) <= {0, 1} for use in lists)


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.enrolment.user_id)
def test_points_are_numbered_and_at_the_notification_times_within_the_dates(person: Person) -> None:
    enrolled = person.enrolment
    assert [point.decision_index for point in person.points] == list(range(1, 61))
    for point in person.points:
        at = point.decision_time
        times = (enrolled.morning_notification_time_start, enrolled.evening_notification_time_start)
        assert at.hour * 100 + at.minute == times[point.evening][at.weekday()]
        assert point.evening == (point.decision_index % 2 == 0)
    assert person.points[0].decision_time.date() == enrolled.rl_start_date
    assert person.points[-1].decision_time.date() == enrolled.rl_end_date


def test_the_clocks_change_for_somebody() -> None:
    offsets = [{point.decision_time.utcoffset() for point in person.points} for person in PEOPLE]
    assert max(map(len, offsets)) == 2
    assert timedelta(hours=5, minutes=30) in set.union(*offsets)


def test_user_ids_differ() -> None:
    assert len({person.enrolment.user_id for person in PEOPLE}) == 20
