"""Which decision point a call means, and when there may be a new decision: every step of a participant."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from werkzeug.test import TestResponse

from tests.support.study import Study

NewTrial = Callable[..., Study]


def refusal(answer: TestResponse) -> tuple[int, int]:
    """HTTP status and error_code."""
    assert answer.json
    return answer.status_code, answer.json["error_code"]


def phase(study: Study, participant_id: int) -> tuple[str, int]:
    """The phase and how many decision points are over."""
    seen = study.show(participant_id)
    return seen["phase"], seen["decision_index"]


def test_enrolment_the_first_decision_and_its_window(study: Study) -> None:
    ann = study.enrol("ann")
    assert phase(study, ann) == ("REGISTERED", 0)
    assert study.decide("ann")["decision_index"] == 1
    assert phase(study, ann) == ("STARTED", 0)
    assert study.end("ann")["decision_index"] == 1
    assert phase(study, ann) == ("STARTED", 1)
    assert study.decide("ann")["decision_index"] == 2


def test_a_repeat_of_an_open_point_is_the_same_decision_with_and_without_its_index(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    assert study.decide("ann") == first
    assert study.decide("ann", decision_index=1) == first
    assert study.rows("SELECT count(*) AS n FROM decisions WHERE study_id = %s", study.study_id) == [{"n": 1}]


def test_an_index_names_its_decision_for_ever(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    study.end("ann")
    study.live("ann", 3)
    assert study.decide("ann", decision_index=1) == first
    study.age(first["rid"], 1000)
    aged = {**first, "act_gen_timestamp": None}
    assert {**study.decide("ann", decision_index=1), "act_gen_timestamp": None} == aged


def test_without_an_index_a_call_after_the_windows_end_means_the_next_point(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 1)
    assert study.decide("ann")["decision_index"] == 2


def test_other_answers_to_a_decided_point_are_kept_as_a_correction(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    later = study.decide("ann", app_use_flag=True)
    assert later == {**first, "correction_stored": True}
    assert study.decide("ann", app_use_flag=True) == later  # the same correction again is nothing new
    kept = study.rows(
        "SELECT version, source, item, reward FROM answers WHERE decision_id = %s", first["rid"]
    )
    assert [(row["version"], row["source"], row["reward"]) for row in kept] == [(1, "actions", None)]
    assert kept[0]["item"]["app_use_flag"] is True


def test_after_the_end_repeats_are_answered_and_nothing_new_is(new_study: NewTrial) -> None:
    study = new_study("schedule.study_length=2")
    ann = study.enrol("ann")
    first = study.decide("ann")
    study.end("ann")
    last = study.decide("ann")
    assert study.decide("ann") == last
    ended = study.end("ann")
    assert phase(study, ann) == ("ENDED", 2)
    assert study.end("ann") == ended
    assert study.end("ann", decision_index=1)["decision_index"] == 1
    assert study.decide("ann", decision_index=1) == first
    assert study.decide("ann", decision_index=2) == last
    assert refusal(study.post_actions("ann")) == (409, 211)
    assert refusal(study.post_actions("ann", decision_index=3)) == (409, 211)
    assert refusal(study.post_end("ann", decision_index=3)) == (409, 302)


def test_a_later_index_closes_the_open_window_and_records_the_gap(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann")
    assert study.decide("ann", decision_index=4)["decision_index"] == 4
    assert study.windows(ann) == [(1, "end_missing"), (2, "missed"), (3, "missed")]
    assert phase(study, ann) == ("STARTED", 3)
    assert study.end("ann")["decision_index"] == 4
    assert study.decide("ann")["decision_index"] == 5


def test_the_first_decision_may_come_late(study: Study) -> None:
    ann = study.enrol("ann")
    assert study.decide("ann", decision_index=3)["decision_index"] == 3
    assert study.windows(ann) == [(1, "missed"), (2, "missed")]


def test_only_points_with_a_decision_are_looked_back_on(study: Study) -> None:
    study.enrol("ann")
    engaged = {"finished_ema": True, "activity_question_response": True, "cannabis_use": [1.0]}
    assert study.decide("ann", **engaged)["state"] == [1, 0, 0]  # the reward 3 alone
    study.end("ann")
    assert study.decide("ann")["state"] == [0, 1, 0]  # 3 and 0
    assert study.decide("ann", decision_index=5, **engaged)["state"] == [1, 0, 0]  # 3 and 4 were missed


@pytest.mark.parametrize("asked", [1, 3])
def test_an_index_that_has_passed_without_a_decision_is_refused(study: Study, asked: int) -> None:
    study.enrol("ann")
    study.decide("ann", decision_index=4)
    assert refusal(study.post_actions("ann", decision_index=asked)) == (409, 212)
    assert refusal(study.post_end("ann", decision_index=asked)) == (409, 302)


def test_an_index_beyond_the_study_is_refused_and_changes_nothing(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann")
    assert refusal(study.post_actions("ann", decision_index=61)) == (409, 212)
    assert study.windows(ann) == []


def test_a_jump_to_the_last_point_completes(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", decision_index=60)
    assert phase(study, ann) == ("COMPLETED_AWAITING_REVIEW", 59)
    study.end("ann")
    assert phase(study, ann) == ("ENDED", 60)


def test_outside_the_participants_dates_nothing_is_decided_or_closed(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann")
    study.age(first["rid"], 9)
    study.tamper("UPDATE participants SET rl_end_date = '2020-01-02' WHERE id = %s", ann)
    assert refusal(study.post_actions("ann")) == (409, 213)
    assert refusal(study.post_actions("ann", decision_index=3)) == (409, 213)
    assert study.windows(ann) == []
    assert study.decide("ann", decision_index=1)["rid"] == first["rid"]  # a repeat is no new decision
    assert study.end("ann")["decision_index"] == 1


@pytest.mark.parametrize(
    ("day", "status"), [("2026-03-01", 409), ("2026-03-02", 200), ("2026-03-05", 200), ("2026-03-06", 409)]
)
def test_both_dates_belong_to_the_study(study: Study, day: str, status: int) -> None:
    study.enrol("ann", rl_start_date="2026-03-02", rl_end_date="2026-03-05")
    assert study.post_actions("ann", decision_time=f"{day}T08:00:00+01:00").status_code == status


def test_the_date_is_the_participants_own(study: Study) -> None:
    today = datetime.now(UTC)
    far_east = (today + timedelta(hours=14)).date()
    dates = dict.fromkeys(
        ("rl_start_date", "rl_end_date", "consent_start_date", "consent_end_date"), far_east.isoformat()
    )
    far_west = (today - timedelta(hours=11)).date()
    assert far_east != far_west
    study.enrol("east", **dates, timezone="Pacific/Kiritimati")  # UTC+14 all year
    study.enrol("west", **dates, timezone="Pacific/Pago_Pago")  # UTC-11 all year
    assert study.post_actions("east").status_code == 200
    assert refusal(study.post_actions("west")) == (409, 213)
