"""A client that timed out and repeats, at any later point, sees what it would have seen."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.study import Trial
from workers.trial import windows as windows_task

Step = Callable[[Trial, int], object]


def _stale(trial: Trial, _: int) -> None:
    trial.age(trial.decide("ann")["rid"], 9)
    trial.decide("ann")


def _beat(trial: Trial, _: int) -> None:
    trial.age(trial.decide("ann")["rid"], 9)
    windows_task.close_stale()


def _withdraw(trial: Trial, ann: int) -> None:
    trial.decide("ann")
    assert (
        trial.call("POST", f"/participants/{ann}/withdraw", {"reason": "r"}, role="admin").status_code == 200
    )


def _over(trial: Trial, ann: int) -> None:
    trial.decide("ann")
    assert trial.tamper("UPDATE participants SET rl_end_date = rl_start_date WHERE id = %s", ann)


def _ended(trial: Trial, _: int) -> None:
    trial.decide("ann", decision_index=60)
    trial.end("ann")


LATER: dict[str, Step] = {
    "nothing has happened since": lambda trial, _: None,
    "the next point is open": lambda trial, _: trial.decide("ann"),
    "the next point is over": lambda trial, _: trial.live("ann", 1),
    "the next point went stale": _stale,
    "the beat closed the next point": _beat,
    "points were missed": lambda trial, _: trial.decide("ann", decision_index=7),
    "the participant has moved": lambda trial, _: trial.decide("ann", timezone="Asia/Tokyo"),
    "the participant has withdrawn": _withdraw,
    "the study is paused": lambda trial, _: trial.call("POST", "/study/pause", {"reason": "r"}, role="admin"),
    "the participant's dates are over": _over,
    "the last point is open": lambda trial, _: trial.decide("ann", decision_index=60),
    "the participant has ended": _ended,
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER.keys())
def test_repeats_with_an_index_or_a_key_are_answered_as_the_first_call_was(trial: Trial, later: Step) -> None:
    ann = trial.enrol("ann")
    trial.live("ann", 1)
    decided, ended = trial.decide("ann", key="decide"), trial.end("ann", key="end")
    later(trial, ann)
    before = footprint(trial)
    for naming in ({"decision_index": 2}, {"key": "decide"}):
        assert trial.decide("ann", **naming) == decided
    for naming in ({"decision_index": 2}, {"key": "end"}):
        assert trial.end("ann", **naming) == ended
    assert footprint(trial) == before


def footprint(trial: Trial) -> list[dict[str, Any]]:
    """How many rows the study has, and how far everybody is."""
    return trial.rows(
        "SELECT phase, decision_index, timezone, (SELECT count(*) FROM decisions) AS decisions,"
        " (SELECT count(*) FROM windows) AS windows, (SELECT count(*) FROM jobs) AS jobs,"
        " (SELECT count(*) FROM answers) AS answers FROM participants WHERE study_id = %s",
        trial.study_id,
    )


def test_repeats_without_either_mean_the_same_point_until_the_next(trial: Trial) -> None:
    trial.enrol("ann")
    first = trial.decide("ann")
    assert trial.decide("ann") == first
    ended = trial.end("ann")
    assert trial.end("ann") == ended
    second = trial.decide("ann")  # the window is over: this means the next point
    assert second["decision_index"] == 2
    assert trial.end("ann")["decision_index"] == 2  # and so does this, now that it has a decision
