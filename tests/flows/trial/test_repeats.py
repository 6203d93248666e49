"""A client that timed out and repeats, at any later point, sees what it would have seen."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.study import Study
from workers.trial import windows as windows_task

Step = Callable[[Study, int], object]


def _stale(study: Study, _: int) -> None:
    study.age(study.decide("ann")["rid"], 9)
    study.decide("ann")


def _beat(study: Study, _: int) -> None:
    study.age(study.decide("ann")["rid"], 9)
    windows_task.close_stale()


def _withdraw(study: Study, ann: int) -> None:
    study.decide("ann")
    assert (
        study.call("POST", f"/participants/{ann}/withdraw", {"reason": "r"}, role="admin").status_code == 200
    )


def _over(study: Study, ann: int) -> None:
    study.decide("ann")
    assert study.tamper("UPDATE participants SET rl_end_date = rl_start_date WHERE id = %s", ann)


def _ended(study: Study, _: int) -> None:
    study.decide("ann", decision_index=60)
    study.end("ann")


LATER: dict[str, Step] = {
    "nothing has happened since": lambda study, _: None,
    "the next point is open": lambda study, _: study.decide("ann"),
    "the next point is over": lambda study, _: study.live("ann", 1),
    "the next point went stale": _stale,
    "the beat closed the next point": _beat,
    "points were missed": lambda study, _: study.decide("ann", decision_index=7),
    "the participant has moved": lambda study, _: study.decide("ann", timezone="Asia/Tokyo"),
    "the participant has withdrawn": _withdraw,
    "the study is paused": lambda study, _: study.call("POST", "/study/pause", {"reason": "r"}, role="admin"),
    "the participant's dates are over": _over,
    "the last point is open": lambda study, _: study.decide("ann", decision_index=60),
    "the participant has ended": _ended,
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER.keys())
def test_repeats_with_an_index_or_a_key_are_answered_as_the_first_call_was(study: Study, later: Step) -> None:
    ann = study.enrol("ann")
    study.live("ann", 1)
    decided, ended = study.decide("ann", key="decide"), study.end("ann", key="end")
    later(study, ann)
    before = footprint(study)
    for naming in ({"decision_index": 2}, {"key": "decide"}):
        assert study.decide("ann", **naming) == decided
    for naming in ({"decision_index": 2}, {"key": "end"}):
        assert study.end("ann", **naming) == ended
    assert footprint(study) == before


def footprint(study: Study) -> list[dict[str, Any]]:
    """How many rows the study has, and how far everybody is."""
    return study.rows(
        "SELECT phase, decision_index, timezone, (SELECT count(*) FROM decisions) AS decisions,"
        " (SELECT count(*) FROM windows) AS windows, (SELECT count(*) FROM jobs) AS jobs,"
        " (SELECT count(*) FROM answers) AS answers FROM participants WHERE study_id = %s",
        study.study_id,
    )


def test_repeats_without_either_mean_the_same_point_until_the_next(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    assert study.decide("ann") == first
    ended = study.end("ann")
    assert study.end("ann") == ended
    second = study.decide("ann")  # the window is over: this means the next point
    assert second["decision_index"] == 2
    assert study.end("ann")["decision_index"] == 2  # and so does this, now that it has a decision
