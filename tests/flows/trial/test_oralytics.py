"""A study of the second protocol through the real API: decided, recorded, learnt from, exported, replayed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from algorithm.core.checks import Check, boolean, optional, real
from algorithm.trial.designs import DESIGNS
from algorithm.trial.designs.oralytics import Oralytics
from models.core import studies
from models.core.session import transact
from replay.checks import replay
from tests.flows.core.test_fuzz import ANYTHING, is_refusal
from tests.support.backend import BackEnd, serving
from tests.support.oralytics import Brushers, item
from tests.support.study import Study

SETTINGS = ("protocol=oralytics", "refit.min_interval_minutes=0", "schedule.study_length=12")
SURVEY = {"finished_ema": True, "app_use_flag": True, "activity_question_response": True, "cannabis_use": []}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with serving() as served:
        yield served


@pytest.fixture
def brushers(new_study: Callable[..., Study], back_end: BackEnd) -> Brushers:
    return Brushers(new_study(*SETTINGS, ema_url=back_end.url), back_end)


def errors(answer: Any) -> tuple[int, int, list[str]]:
    body = answer.get_json()
    return answer.status_code, body["error_code"], [error["field"] for error in body.get("errors", [])]


def decisions(study: Study) -> int:
    return len(study.rows("SELECT id FROM decisions WHERE study_id = %s", study.study_id))


def test_a_whole_study_is_played_exported_and_replayed(brushers: Brushers, tmp_path: Path) -> None:
    study = brushers.study
    ids = {name: study.enrol(name) for name in ("ann", "bob", "cem", "dea")}
    for name in ids:
        brushers.live(name, 5)
    assert brushers.fit() == 20
    late = brushers.decide("ann")
    assert brushers.record("ann") == "failed 317"
    assert brushers.decide("bob", available=False)["unavailable_rule"] == "app"
    for name in ("ann", "cem", "dea"):
        brushers.live(name, 3)
    assert brushers.fit() == 20 + 9
    (job,) = study.rows(
        "SELECT j.id, j.window_id FROM jobs j WHERE j.study_id = %s AND j.code = 317", study.study_id
    )
    assert study.call("POST", f"/windows/{job['window_id']}/retry", role="admin").status_code == 202
    assert brushers.ingest(job["id"], item("ann", late, brushing_seconds=33)) == "done"
    assert brushers.fit() == 20 + 9 + 1
    brushers.live("ann", 3)
    assert study.show(ids["ann"])["phase"] == "ENDED"
    assert brushers.fit() == 33
    told = study.service.command(
        "export", study.name, str(tmp_path / "export"), "--account", f"researcher@{study.name}"
    )
    key = transact(lambda session: studies.by_id(session, study.study_id).study_key)
    report = replay(tmp_path / "export", key, str(told["manifest_sha256"]))
    assert not report.first, "\n".join(report.lines())
    assert report.held["state"] == decisions(study) == 34
    assert report.held["learning row"] > 33


def test_a_row_pairs_an_action_with_what_was_recorded_after_it(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    for seconds in (100, 20, 250):
        assert brushers.record("ann", item("ann", brushers.decide("ann"), brushing_seconds=seconds)) == "done"
    assert brushers.fit() == 3
    rows = brushers.study.rows(
        "SELECT decision_index, outcome FROM learning_rows WHERE study_id = %s ORDER BY decision_index",
        brushers.study.study_id,
    )
    assert [(row["decision_index"], row["outcome"]) for row in rows] == [(1, 100), (2, 20), (3, 180)]


def test_the_state_is_made_of_what_was_recorded_by_then(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    first = brushers.decide("ann", decision_time="2026-11-21T08:00:00Z")
    assert first["state"] == [0, 0, 0, 0]
    assert brushers.record("ann", item("ann", first, brushing_seconds=45, app_used=True)) == "done"
    prompts = 2 * first["action"] - 1
    second = brushers.decide("ann", decision_time="2026-11-21T20:00:00Z")
    assert second["state"] == [1, 0, -0.5, prompts]
    brushers.record("ann")
    third = brushers.decide("ann", decision_time="2026-11-22T08:00:00Z")
    assert third["state"][:3] == [0, 1, -0.5]  # nothing came of the second


def test_a_later_record_corrects_the_outcome_and_is_no_correction_when_it_is_the_first(
    brushers: Brushers,
) -> None:
    study = brushers.study
    study.enrol("ann")
    first = brushers.decide("ann")
    assert brushers.record("ann", item("ann", first, brushing_seconds=60)) == "done"
    corrections = "SELECT id FROM audit WHERE study_id = %s AND act = 'correct'"
    assert study.rows(corrections, study.study_id) == []
    assert brushers.fit() == 1
    second = brushers.decide("ann")
    corrected = item("ann", first, brushing_seconds=70, seed=7)
    assert brushers.record("ann", corrected, item("ann", second)) == "done"
    assert len(study.rows(corrections, study.study_id)) == 1
    assert brushers.fit() == 2
    outcomes = study.rows(
        "SELECT outcome FROM learning_rows WHERE study_id = %s ORDER BY row_seq", study.study_id
    )
    assert sorted(row["outcome"] for row in outcomes) == [60, 70, 90]
    assert study.call("GET", "/study").get_json()["discrepancies"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"brushing_seconds": "long"},
        {"brushing_seconds": None},
        {"brushing_seconds": True},
        {"brushing_seconds": -1},
        {"brushing_seconds": float("nan")},
        {"brushing_seconds": 10**400},
        {"app_used": 1},
        {"app_used": "NA"},
    ],
    ids=str,
)
def test_a_wrong_record_fails_its_window(brushers: Brushers, change: dict[str, Any]) -> None:
    brushers.study.enrol("ann")
    decided = brushers.decide("ann")
    assert brushers.record("ann", item("ann", decided, **change)) == "failed 303"


def test_a_survey_is_no_record_and_more_fields_are_ignored(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    decided = brushers.decide("ann")
    survey = {name: value for name, value in item("ann", decided).items() if name != "brushing_seconds"}
    assert brushers.record("ann", survey | SURVEY) == "failed 303"
    second = brushers.decide("ann")
    assert brushers.record("ann", item("ann", second, **SURVEY, answers={"brushing_seconds": 1})) == "done"
    (stored,) = brushers.study.rows("SELECT item, reward FROM answers WHERE decision_id = %s", second["rid"])
    assert stored["reward"] == 90
    assert not {"finished_ema", "answers", "user_id"} & set(stored["item"])


def test_the_call_of_another_protocol_is_refused_and_nothing_stored(
    brushers: Brushers, new_study: Callable[..., Study]
) -> None:
    study = brushers.study
    study.enrol("ann")
    asked = study.call("POST", "/actions", {"user_id": "ann", **SURVEY})
    assert errors(asked) == (422, 905, ["finished_ema"])
    assert "/decision_points" in asked.get_json()["message"]
    miwaves = new_study()
    miwaves.enrol("ann")
    for answers in ({}, SURVEY):
        asked = miwaves.call("POST", "/decision_points", {"user_id": "ann", "answers": answers})
        assert errors(asked) == (422, 905, ["answers"])
        assert "/actions" in asked.get_json()["message"]
    assert decisions(study) == decisions(miwaves) == 0
    brushers.decide("ann")
    assert errors(study.call("POST", "/actions", {"user_id": "ann", **SURVEY}))[0] == 422
    assert study.rows("SELECT id FROM answers WHERE study_id = %s", study.study_id) == []


def test_what_the_action_may_have_changed_is_not_taken_before_it(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    early = {"user_id": "ann", "answers": {"brushing_seconds": 90, "app_used": True}}
    asked = brushers.study.call("POST", "/decision_points", early)
    assert errors(asked) == (422, 905, ["answers.app_used", "answers.brushing_seconds"])
    assert decisions(brushers.study) == 0


def test_a_repeat_gets_the_stored_decision(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    first = brushers.decide("ann")
    assert brushers.decide("ann") == brushers.decide("ann", decision_index=1) == first
    headers = {"Idempotency_Key": "one"}
    body = {"user_id": "ann"}
    brushers.record("ann", item("ann", first))
    keyed = [brushers.study.call("POST", "/decision_points", body, **headers).get_json() for _ in range(2)]
    assert keyed[0] == keyed[1]
    assert keyed[0]["decision_index"] == 2


def check_anything(study: Study, known: list[str]) -> None:
    """Whatever is posted for an enrolled participant is decided, or refused in our shape."""
    names = st.sampled_from(known) | st.text(max_size=10)
    bodies = st.fixed_dictionaries(
        {},
        optional={"answers": st.dictionaries(names, ANYTHING, max_size=4) | ANYTHING, "available": ANYTHING},
    )

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(body=bodies)
    def check(body: dict[str, Any]) -> None:
        answer = study.call("POST", "/decision_points", {"user_id": "ann", **body})
        assert answer.status_code == 200 or is_refusal(answer), answer.text
        assert answer.status_code in {200, 400, 422}

    check()


def test_anything_made_is_decided_or_refused(brushers: Brushers) -> None:
    brushers.study.enrol("ann")
    check_anything(brushers.study, ["brushing_seconds", "app_used"])
    stored = brushers.study.rows("SELECT answers FROM decisions WHERE study_id = %s", brushers.study.study_id)
    assert {str(row["answers"]) for row in stored} <= {"{}", "{'available': False}"}


class Asking(Oralytics):
    """A third protocol, whose answers come with the call at the next point."""

    name = "asking"
    outcome_lag = 1
    answers: Mapping[str, Check] = {
        "brushing_seconds": real(0, 1000),
        "app_used": boolean,
        "mood": optional(real(1, 5), None),
    }
    defaults: Mapping[str, Any] = {
        **Oralytics.defaults,
        "schedule": {**Oralytics.defaults["schedule"], "outcome_lag": 1},
    }


@pytest.fixture
def asking(new_study: Callable[..., Study], back_end: BackEnd, monkeypatch: pytest.MonkeyPatch) -> Brushers:
    monkeypatch.setitem(DESIGNS, "asking", Asking())
    study = new_study("protocol=asking", "refit.min_interval_minutes=0", ema_url=back_end.url)
    study.enrol("ann")
    return Brushers(study, back_end)


TOLD = {"brushing_seconds": 60, "app_used": True}


@pytest.mark.parametrize(
    ("answers", "field"),
    [
        ({}, "answers.brushing_seconds"),
        ({"brushing_seconds": 60}, "answers.app_used"),
        ({**TOLD, "app_used": None}, "answers.app_used"),
        ({**TOLD, "app_used": 1}, "answers.app_used"),
        ({**TOLD, "brushing_seconds": True}, "answers.brushing_seconds"),
        ({**TOLD, "brushing_seconds": -1}, "answers.brushing_seconds"),
        ({**TOLD, "brushing_seconds": [1]}, "answers.brushing_seconds"),
        ({**TOLD, "mood": 6}, "answers.mood"),
        ({**TOLD, "finished_ema": True}, "answers.finished_ema"),
    ],
    ids=str,
)
def test_a_missing_or_wrong_answer_is_named(asking: Brushers, answers: dict[str, Any], field: str) -> None:
    answer = asking.study.call("POST", "/decision_points", {"user_id": "ann", "answers": answers})
    assert errors(answer) == (422, 905, [field])
    assert decisions(asking.study) == 0


def test_answers_that_come_with_the_call_make_the_outcome_of_the_point_before(asking: Brushers) -> None:
    first = asking.decide("ann", answers={**TOLD, "mood": 3})
    again = asking.decide("ann", answers={**TOLD, "mood": 4})
    assert (again["rid"], again["correction_stored"]) == (first["rid"], True)
    assert asking.record("ann", item("ann", first, **TOLD)) == "done"
    asking.decide("ann", answers={"brushing_seconds": 75, "app_used": False})
    assert asking.fit() == 1
    (row,) = asking.study.rows(
        "SELECT decision_index, outcome FROM learning_rows WHERE study_id = %s", asking.study.study_id
    )
    assert (row["decision_index"], row["outcome"]) == (1, 75)


def test_anything_made_is_checked_answer_by_answer(asking: Brushers) -> None:
    asking.decide("ann", answers=TOLD)
    check_anything(asking.study, ["brushing_seconds", "app_used", "mood"])
