"""Reading and acknowledging incidents."""

from collections.abc import Callable
from typing import Any

from tests.support.study import Trial


def put(trial: Trial, kind: str, level: str = "red", everybodys: bool = False) -> int:
    """Write an incident past the watchdog; its id. A green one is over."""
    found = trial.rows(
        "INSERT INTO incidents (study_id, kind, level, detail, first_at, last_at, resolved_at) "
        """VALUES (%s, %s, %s, '{"jobs": 3}', now(), now(), CASE WHEN %s = 'green' THEN now() END) """
        "RETURNING id",
        None if everybodys else trial.study_id,
        kind,
        level,
        level,
    )
    return int(found[0]["id"])


def ids(trial: Trial, query: str = "") -> list[int]:
    answer = trial.call("GET", f"/incidents{query}", role="researcher")
    assert answer.status_code == 200, answer.text
    return [one["incident_id"] for one in answer.get_json()["incidents"]]


def acknowledge(trial: Trial, incident_id: int) -> dict[str, Any]:
    answer = trial.call("POST", f"/incidents/{incident_id}/acknowledge", role="admin")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()["incident"]
    return found


def test_incidents_are_listed_by_level_and_by_whether_they_are_over(trial: Trial) -> None:
    red, yellow, green = put(trial, "a"), put(trial, "b", "yellow"), put(trial, "c", "green")
    assert ids(trial) == [red, yellow, green]
    assert ids(trial, "?open=true") == [red, yellow]
    assert ids(trial, "?open=false") == [green]
    assert ids(trial, "?level=yellow") == [yellow]
    assert ids(trial, "?open=true&level=green") == []


def test_pages_follow_each_other(trial: Trial) -> None:
    made = [put(trial, f"kind {number}") for number in range(5)]
    assert ids(trial, "?limit=2") == made[:2]
    assert ids(trial, f"?limit=2&after={made[1]}") == made[2:4]
    assert ids(trial, f"?after={made[4]}") == []


def test_what_is_asked_wrongly_is_said(trial: Trial) -> None:
    for query in ("level=purple", "limit=0", "open=perhaps", "state=open"):
        assert trial.call("GET", f"/incidents?{query}", role="admin").status_code == 422


def test_an_incident_is_shown_whole(trial: Trial) -> None:
    put(trial, "queue_old")
    (shown,) = trial.call("GET", "/incidents", role="admin").get_json()["incidents"]
    assert shown["detail"] == {"jobs": 3}
    assert (shown["study_id"], shown["kind"], shown["level"], shown["count"]) == (
        *(trial.study_id, "queue_old", "red"),
        1,
    )
    assert (shown["resolved_at"], shown["acknowledged_by"], shown["acknowledged_at"]) == (None, None, None)


def test_who_acknowledged_first_stays(trial: Trial) -> None:
    incident_id = put(trial, "queue_old")
    first = acknowledge(trial, incident_id)
    assert first["acknowledged_by"] > 0
    assert acknowledge(trial, incident_id) == first


def test_incidents_of_the_deployment_are_everybodys(new_trial: Callable[..., Trial]) -> None:
    own, other = new_trial(), new_trial()
    silent = put(own, "beat_silent", everybodys=True)
    try:
        assert silent in ids(own)
        assert silent in ids(other)
        assert acknowledge(other, silent)["study_id"] is None
    finally:
        own.tamper("DELETE FROM incidents WHERE id = %s", silent)


def test_another_studys_incident_is_not_there(new_trial: Callable[..., Trial]) -> None:
    own, other = new_trial(), new_trial()
    theirs = put(other, "queue_old")
    assert ids(own) == []
    assert own.call("POST", f"/incidents/{theirs}/acknowledge", role="admin").status_code == 404
