"""Every way in which a participant's window comes to its end, and what is asked for its data."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.flows.trial.test_points import NewTrial, phase, refusal
from tests.support.study import Study
from workers.trial import windows as windows_task

WINDOW_HOURS = 8.0


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
