"""What a policy serves one participant with: the same as its decisions were made with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.study import NOT_FINISHED, Study
from workers.trial import refit


def block(study: Study, policy_id: int, participant_id: int) -> dict[str, Any]:
    path = f"/policies/{policy_id}/participants/{participant_id}"
    answer = study.call("GET", path, role="researcher")
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """A study that learns whenever it is asked to."""
    return new_study("refit.min_interval_minutes=0")


@pytest.fixture
def people(study: Study) -> dict[str, int]:
    """Two whom policy 1 has learnt from, and one who came later."""
    ids = {name: study.enrol(name) for name in ("ann", "ben")}
    for name, used in (("ann", True), ("ben", False)):
        for _ in range(4):
            study.decide(name, **(NOT_FINISHED | {"app_use_flag": used}))
            study.end(name)
    refit.run(study.call("POST", "/update_parameters").get_json()["job_id"])
    return ids | {"cem": study.enrol("cem")}


def test_decisions_have_the_probability_of_their_state(study: Study, people: dict[str, int]) -> None:
    for name, participant_id in people.items():
        decided = study.decide(name)
        state = "".join(f"{value:g}" for value in decided["state"])
        assert block(study, 1, participant_id)["act_prob"][state] == decided["act_prob"]


def test_who_was_not_in_the_fit_has_what_all_others_have(study: Study, people: dict[str, int]) -> None:
    whole = study.call("GET", "/policies/1").get_json()["policy"]
    later, ann, ben = (block(study, 1, people[name]) for name in ("cem", "ann", "ben"))
    assert [one["is_in_fit"] for one in (later, ann, ben)] == [False, True, True]
    assert later["act_prob"] == whole["act_prob"]
    assert len({tuple(one["mean"]) for one in (later, ann, ben)}) == 3
    assert block(study, 0, people["ann"])["is_in_fit"] is False


def test_a_covariance_is_one(study: Study, people: dict[str, int]) -> None:
    found = np.array(block(study, 1, people["ann"])["covariance"])
    assert np.array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() > 0


def test_what_is_not_kept_or_not_there_is_told(study: Study, people: dict[str, int]) -> None:
    study.tamper("DELETE FROM policy_blocks WHERE study_id = %s", study.study_id)
    paths = {
        f"/policies/1/participants/{people['ann']}": (409, 933),
        f"/policies/9/participants/{people['ann']}": (404, 910),
        "/policies/1/participants/999999999": (404, 910),
        f"/policies/{2**63}/participants/1": (404, 910),
    }
    for path, expected in paths.items():
        answer = study.call("GET", path, role="researcher")
        assert (answer.status_code, answer.get_json()["error_code"]) == expected
