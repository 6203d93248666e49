"""A window looks back by the rule under which its point was decided, whichever way it comes to its end."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from tests.api.trial.test_protocols import changed
from tests.support.study import Study
from workers.trial import windows

LOOK_BACK, LATER_LOOK_BACK = 3.0, 9.0


def end_by_the_app(study: Study, participant_id: int, rid: int) -> None:
    del participant_id, rid
    study.end("ann")


def end_as_stale(study: Study, participant_id: int, rid: int) -> None:
    del participant_id
    study.age(rid, hours=48)
    windows.close_stale()


def end_by_withdrawal(study: Study, participant_id: int, rid: int) -> None:
    del rid
    path, body = f"/participants/{participant_id}/withdraw", {"reason": "a test"}
    assert study.call("POST", path, body, role="admin").status_code == 200


def end_by_the_next_point(study: Study, participant_id: int, rid: int) -> None:
    del participant_id, rid
    study.decide("ann", decision_index=2)


WAYS = (end_by_the_app, end_as_stale, end_by_withdrawal, end_by_the_next_point)


@pytest.mark.parametrize("end", WAYS, ids=lambda end: str(end.__name__))
def test_the_span_is_that_of_the_version_of_the_decision(
    study: Study, end: Callable[[Study, int, int], None]
) -> None:
    participant_id = study.enrol("ann")
    decided = study.decide("ann")
    document = study.call("GET", "/study/protocol", role="admin").get_json()["protocol"]["document"]
    document["schedule"]["look_back_hours"] = LATER_LOOK_BACK
    changed(study, document, amendment=True)
    end(study, participant_id, decided["rid"])
    assert spans(study, participant_id) == [timedelta(hours=LOOK_BACK)]


def test_a_point_of_the_new_version_looks_back_by_the_new_one(study: Study) -> None:
    participant_id = study.enrol("ann")
    study.live("ann", 1)
    document = study.call("GET", "/study/protocol", role="admin").get_json()["protocol"]["document"]
    document["schedule"]["look_back_hours"] = LATER_LOOK_BACK
    changed(study, document, amendment=True)
    study.live("ann", 1)
    assert spans(study, participant_id) == [timedelta(hours=LOOK_BACK), timedelta(hours=LATER_LOOK_BACK)]


def spans(study: Study, participant_id: int) -> list[timedelta]:
    """How far before its decision each window's query begins."""
    rows = study.rows(
        "SELECT w.query_start, d.act_gen_timestamp FROM windows w JOIN decisions d "
        "USING (participant_id, decision_index) WHERE w.participant_id = %s ORDER BY w.decision_index",
        participant_id,
    )
    moments: list[tuple[datetime, datetime]] = [
        (row["act_gen_timestamp"], row["query_start"]) for row in rows
    ]
    return [decided - start for decided, start in moments]
