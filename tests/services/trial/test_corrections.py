"""Repeats with other answers: kept beside the first ones, each once, however many come at a time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from werkzeug.test import TestResponse

from tests.support.study import Study

AT_ONCE = 24


def at_once(study: Study, bodies: list[dict[str, Any]]) -> list[TestResponse]:
    """The answers to calls of /actions which leave together."""
    barrier = Barrier(len(bodies))

    def call(body: dict[str, Any]) -> TestResponse:
        barrier.wait()
        return study.post_actions(**body)

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(call, bodies))


def versions(study: Study, rid: int) -> list[int]:
    found = study.rows("SELECT version FROM answers WHERE decision_id = %s ORDER BY version", rid)
    return [row["version"] for row in found]


def notes(study: Study) -> list[dict[str, Any]]:
    """The corrections in the study's audit."""
    found: list[dict[str, Any]] = study.call("GET", "/audit?act=correct", role="admin").get_json()["audit"]
    return found


def finished(amount: float) -> dict[str, Any]:
    """The answers of somebody who tells an amount."""
    return {"finished_ema": True, "activity_question_response": False, "cannabis_use": [amount]}


def test_each_repeat_of_a_correction_hears_the_same(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    told = [study.decide("ann", app_use_flag=True) for _ in range(3)]
    assert told == [{**first, "correction_stored": True}] * 3
    assert study.decide("ann") == first
    assert (versions(study, first["rid"]), len(notes(study))) == ([1], 1)


def test_many_other_answers_at_once_are_all_kept(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    answers = at_once(study, [{"user_id": "ann", **finished(amount)} for amount in range(AT_ONCE)])
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json for answer in answers] == [{**first, "correction_stored": True}] * AT_ONCE
    assert versions(study, first["rid"]) == list(range(1, AT_ONCE + 1))
    assert len(notes(study)) == AT_ONCE


def test_corrections_of_many_participants_at_once_all_reach_the_audit(study: Study) -> None:
    people = [f"person-{number}" for number in range(AT_ONCE)]
    for name in people:
        study.enrol(name)
        study.decide(name)
    answers = at_once(study, [{"user_id": name, "app_use_flag": True} for name in people])
    assert {answer.status_code for answer in answers} == {200}
    assert len({note["after"]["rid"] for note in notes(study)}) == AT_ONCE
    assert study.service.command("audit", "verify", study.name)["whole"] is True


def test_decisions_with_different_answers_at_once_are_one_and_the_rest_corrections(study: Study) -> None:
    study.enrol("ann")
    answers = at_once(study, [{"user_id": "ann", **finished(amount)} for amount in range(AT_ONCE)])
    told = [answer.get_json() for answer in answers]
    assert sorted(one.pop("correction_stored") for one in told) == [False] + [True] * (AT_ONCE - 1)
    assert told == [told[0]] * AT_ONCE
    assert versions(study, told[0]["rid"]) == list(range(1, AT_ONCE))


def test_as_many_refits_asked_for_at_once_are_one_job(study: Study) -> None:
    barrier = Barrier(AT_ONCE)

    def ask(_number: int) -> TestResponse:
        barrier.wait()
        return study.call("POST", "/update_parameters", {})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["job_id"] for answer in answers}) == 1
