"""Participants and decisions for those who read: pages, one participant, and nobody's name in a log."""

from typing import Any

import pytest

from tests.support.study import Trial


def page(trial: Trial, path: str, role: str = "researcher") -> Any:
    """The list in a page."""
    answer = trial.call("GET", path, role=role)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    return answer.json[path.partition("?")[0].strip("/")]


def test_participants_come_in_pages_by_id(trial: Trial) -> None:
    ids = [trial.enrol(name) for name in ("ann", "ben", "cem")]
    first = page(trial, "/participants?limit=2")
    assert [one["participant_id"] for one in first] == ids[:2]
    rest = page(trial, f"/participants?limit=2&after={ids[1]}")
    assert [one["participant_id"] for one in rest] == ids[2:]


def test_a_participant_is_found_by_the_apps_name_which_is_not_shown(trial: Trial) -> None:
    trial.enrol("ann")
    ben = trial.enrol("ben-whose-name-is-private")
    found = page(trial, "/participants?user_id=ben-whose-name-is-private")
    assert [one["participant_id"] for one in found] == [ben]
    assert "private" not in str(found)
    assert page(trial, "/participants?user_id=nobody") == []
    assert trial.call("GET", "/participants?user_id=", role="researcher").status_code == 422


def test_a_participants_progress(trial: Trial) -> None:
    ann = trial.enrol("ann", timezone="Europe/Berlin", rl_start_date="2026-01-01")
    trial.live("ann", 2)
    trial.decide("ann")
    seen = trial.show(ann)
    windows, zones = seen.pop("windows"), seen.pop("zones")
    assert seen == {
        "participant_id": ann,
        "phase": "STARTED",
        "decision_index": 2,
        "open_decision_index": 3,
        "study_day": 2,
        "timezone": "Europe/Berlin",
        "rl_start_date": "2026-01-01",
        "rl_end_date": "2099-12-31",
    }
    assert [(w["decision_index"], w["kind"], w["state"], w["code"]) for w in windows] == [
        (1, "ended", "ended", None),
        (2, "ended", "ended", None),
    ]
    assert [(zone["timezone"], zone["decision_index"]) for zone in zones] == [("Europe/Berlin", 0)]


def test_the_study_day_stops_with_the_study(trial: Trial) -> None:
    ann = trial.enrol("ann")
    assert trial.show(ann)["study_day"] == 1
    trial.decide("ann", decision_index=60)
    assert trial.show(ann)["study_day"] == 30
    trial.end("ann")
    seen = trial.show(ann)
    assert (seen["phase"], seen["study_day"], seen["open_decision_index"]) == ("ENDED", 30, None)


def test_decisions_come_in_pages_by_rid_as_they_were_issued(trial: Trial) -> None:
    ann, ben = trial.enrol("ann"), trial.enrol("ben")
    issued = []
    for name in ("ann", "ben", "ann"):
        issued.append(trial.decide(name))
        trial.end(name)
    first = page(trial, "/decisions?limit=2")
    rest = page(trial, f"/decisions?limit=2&after={first[-1]['rid']}")
    assert [one["participant_id"] for one in first + rest] == [ann, ben, ann]
    for shown, told in zip(first + rest, issued, strict=True):
        same = set(told) & set(shown)
        assert {"rid", "seed", "act_prob", "action", "state", "act_gen_timestamp"} <= same
        assert {name: shown[name] for name in same} == {name: told[name] for name in same}
    assert [one["participant_id"] for one in page(trial, f"/decisions?participant_id={ben}")] == [ben]


def test_other_studies_are_out_of_sight(trial: Trial, new_trial: Any) -> None:
    other = new_trial()
    stranger = other.enrol("ann")
    other.decide("ann")
    assert page(trial, "/participants") == []
    assert page(trial, "/decisions") == []
    assert page(trial, f"/decisions?participant_id={stranger}") == []
    answer = trial.call("GET", f"/participants/{stranger}", role="admin")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error_code"]) == (404, 910)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=-1", "after=x", "unknown=1", "after=9223372036854775808"]
)
@pytest.mark.parametrize("path", ["/participants", "/decisions"])
def test_a_query_that_makes_no_sense_is_refused(trial: Trial, path: str, query: str) -> None:
    assert trial.call("GET", f"{path}?{query}", role="researcher").status_code == 422
