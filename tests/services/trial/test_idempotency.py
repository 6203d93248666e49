"""A call under an Idempotency-Key may be repeated at any time and is answered as it was the first time."""

import pytest
from werkzeug.test import TestResponse

from tests.support.study import Trial


def refused_for_its_key(answer: TestResponse) -> bool:
    """Whether the answer names the key as the field at fault."""
    assert answer.json is not None
    return answer.status_code == 422 and answer.json["errors"][0]["field"] == "Idempotency-Key"


def test_a_keyed_decision_is_found_again_after_its_window(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann", key="one")
    trial.end("ann")
    assert trial.decide("ann", key="one") == first
    trial.live("ann", 2)
    assert trial.decide("ann", key="one") == first
    assert trial.decide("ann", key="two")["decision_index"] == 4


def test_a_key_keeps_an_answer_that_another_call_had_made(trial: Trial) -> None:
    """Its repeat gets that answer still when the window is over."""
    trial.enrol("ann")
    first = trial.decide("ann")
    assert trial.decide("ann", key="late") == first
    trial.end("ann")
    assert trial.decide("ann", key="late") == first


def test_a_keyed_end_is_found_again_after_the_next_decision(trial: Trial) -> None:
    trial.enrol("ann")
    trial.decide("ann")
    first = trial.end("ann", key="end")
    trial.decide("ann")
    assert trial.end("ann", key="end") == first
    assert trial.end("ann")["decision_index"] == 2


def test_a_keyed_end_of_a_window_that_was_over_does_not_end_the_next(trial: Trial) -> None:
    trial.enrol("ann")
    trial.decide("ann")
    first = trial.end("ann")
    assert trial.end("ann", key="repeat") == first
    trial.decide("ann")
    assert trial.end("ann", key="repeat") == first
    assert trial.end("ann", key="another")["decision_index"] == 2


def test_one_key_in_both_kinds_of_call_is_two_keys(trial: Trial) -> None:
    trial.enrol("ann")
    decided = trial.decide("ann", key="same")
    ended = trial.end("ann", key="same")
    trial.live("ann", 1)
    assert trial.decide("ann", key="same") == decided
    assert trial.end("ann", key="same") == ended


def test_a_key_is_one_participants_own(trial: Trial) -> None:
    trial.enrol("ann")
    trial.enrol("ben")
    trial.live("ben", 1)
    assert trial.decide("ann", key="k")["decision_index"] == 1
    assert trial.decide("ben", key="k")["decision_index"] == 2


def test_a_key_and_its_own_index_agree(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann", key="k", decision_index=2)
    assert trial.decide("ann", key="k", decision_index=2) == first
    assert trial.decide("ann", key="k") == first


def test_a_key_that_stands_for_another_index_is_refused(trial: Trial) -> None:
    ann = trial.enrol("ann")
    trial.decide("ann", key="k")
    assert refused_for_its_key(trial.actions("ann", key="k", decision_index=2))
    trial.end("ann", key="k")
    trial.decide("ann")
    assert refused_for_its_key(trial.end_window("ann", key="k", decision_index=2))
    assert trial.windows(ann) == [(1, "ended")]


def test_a_refused_call_uses_no_key_up(trial: Trial) -> None:
    trial.enrol("ann")
    assert trial.actions("ann", key="k", decision_index=61).status_code == 409
    assert trial.decide("ann", key="k")["decision_index"] == 1


@pytest.mark.parametrize("key", ["x" * 129, "a\tb"])
def test_what_cannot_be_a_key_is_refused(trial: Trial, key: str) -> None:
    trial.enrol("ann")
    assert refused_for_its_key(trial.actions("ann", key=key))
