"""Which decision point a call means, and when there may be a new decision: every step of a participant."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from werkzeug.test import TestResponse

from tests.support.study import Trial
from workers.trial import windows as windows_task

NewTrial = Callable[..., Trial]
WINDOW_HOURS = 8.0


def refusal(answer: TestResponse) -> tuple[int, int]:
    """HTTP status and error_code."""
    assert answer.json
    return answer.status_code, answer.json["error_code"]


def phase(trial: Trial, participant_id: int) -> tuple[str, int]:
    """The phase and how many decision points are over."""
    seen = trial.show(participant_id)
    return seen["phase"], seen["decision_index"]


def test_enrolment_the_first_decision_and_its_window(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert phase(trial, ann) == ("REGISTERED", 0)
    assert trial.decide("ann")["decision_index"] == 1
    assert phase(trial, ann) == ("STARTED", 0)
    assert trial.end("ann")["decision_index"] == 1
    assert phase(trial, ann) == ("STARTED", 1)
    assert trial.decide("ann")["decision_index"] == 2


def test_a_repeat_of_an_open_point_is_the_same_decision_with_and_without_its_index(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann")
    assert trial.decide("ann") == first
    assert trial.decide("ann", decision_index=1) == first
    assert trial.rows("SELECT count(*) AS n FROM decisions WHERE study_id = %s", trial.study_id) == [{"n": 1}]


def test_an_index_names_its_decision_for_ever(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann")
    trial.end("ann")
    trial.live("ann", 3)
    assert trial.decide("ann", decision_index=1) == first
    trial.age(first["rid"], 1000)
    aged = {**first, "act_gen_timestamp": None}
    assert {**trial.decide("ann", decision_index=1), "act_gen_timestamp": None} == aged


def test_without_an_index_a_call_after_the_windows_end_means_the_next_point(trial: Trial) -> None:
    trial.enrol("ann")
    trial.live("ann", 1)
    assert trial.decide("ann")["decision_index"] == 2


def test_other_answers_to_a_decided_point_are_kept_as_a_correction(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann")
    later = trial.decide("ann", app_use_flag=True)
    assert later == {**first, "correction_stored": True}
    assert trial.decide("ann", app_use_flag=True) == later  # the same correction again is nothing new
    kept = trial.rows(
        "SELECT version, source, item, reward FROM answers WHERE decision_id = %s", first["rid"]
    )
    assert [(row["version"], row["source"], row["reward"]) for row in kept] == [(1, "actions", None)]
    assert kept[0]["item"]["app_use_flag"] is True


def test_the_next_call_closes_a_stale_window_and_opens_the_next_point(trial: Trial) -> None:
    ann = trial.enrol("ann")
    first = trial.decide("ann")
    trial.age(first["rid"], WINDOW_HOURS + 0.01)
    assert trial.decide("ann")["decision_index"] == 2
    assert trial.windows(ann) == [(1, "end_missing")]


def test_a_window_is_not_stale_before_its_time(trial: Trial) -> None:
    ann = trial.enrol("ann")
    first = trial.decide("ann")
    trial.age(first["rid"], WINDOW_HOURS - 0.01)
    assert trial.decide("ann")["rid"] == first["rid"]
    assert trial.windows(ann) == []


def test_the_window_length_is_the_protocols(trial: Trial, new_trial: NewTrial) -> None:
    short = new_trial("schedule.window_hours=2")
    short.enrol("ann")
    trial.enrol("ann")
    for study, index in ((short, 2), (trial, 1)):
        study.age(study.decide("ann")["rid"], 3)
        assert study.decide("ann")["decision_index"] == index


def test_a_stale_window_is_no_obstacle_to_its_explicit_repeat(trial: Trial) -> None:
    ann = trial.enrol("ann")
    first = trial.decide("ann")
    trial.age(first["rid"], 100)
    assert trial.decide("ann", decision_index=1)["rid"] == first["rid"]
    assert trial.windows(ann) == []


def ended_by_the_app(trial: Trial, _participant_id: int) -> None:
    trial.end("ann")


def ended_by_the_next_call(trial: Trial, _participant_id: int) -> None:
    trial.decide("ann")


def ended_by_a_jump(trial: Trial, _participant_id: int) -> None:
    trial.decide("ann", decision_index=2)


def ended_by_the_beat(_trial: Trial, _participant_id: int) -> None:
    windows_task.close_stale()


def ended_by_a_withdrawal(trial: Trial, participant_id: int) -> None:
    path = f"/participants/{participant_id}/withdraw"
    assert trial.call("POST", path, {"reason": "asked"}, role="admin").status_code == 200


@pytest.mark.parametrize(
    "end",
    [ended_by_the_app, ended_by_the_next_call, ended_by_a_jump, ended_by_the_beat, ended_by_a_withdrawal],
)
@pytest.mark.parametrize(("settings", "hours"), [((), 3), (("schedule.look_back_hours=1.5",), 1.5)])
def test_however_a_window_ends_its_ingest_asks_for_the_whole_span(
    new_trial: NewTrial, end: Callable[[Trial, int], None], settings: tuple[str, ...], hours: float
) -> None:
    trial = new_trial(*settings)
    ann = trial.enrol("ann")
    trial.age(trial.decide("ann")["rid"], 9)
    end(trial, ann)
    (window,) = trial.rows(
        "SELECT d.act_gen_timestamp - w.query_start AS back, w.query_end - w.ended_at AS rest,"
        " w.state, j.kind, j.state AS job FROM windows w JOIN decisions d"
        " ON (d.participant_id, d.decision_index) = (w.participant_id, w.decision_index)"
        " JOIN jobs j ON j.window_id = w.id WHERE w.study_id = %s",
        trial.study_id,
    )
    assert window == {
        "back": timedelta(hours=hours),
        "rest": timedelta(0),
        "state": "ended",
        "kind": "ingest",
        "job": "queued",
    }


def test_the_beat_closes_stale_windows_only(trial: Trial) -> None:
    ann, ben = trial.enrol("ann"), trial.enrol("ben")
    stale, open_still = trial.decide("ann"), trial.decide("ben")
    trial.age(stale["rid"], WINDOW_HOURS + 0.1)
    windows_task.close_stale()
    assert (trial.windows(ann), trial.windows(ben)) == ([(1, "end_missing")], [])
    assert trial.decide("ann")["decision_index"] == 2
    assert trial.decide("ben") == open_still


def test_one_window_that_cannot_be_closed_does_not_keep_the_others_open(trial: Trial) -> None:
    ann, ben = trial.enrol("ann"), trial.enrol("ben")
    for name in ("ann", "ben"):
        trial.age(trial.decide(name)["rid"], 9)
    trial.tamper(
        "INSERT INTO windows (study_id, participant_id, decision_index, kind, state, ended_at)"
        " VALUES (%s, %s, 1, 'missed', 'missed', now())",
        trial.study_id,
        ann,
    )
    windows_task.close_stale()
    assert trial.windows(ann) == [(1, "missed")]
    assert trial.windows(ben) == [(1, "end_missing")]


def test_a_late_end_of_a_window_that_the_beat_closed_gets_its_job(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.age(trial.decide("ann")["rid"], 9)
    windows_task.close_stale()
    (job,) = trial.rows("SELECT id FROM jobs WHERE study_id = %s", trial.study_id)
    for late in (trial.end("ann"), trial.end("ann", decision_index=1)):
        assert (late["decision_index"], late["job_id"]) == (1, job["id"])
    assert trial.windows(ann) == [(1, "end_missing")]


def test_the_beat_ends_a_participant_whose_last_window_nobody_ended(new_trial: NewTrial) -> None:
    trial = new_trial("schedule.study_length=2")
    ann = trial.enrol("ann")
    trial.live("ann", 1)
    last = trial.decide("ann")
    assert phase(trial, ann) == ("COMPLETED_AWAITING_REVIEW", 1)
    trial.age(last["rid"], 9)
    assert refusal(trial.actions("ann")) == (409, 211)
    windows_task.close_stale()
    assert phase(trial, ann) == ("ENDED", 2)
    assert trial.windows(ann) == [(1, "ended"), (2, "end_missing")]


def test_after_the_end_repeats_are_answered_and_nothing_new_is(new_trial: NewTrial) -> None:
    trial = new_trial("schedule.study_length=2")
    ann = trial.enrol("ann")
    first = trial.decide("ann")
    trial.end("ann")
    last = trial.decide("ann")
    assert trial.decide("ann") == last
    ended = trial.end("ann")
    assert phase(trial, ann) == ("ENDED", 2)
    assert trial.end("ann") == ended
    assert trial.end("ann", decision_index=1)["decision_index"] == 1
    assert trial.decide("ann", decision_index=1) == first
    assert trial.decide("ann", decision_index=2) == last
    assert refusal(trial.actions("ann")) == (409, 211)
    assert refusal(trial.actions("ann", decision_index=3)) == (409, 211)
    assert refusal(trial.end_window("ann", decision_index=3)) == (409, 302)


def test_a_later_index_closes_the_open_window_and_records_the_gap(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann")
    assert trial.decide("ann", decision_index=4)["decision_index"] == 4
    assert trial.windows(ann) == [(1, "end_missing"), (2, "missed"), (3, "missed")]
    assert phase(trial, ann) == ("STARTED", 3)
    assert trial.end("ann")["decision_index"] == 4
    assert trial.decide("ann")["decision_index"] == 5


def test_the_first_decision_may_come_late(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert trial.decide("ann", decision_index=3)["decision_index"] == 3
    assert trial.windows(ann) == [(1, "missed"), (2, "missed")]


def test_only_points_with_a_decision_are_looked_back_on(trial: Trial) -> None:
    trial.enrol("ann")
    engaged = {"finished_ema": True, "activity_question_response": True, "cannabis_use": [1.0]}
    assert trial.decide("ann", **engaged)["state"] == [1, 0, 0]  # the reward 3 alone
    trial.end("ann")
    assert trial.decide("ann")["state"] == [0, 1, 0]  # 3 and 0
    assert trial.decide("ann", decision_index=5, **engaged)["state"] == [1, 0, 0]  # 3 and 4 were missed


@pytest.mark.parametrize("asked", [1, 3])
def test_an_index_that_has_passed_without_a_decision_is_refused(trial: Trial, asked: int) -> None:
    trial.enrol("ann")
    trial.decide("ann", decision_index=4)
    assert refusal(trial.actions("ann", decision_index=asked)) == (409, 212)
    assert refusal(trial.end_window("ann", decision_index=asked)) == (409, 302)


def test_an_index_beyond_the_study_is_refused_and_changes_nothing(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann")
    assert refusal(trial.actions("ann", decision_index=61)) == (409, 212)
    assert trial.windows(ann) == []


def test_a_jump_to_the_last_point_completes(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann", decision_index=60)
    assert phase(trial, ann) == ("COMPLETED_AWAITING_REVIEW", 59)
    trial.end("ann")
    assert phase(trial, ann) == ("ENDED", 60)


def test_ends_without_a_decision_are_refused(trial: Trial) -> None:
    assert refusal(trial.end_window("ann")) == (404, 300)
    assert refusal(trial.actions("ann")) == (404, 203)
    trial.enrol("ann")
    assert refusal(trial.end_window("ann")) == (409, 301)
    assert refusal(trial.end_window("ann", decision_index=1)) == (409, 302)
    trial.decide("ann")
    assert refusal(trial.end_window("ann", decision_index=2)) == (409, 302)


def test_an_index_that_was_missed_has_no_window_to_end_after_the_end_either(new_trial: NewTrial) -> None:
    trial = new_trial("schedule.study_length=2")
    ann = trial.enrol("ann")
    trial.decide("ann", decision_index=2)
    ended = trial.end("ann")
    assert phase(trial, ann) == ("ENDED", 2)
    assert refusal(trial.end_window("ann", decision_index=1)) == (409, 302)
    assert trial.end("ann") == ended


def test_an_end_without_an_open_window_gets_the_last_windows_job(trial: Trial) -> None:
    trial.enrol("ann")
    trial.live("ann", 2)
    jobs = {index: trial.end("ann", decision_index=index)["job_id"] for index in (1, 2)}
    assert trial.end("ann")["job_id"] == jobs[2] != jobs[1]
    trial.decide("ann")
    assert trial.end("ann", decision_index=1)["job_id"] == jobs[1]  # the open third is left alone
    assert trial.end("ann")["decision_index"] == 3


def test_outside_the_participants_dates_nothing_is_decided_or_closed(trial: Trial) -> None:
    ann = trial.enrol("ann")
    first = trial.decide("ann")
    trial.age(first["rid"], 9)
    trial.tamper("UPDATE participants SET rl_end_date = '2020-01-02' WHERE id = %s", ann)
    assert refusal(trial.actions("ann")) == (409, 213)
    assert refusal(trial.actions("ann", decision_index=3)) == (409, 213)
    assert trial.windows(ann) == []
    assert trial.decide("ann", decision_index=1)["rid"] == first["rid"]  # a repeat is no new decision
    assert trial.end("ann")["decision_index"] == 1


@pytest.mark.parametrize(
    ("day", "status"), [("2026-03-01", 409), ("2026-03-02", 200), ("2026-03-05", 200), ("2026-03-06", 409)]
)
def test_both_dates_belong_to_the_study(trial: Trial, day: str, status: int) -> None:
    trial.enrol("ann", rl_start_date="2026-03-02", rl_end_date="2026-03-05")
    assert trial.actions("ann", decision_time=f"{day}T08:00:00+01:00").status_code == status


def test_the_date_is_the_participants_own(trial: Trial) -> None:
    today = datetime.now(UTC)
    far_east = (today + timedelta(hours=14)).date()
    dates = dict.fromkeys(
        ("rl_start_date", "rl_end_date", "consent_start_date", "consent_end_date"), far_east.isoformat()
    )
    far_west = (today - timedelta(hours=11)).date()
    assert far_east != far_west
    trial.enrol("east", **dates, timezone="Pacific/Kiritimati")  # UTC+14 all year
    trial.enrol("west", **dates, timezone="Pacific/Pago_Pago")  # UTC-11 all year
    assert trial.actions("east").status_code == 200
    assert refusal(trial.actions("west")) == (409, 213)
