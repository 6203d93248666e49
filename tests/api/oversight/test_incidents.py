"""Reading and acknowledging incidents."""

from collections.abc import Callable
from typing import Any

from tests.support.study import Study


def put(study: Study, kind: str, level: str = "red", everybodys: bool = False) -> int:
    """Write an incident past the watchdog; its id. A green one is over."""
    found = study.rows(
        "INSERT INTO incidents (study_id, kind, level, detail, first_at, last_at, resolved_at) "
        """VALUES (%s, %s, %s, '{"jobs": 3}', now(), now(), CASE WHEN %s = 'green' THEN now() END) """
        "RETURNING id",
        None if everybodys else study.study_id,
        kind,
        level,
        level,
    )
    return int(found[0]["id"])


def ids(study: Study, query: str = "") -> list[int]:
    answer = study.call("GET", f"/incidents{query}", role="researcher")
    assert answer.status_code == 200, answer.text
    return [one["incident_id"] for one in answer.get_json()["incidents"]]


def acknowledge(study: Study, incident_id: int) -> dict[str, Any]:
    answer = study.call("POST", f"/incidents/{incident_id}/acknowledge", role="admin")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()["incident"]
    return found


def test_incidents_are_listed_by_level_and_by_whether_they_are_over(study: Study) -> None:
    red, yellow, green = put(study, "a"), put(study, "b", "yellow"), put(study, "c", "green")
    assert ids(study) == [red, yellow, green]
    assert ids(study, "?open=true") == [red, yellow]
    assert ids(study, "?open=false") == [green]
    assert ids(study, "?level=yellow") == [yellow]
    assert ids(study, "?open=true&level=green") == []


def test_pages_follow_each_other(study: Study) -> None:
    made = [put(study, f"kind {number}") for number in range(5)]
    assert ids(study, "?limit=2") == made[:2]
    assert ids(study, f"?limit=2&after={made[1]}") == made[2:4]
    assert ids(study, f"?after={made[4]}") == []


def test_what_is_asked_wrongly_is_said(study: Study) -> None:
    for query in ("level=purple", "limit=0", "open=perhaps", "state=open"):
        assert study.call("GET", f"/incidents?{query}", role="admin").status_code == 422


def test_an_incident_is_shown_whole(study: Study) -> None:
    put(study, "queue_old")
    (shown,) = study.call("GET", "/incidents", role="admin").get_json()["incidents"]
    assert shown["detail"] == {"jobs": 3}
    assert (shown["study_id"], shown["kind"], shown["level"], shown["count"]) == (
        *(study.study_id, "queue_old", "red"),
        1,
    )
    assert (shown["resolved_at"], shown["acknowledged_by"], shown["acknowledged_at"]) == (None, None, None)


def test_who_acknowledged_first_stays(study: Study) -> None:
    incident_id = put(study, "queue_old")
    first = acknowledge(study, incident_id)
    assert first["acknowledged_by"] > 0
    assert acknowledge(study, incident_id) == first


def test_incidents_of_the_deployment_are_everybodys(new_study: Callable[..., Study]) -> None:
    own, other = new_study(), new_study()
    silent = put(own, "beat_silent", everybodys=True)
    try:
        assert silent in ids(own)
        assert silent in ids(other)
        assert acknowledge(other, silent)["study_id"] is None
    finally:
        own.tamper("DELETE FROM incidents WHERE id = %s", silent)


def test_another_studys_incident_is_not_there(new_study: Callable[..., Study]) -> None:
    own, other = new_study(), new_study()
    theirs = put(other, "queue_old")
    assert ids(own) == []
    assert own.call("POST", f"/incidents/{theirs}/acknowledge", role="admin").status_code == 404
