"""A window looks back by the rule under which its point was decided, whichever way it comes to its end."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from tests.api.trial.test_protocols import changed
from tests.support.study import Trial
from workers.trial import windows

LOOK_BACK, LATER_LOOK_BACK = 3.0, 9.0


def end_by_the_app(trial: Trial, participant_id: int, rid: int) -> None:
    del participant_id, rid
    trial.end("ann")


def end_as_stale(trial: Trial, participant_id: int, rid: int) -> None:
    del participant_id
    trial.age(rid, hours=48)
    windows.close_stale()


def end_by_withdrawal(trial: Trial, participant_id: int, rid: int) -> None:
    del rid
    path, body = f"/participants/{participant_id}/withdraw", {"reason": "a test"}
    assert trial.call("POST", path, body, role="admin").status_code == 200


def end_by_the_next_point(trial: Trial, participant_id: int, rid: int) -> None:
    del participant_id, rid
    trial.decide("ann", decision_index=2)


WAYS = (end_by_the_app, end_as_stale, end_by_withdrawal, end_by_the_next_point)


@pytest.mark.parametrize("end", WAYS, ids=lambda end: str(end.__name__))
def test_the_span_is_that_of_the_version_of_the_decision(
    trial: Trial, end: Callable[[Trial, int, int], None]
) -> None:
    participant_id = trial.enrol("ann")
    decided = trial.decide("ann")
    document = trial.call("GET", "/study/protocol", role="admin").get_json()["protocol"]["document"]
    document["schedule"]["look_back_hours"] = LATER_LOOK_BACK
    changed(trial, document, amendment=True)
    end(trial, participant_id, decided["rid"])
    assert spans(trial, participant_id) == [timedelta(hours=LOOK_BACK)]


def test_a_point_of_the_new_version_looks_back_by_the_new_one(trial: Trial) -> None:
    participant_id = trial.enrol("ann")
    trial.live("ann", 1)
    document = trial.call("GET", "/study/protocol", role="admin").get_json()["protocol"]["document"]
    document["schedule"]["look_back_hours"] = LATER_LOOK_BACK
    changed(trial, document, amendment=True)
    trial.live("ann", 1)
    assert spans(trial, participant_id) == [timedelta(hours=LOOK_BACK), timedelta(hours=LATER_LOOK_BACK)]


def spans(trial: Trial, participant_id: int) -> list[timedelta]:
    """How far before its decision each window's query begins."""
    rows = trial.rows(
        "SELECT w.query_start, d.act_gen_timestamp FROM windows w JOIN decisions d "
        "USING (participant_id, decision_index) WHERE w.participant_id = %s ORDER BY w.decision_index",
        participant_id,
    )
    moments: list[tuple[datetime, datetime]] = [
        (row["act_gen_timestamp"], row["query_start"]) for row in rows
    ]
    return [decided - start for decided, start in moments]
