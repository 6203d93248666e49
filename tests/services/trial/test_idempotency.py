"""A call under an Idempotency-Key may be repeated at any time and is answered as it was the first time."""

import pytest
from werkzeug.test import TestResponse

from tests.support.study import Study


def refused_for_its_key(answer: TestResponse) -> bool:
    """Whether the answer names the key as the field at fault."""
    assert answer.json is not None
    return answer.status_code == 422 and answer.json["errors"][0]["field"] == "Idempotency-Key"


def test_a_keyed_decision_is_found_again_after_its_window(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann", key="one")
    study.end("ann")
    assert study.decide("ann", key="one") == first
    study.live("ann", 2)
    assert study.decide("ann", key="one") == first
    assert study.decide("ann", key="two")["decision_index"] == 4


def test_a_key_keeps_an_answer_that_another_call_had_made(study: Study) -> None:
    """Its repeat gets that answer still when the window is over."""
    study.enrol("ann")
    first = study.decide("ann")
    assert study.decide("ann", key="late") == first
    study.end("ann")
    assert study.decide("ann", key="late") == first


def test_a_keyed_end_is_found_again_after_the_next_decision(study: Study) -> None:
    study.enrol("ann")
    study.decide("ann")
    first = study.end("ann", key="end")
    study.decide("ann")
    assert study.end("ann", key="end") == first
    assert study.end("ann")["decision_index"] == 2


def test_a_keyed_end_of_a_window_that_was_over_does_not_end_the_next(study: Study) -> None:
    study.enrol("ann")
    study.decide("ann")
    first = study.end("ann")
    assert study.end("ann", key="repeat") == first
    study.decide("ann")
    assert study.end("ann", key="repeat") == first
    assert study.end("ann", key="another")["decision_index"] == 2


def test_one_key_in_both_kinds_of_call_is_two_keys(study: Study) -> None:
    study.enrol("ann")
    decided = study.decide("ann", key="same")
    ended = study.end("ann", key="same")
    study.live("ann", 1)
    assert study.decide("ann", key="same") == decided
    assert study.end("ann", key="same") == ended


def test_a_key_is_one_participants_own(study: Study) -> None:
    study.enrol("ann")
    study.enrol("ben")
    study.live("ben", 1)
    assert study.decide("ann", key="k")["decision_index"] == 1
    assert study.decide("ben", key="k")["decision_index"] == 2


def test_a_key_and_its_own_index_agree(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann", key="k", decision_index=2)
    assert study.decide("ann", key="k", decision_index=2) == first
    assert study.decide("ann", key="k") == first


def test_a_key_that_stands_for_another_index_is_refused(study: Study) -> None:
    ann = study.enrol("ann")
    study.decide("ann", key="k")
    assert refused_for_its_key(study.post_actions("ann", key="k", decision_index=2))
    study.end("ann", key="k")
    study.decide("ann")
    assert refused_for_its_key(study.post_end("ann", key="k", decision_index=2))
    assert study.windows(ann) == [(1, "ended")]


def test_a_refused_call_uses_no_key_up(study: Study) -> None:
    study.enrol("ann")
    assert study.post_actions("ann", key="k", decision_index=61).status_code == 409
    assert study.decide("ann", key="k")["decision_index"] == 1


@pytest.mark.parametrize("key", ["x" * 129, "a\tb"])
def test_what_cannot_be_a_key_is_refused(study: Study, key: str) -> None:
    study.enrol("ann")
    assert refused_for_its_key(study.post_actions("ann", key=key))
