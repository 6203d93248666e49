"""Participants and decisions for those who read: pages, one participant, and nobody's name in a log."""

from typing import Any

import pytest

from tests.support.study import Study


def page(study: Study, path: str, role: str = "researcher") -> Any:
    """The list in a page."""
    answer = study.call("GET", path, role=role)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    return answer.json[path.partition("?")[0].strip("/")]


def test_participants_come_in_pages_by_id(study: Study) -> None:
    ids = [study.enrol(name) for name in ("ann", "ben", "cem")]
    first = page(study, "/participants?limit=2")
    assert [one["participant_id"] for one in first] == ids[:2]
    rest = page(study, f"/participants?limit=2&after={ids[1]}")
    assert [one["participant_id"] for one in rest] == ids[2:]


def test_a_participant_is_found_by_the_apps_name_which_is_not_shown(study: Study) -> None:
    study.enrol("ann")
    ben = study.enrol("ben-whose-name-is-private")
    found = page(study, "/participants?user_id=ben-whose-name-is-private")
    assert [one["participant_id"] for one in found] == [ben]
    assert "private" not in str(found)
    assert page(study, "/participants?user_id=nobody") == []
    assert study.call("GET", "/participants?user_id=", role="researcher").status_code == 422


def test_a_participants_progress(study: Study) -> None:
    ann = study.enrol("ann", timezone="Europe/Berlin", rl_start_date="2026-01-01")
    study.live("ann", 2)
    study.decide("ann")
    seen = study.show(ann)
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


def test_the_study_day_stops_with_the_study(study: Study) -> None:
    ann = study.enrol("ann")
    assert study.show(ann)["study_day"] == 1
    study.decide("ann", decision_index=60)
    assert study.show(ann)["study_day"] == 30
    study.end("ann")
    seen = study.show(ann)
    assert (seen["phase"], seen["study_day"], seen["open_decision_index"]) == ("ENDED", 30, None)


def test_decisions_come_in_pages_by_rid_as_they_were_issued(study: Study) -> None:
    ann, ben = study.enrol("ann"), study.enrol("ben")
    issued = []
    for name in ("ann", "ben", "ann"):
        issued.append(study.decide(name))
        study.end(name)
    first = page(study, "/decisions?limit=2")
    rest = page(study, f"/decisions?limit=2&after={first[-1]['rid']}")
    assert [one["participant_id"] for one in first + rest] == [ann, ben, ann]
    for shown, told in zip(first + rest, issued, strict=True):
        same = set(told) & set(shown)
        assert {"rid", "seed", "act_prob", "action", "state", "act_gen_timestamp"} <= same
        assert {name: shown[name] for name in same} == {name: told[name] for name in same}
    assert [one["participant_id"] for one in page(study, f"/decisions?participant_id={ben}")] == [ben]


def test_other_studies_are_out_of_sight(study: Study, new_study: Any) -> None:
    other = new_study()
    stranger = other.enrol("ann")
    other.decide("ann")
    assert page(study, "/participants") == []
    assert page(study, "/decisions") == []
    assert page(study, f"/decisions?participant_id={stranger}") == []
    answer = study.call("GET", f"/participants/{stranger}", role="admin")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error_code"]) == (404, 910)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=-1", "after=x", "unknown=1", "after=9223372036854775808"]
)
@pytest.mark.parametrize("path", ["/participants", "/decisions"])
def test_a_query_that_makes_no_sense_is_refused(study: Study, path: str, query: str) -> None:
    assert study.call("GET", f"{path}?{query}", role="researcher").status_code == 422
