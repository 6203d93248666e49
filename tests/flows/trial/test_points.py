"""Which decision point a call means, and when there may be a new decision: every step of a participant."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from werkzeug.test import TestResponse

from tests.support.study import Study
from workers.trial import windows as windows_task

NewTrial = Callable[..., Study]
WINDOW_HOURS = 8.0


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


def test_the_next_call_closes_a_stale_window_and_opens_the_next_point(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann")
    study.age(first["rid"], WINDOW_HOURS + 0.01)
    assert study.decide("ann")["decision_index"] == 2
    assert study.windows(ann) == [(1, "end_missing")]


def test_a_window_is_not_stale_before_its_time(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann")
    study.age(first["rid"], WINDOW_HOURS - 0.01)
    assert study.decide("ann")["rid"] == first["rid"]
    assert study.windows(ann) == []


def test_the_window_length_is_the_protocols(study: Study, new_study: NewTrial) -> None:
    short = new_study("schedule.window_hours=2")
    short.enrol("ann")
    study.enrol("ann")
    for own, index in ((short, 2), (study, 1)):
        own.age(own.decide("ann")["rid"], 3)
        assert own.decide("ann")["decision_index"] == index


def test_a_stale_window_is_no_obstacle_to_its_explicit_repeat(study: Study) -> None:
    ann = study.enrol("ann")
    first = study.decide("ann")
    study.age(first["rid"], 100)
    assert study.decide("ann", decision_index=1)["rid"] == first["rid"]
    assert study.windows(ann) == []


def ended_by_the_app(study: Study, _participant_id: int) -> None:
    study.end("ann")


def ended_by_the_next_call(study: Study, _participant_id: int) -> None:
    study.decide("ann")


def ended_by_a_jump(study: Study, _participant_id: int) -> None:
    study.decide("ann", decision_index=2)


def ended_by_the_beat(_trial: Study, _participant_id: int) -> None:
    windows_task.close_stale()


def ended_by_a_withdrawal(study: Study, participant_id: int) -> None:
    path = f"/participants/{participant_id}/withdraw"
    assert study.call("POST", path, {"reason": "asked"}, role="admin").status_code == 200


@pytest.mark.parametrize(
    "end",
    [ended_by_the_app, ended_by_the_next_call, ended_by_a_jump, ended_by_the_beat, ended_by_a_withdrawal],
)
@pytest.mark.parametrize(("settings", "hours"), [((), 3), (("schedule.look_back_hours=1.5",), 1.5)])
def test_however_a_window_ends_its_ingest_asks_for_the_whole_span(
    new_study: NewTrial, end: Callable[[Study, int], None], settings: tuple[str, ...], hours: float
) -> None:
    study = new_study(*settings)
    ann = study.enrol("ann")
    study.age(study.decide("ann")["rid"], 9)
    end(study, ann)
    (window,) = study.rows(
        "SELECT d.act_gen_timestamp - w.query_start AS back, w.query_end - w.ended_at AS rest,"
        " w.state, j.kind, j.state AS job FROM windows w JOIN decisions d"
        " ON (d.participant_id, d.decision_index) = (w.participant_id, w.decision_index)"
        " JOIN jobs j ON j.window_id = w.id WHERE w.study_id = %s",
        study.study_id,
    )
    assert window == {
        "back": timedelta(hours=hours),
        "rest": timedelta(0),
        "state": "ended",
        "kind": "ingest",
        "job": "queued",
    }


def test_the_beat_closes_stale_windows_only(study: Study) -> None:
    ann, ben = study.enrol("ann"), study.enrol("ben")
    stale, open_still = study.decide("ann"), study.decide("ben")
    study.age(stale["rid"], WINDOW_HOURS + 0.1)
    windows_task.close_stale()
    assert (study.windows(ann), study.windows(ben)) == ([(1, "end_missing")], [])
    assert study.decide("ann")["decision_index"] == 2
    assert study.decide("ben") == open_still


def test_one_window_that_cannot_be_closed_does_not_keep_the_others_open(study: Study) -> None:
    ann, ben = study.enrol("ann"), study.enrol("ben")
    for name in ("ann", "ben"):
        study.age(study.decide(name)["rid"], 9)
    study.tamper(
        "INSERT INTO windows (study_id, participant_id, decision_index, kind, state, ended_at)"
        " VALUES (%s, %s, 1, 'missed', 'missed', now())",
        study.study_id,
        ann,
    )
    windows_task.close_stale()
    assert study.windows(ann) == [(1, "missed")]
    assert study.windows(ben) == [(1, "end_missing")]


def test_a_late_end_of_a_window_that_the_beat_closed_gets_its_job(study: Study) -> None:
    ann = study.enrol("ann")
    study.age(study.decide("ann")["rid"], 9)
    windows_task.close_stale()
    (job,) = study.rows("SELECT id FROM jobs WHERE study_id = %s", study.study_id)
    for late in (study.end("ann"), study.end("ann", decision_index=1)):
        assert (late["decision_index"], late["job_id"]) == (1, job["id"])
    assert study.windows(ann) == [(1, "end_missing")]


def test_the_beat_ends_a_participant_whose_last_window_nobody_ended(new_study: NewTrial) -> None:
    study = new_study("schedule.study_length=2")
    ann = study.enrol("ann")
    study.live("ann", 1)
    last = study.decide("ann")
    assert phase(study, ann) == ("COMPLETED_AWAITING_REVIEW", 1)
    study.age(last["rid"], 9)
    assert refusal(study.post_actions("ann")) == (409, 211)
    windows_task.close_stale()
    assert phase(study, ann) == ("ENDED", 2)
    assert study.windows(ann) == [(1, "ended"), (2, "end_missing")]


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


def test_ends_without_a_decision_are_refused(study: Study) -> None:
    assert refusal(study.post_end("ann")) == (404, 300)
    assert refusal(study.post_actions("ann")) == (404, 203)
    study.enrol("ann")
    assert refusal(study.post_end("ann")) == (409, 301)
    assert refusal(study.post_end("ann", decision_index=1)) == (409, 302)
    study.decide("ann")
    assert refusal(study.post_end("ann", decision_index=2)) == (409, 302)


def test_an_index_that_was_missed_has_no_window_to_end_after_the_end_either(new_study: NewTrial) -> None:
    study = new_study("schedule.study_length=2")
    ann = study.enrol("ann")
    study.decide("ann", decision_index=2)
    ended = study.end("ann")
    assert phase(study, ann) == ("ENDED", 2)
    assert refusal(study.post_end("ann", decision_index=1)) == (409, 302)
    assert study.end("ann") == ended


def test_an_end_without_an_open_window_gets_the_last_windows_job(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 2)
    jobs = {index: study.end("ann", decision_index=index)["job_id"] for index in (1, 2)}
    assert study.end("ann")["job_id"] == jobs[2] != jobs[1]
    study.decide("ann")
    assert study.end("ann", decision_index=1)["job_id"] == jobs[1]  # the open third is left alone
    assert study.end("ann")["decision_index"] == 3


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
