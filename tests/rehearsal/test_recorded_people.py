"""Recorded people, read from a CSV file."""

from datetime import datetime
from pathlib import Path

import pytest

from rehearsal import recorded_people
from rehearsal.contract import Survey
from rehearsal.people import NOTHING, Person
from tests.rehearsal.pilot import PILOT, needs_pilot

HEADER = "participant,decision_index,decision_time,evening,brushing_seconds,app_used,action\n"
MORNING = "b,{index},2026-03-0{day} 07:30:00,0,{seconds},{app},1\n"
GOOD = "b,1,2026-03-02 07:30:00,0,130.0,1,1\n"


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    file = folder / "people.csv"
    file.write_text(header + "".join(lines), encoding="utf-8")
    return file


def played(folder: Path, *lines: str) -> list[Person]:
    return recorded_people.people(write(folder, *lines))


def test_answers_at_the_next_point_are_those_of_the_row(tmp_path: Path) -> None:
    (person,) = played(
        tmp_path,
        "b,1,2026-03-02 07:30:00,0,120,0,1\n",
        "b,2,2026-03-02,1,119.9,1,0\n",
        "b,3,2026-03-03 07:30:00,0,0,1,0\n",
        "b,4,2026-03-03,1,0.0,0,0\n",
        "b,5,2026-03-04 07:30:00,0,200,1,0\n",
    )
    assert [person.answers(index, []) for index in range(1, 6)] == [
        NOTHING,
        Survey(True, app_use_flag=False, activity_question_response=True, cannabis_use=()),
        Survey(True, app_use_flag=True, activity_question_response=False, cannabis_use=()),
        Survey(finished_ema=False, app_use_flag=True),
        Survey(finished_ema=False, app_use_flag=False),
    ]


def test_long_brushing_is_cut_at_three_minutes(tmp_path: Path) -> None:
    (row,) = recorded_people.read_rows(write(tmp_path, "b,1,2026-03-02,0,180.5,1,1\n"))
    assert row.brushing_seconds == 180


def test_nothing_is_known_before_a_late_start_and_after_a_gap(tmp_path: Path) -> None:
    (person,) = played(
        tmp_path,
        "b,2,2026-03-02,1,130,1,1\n",
        "b,3,2026-03-03 07:30:00,0,130,1,1\n",
        "b,6,2026-03-04,1,130,1,1\n",
    )
    assert [point.decision_index for point in person.points] == [2, 3, 6]
    assert person.answers(2, []) == person.answers(6, []) == NOTHING
    assert person.answers(3, []).finished_ema


def test_rows_are_sorted_by_person_and_index(tmp_path: Path) -> None:
    lines = ["b,2,2026-03-02,1,0,0,1\n", "a,10,2026-03-06,1,0,0,1\n", "a,9,2026-03-06,0,0,0,1\n", GOOD]
    people = played(tmp_path, *lines)
    indices = {p.enrolment.user_id: [point.decision_index for point in p.points] for p in people}
    assert indices == {"a": [9, 10], "b": [1, 2]}


def test_the_day_is_the_recorded_one_and_the_half_of_it_that_of_evening(tmp_path: Path) -> None:
    (person,) = played(
        tmp_path,
        "b,1,2026-03-06 06:45:00,0,0,0,1\n",
        "b,2,2026-03-06 00:00:00,1,0,0,1\n",
        "b,3,2026-03-09 06:45:00,0,0,0,1\n",
        "b,4,2026-03-09 21:15:00,1,0,0,1\n",
    )
    assert [point.decision_time for point in person.points] == [
        datetime.fromisoformat("2026-03-06T06:45:00-08:00"),
        datetime.fromisoformat("2026-03-06T20:00:00-08:00"),
        datetime.fromisoformat("2026-03-09T06:45:00-07:00"),  # summer time began on the 8th
        datetime.fromisoformat("2026-03-09T21:15:00-07:00"),
    ]
    assert [point.evening for point in person.points] == [False, True, False, True]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (",1,2026-03-02,0,130,1,1\n", "participant"),
        ("b,one,2026-03-02,0,130,1,1\n", "decision_index"),
        ("b,0,2026-03-02,0,130,1,1\n", "decision_index"),
        ("b,1.0,2026-03-02,0,130,1,1\n", "decision_index"),
        ("b,1,yesterday,0,130,1,1\n", "decision_time"),
        ("b,1,2026-03-02,2,130,1,1\n", "evening"),
        ("b,1,2026-03-02,0,-1,1,1\n", "brushing_seconds"),
        ("b,1,2026-03-02,0,nan,1,1\n", "brushing_seconds"),
        ("b,1,2026-03-02,0,,1,1\n", "brushing_seconds"),
        ("b,1,2026-03-02,0,130,yes,1\n", "app_used"),
        ("b,1,2026-03-02,0,130\n", "app_used"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, line: str, named: str) -> None:
    with pytest.raises(recorded_people.FileError, match=rf"people\.csv, line 3: {named} cannot be"):
        recorded_people.people(write(tmp_path, GOOD.replace("b,1", "a,1"), line))


@pytest.mark.parametrize("column", recorded_people.COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    file = write(tmp_path, GOOD, header=HEADER.replace(column, "other"))
    with pytest.raises(recorded_people.FileError, match=f"lacks the column {column}"):
        recorded_people.people(file)


def test_a_decision_point_that_stands_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(recorded_people.FileError, match="decision_index 1 of participant b more than once"):
        played(tmp_path, GOOD, GOOD)


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\xff\xfe\x00", HEADER.encode() + b'"b,1'])
def test_a_file_without_rows_or_that_is_no_csv_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes(content)
    with pytest.raises(recorded_people.FileError) as caught:
        recorded_people.people(file)
    assert str(caught.value).startswith(f"{file} ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(recorded_people.FileError, match="cannot be read as CSV: No such file"):
        recorded_people.people(tmp_path / "absent.csv")


@needs_pilot
def test_the_pilot_has_nine_people_and_707_points_within_their_dates() -> None:
    people = recorded_people.people(PILOT)
    assert len(people) == 9
    assert sum(len(person.points) for person in people) == 707
    for person in people:
        days = [point.decision_time.date() for point in person.points]
        assert person.enrolment.rl_start_date <= min(days)
        assert max(days) <= person.enrolment.rl_end_date
        assert days == sorted(days)


@needs_pilot
def test_every_pilot_point_lies_on_its_side_of_the_midpoint_between_notifications() -> None:
    for person in recorded_people.people(PILOT):
        for point in person.points:
            weekday = point.decision_time.weekday()
            morning = _minutes(person.enrolment.morning_notification_time_start[weekday])
            evening = _minutes(person.enrolment.evening_notification_time_start[weekday])
            assert morning < evening
            minute = point.decision_time.hour * 60 + point.decision_time.minute
            assert (minute > (morning + evening) / 2) == point.evening


@needs_pilot
def test_the_pilot_has_one_gap() -> None:
    gaps = {
        person.enrolment.user_id: (before.decision_index, after.decision_index)
        for person in recorded_people.people(PILOT)
        for before, after in zip(person.points, person.points[1:], strict=False)
        if after.decision_index != before.decision_index + 1
    }
    assert gaps == {"p3": (48, 51)}


def _minutes(hhmm: int) -> int:
    return hhmm // 100 * 60 + hhmm % 100
