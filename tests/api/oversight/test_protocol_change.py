"""Two persons for a change of the protocol, and one where it only makes the safety envelope tighter."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.study import Study

pytestmark = pytest.mark.usefixtures("two_persons")
WHY = "the safety board asked for it"


@pytest.fixture
def study(study: Study) -> Study:
    """A study with a second admin, `another`, in which decisions exist."""
    second_admin(study).enrol("ann")
    study.live("ann", 2)
    return study


def second_admin(study: Study) -> Study:
    study.admit("another")
    return study


def put(study: Study, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"document": {"protocol": "miwaves", **document}, "reason": WHY, "amendment": True, **more}
    answer = study.call("PUT", "/study/protocol", body, role="admin")
    assert answer.status_code == 202, answer.text
    return dict(answer.get_json())


def approve(study: Study, proposal_id: int, role: str = "another") -> tuple[int, dict[str, Any]]:
    return decide(study, f"/proposals/{proposal_id}/approve", role)


def decide(study: Study, path: str, role: str = "another") -> tuple[int, dict[str, Any]]:
    answer = study.call("POST", path, {"reason": "discussed"}, role=role)
    return answer.status_code, dict(answer.get_json())


def versions(study: Study) -> list[dict[str, Any]]:
    return list(study.call("GET", "/study/protocol/versions", role="admin").get_json()["protocols"])


def acts(study: Study) -> list[dict[str, Any]]:
    """Every act but the first."""
    return list(study.call("GET", "/audit?after=1", role="admin").get_json()["audit"])


@pytest.mark.parametrize(
    "document",
    [
        {"allocation": {"C": 4.0}},
        {"prior": {"sigma_u": 0.02}},
        {"refit": {"min_interval_minutes": 60}},
        {"schedule": {"study_length": 50}},
        {"envelope": {"daily_cap": 1}, "gate": {"mean_bound": 5.0}},
    ],
)
def test_what_changes_randomisation_or_learning_waits_for_another_admin(
    study: Study, document: dict[str, Any]
) -> None:
    told = put(study, document)
    assert (told["state"], told["act"], len(versions(study))) == ("open", "protocol_version", 1)
    assert approve(study, told["proposal_id"], "admin")[1]["error_code"] == 930
    status, proposal = approve(study, told["proposal_id"])
    assert (status, proposal["proposal"]["state"]) == (200, "approved")
    made = versions(study)[-1]
    assert (made["version"], made["in_force"], made["reason"]) == (2, True, WHY)
    propose, approved, change = acts(study)
    assert [one["act"] for one in (propose, approved, change)] == ["propose", "approve", "protocol_version"]
    assert propose["client_id"] != approved["client_id"] == change["client_id"]
    assert propose["after"]["arguments"]["document"] == made["document"]
    assert made["author"] == f"account {propose['client_id']}"
    assert change["after"]["proposed_by"] == propose["client_id"]
    assert change["after"]["hash"] == made["protocol_hash"]


def test_a_tighter_envelope_does_not_wait_and_a_looser_one_does(study: Study) -> None:
    quiet = {"from": 2200, "to": 700}
    for number, envelope in enumerate(
        (
            {"daily_cap": 2},
            {"daily_cap": 1, "quiet_hours": quiet},
            {"daily_cap": 1, "quiet_hours": quiet, "cool_down_hours": 5},
        ),
        start=2,
    ):
        assert put(study, {"envelope": envelope}, amendment=False)["state"] == "approved"
        assert (versions(study)[-1]["version"], versions(study)[-1]["in_force"]) == (number, True)
    assert put(study, {"envelope": {"daily_cap": 2}})["state"] == "open"
    assert len(versions(study)) == 4
    assert {one["client_id"] for one in acts(study)} == {acts(study)[0]["client_id"]}


def test_an_approval_never_undoes_a_version_that_came_meanwhile(study: Study) -> None:
    told = put(study, {"allocation": {"C": 4.0}})
    assert put(study, {"envelope": {"daily_cap": 1}})["state"] == "approved"
    status, refused = approve(study, told["proposal_id"])
    assert (status, refused["error_code"]) == (409, 943)
    again = put(study, {"allocation": {"C": 4.0}, "envelope": {"daily_cap": 1}})
    assert approve(study, again["proposal_id"])[0] == 200
    assert versions(study)[-1]["document"]["envelope"]["daily_cap"] == 1


@pytest.mark.parametrize("same", [True, False], ids=["of one proposal", "of two proposals"])
def test_approvals_at_the_same_time_have_one_effect(study: Study, same: bool) -> None:
    study.admit("third")
    first = put(study, {"allocation": {"C": 4.0}})["proposal_id"]
    second = first if same else put(study, {"allocation": {"C": 6.0}})["proposal_id"]
    calls = [(first, "another"), (second, "third"), (first, "third"), (second, "another")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda call: approve(study, *call), calls))
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409]
    assert {told["error_code"] for status, told in answers if status == 409} <= {931, 943}
    assert [one["version"] for one in versions(study)] == [1, 2]
    assert [one["act"] for one in acts(study)][-2:] == ["approve", "protocol_version"]


def test_an_approval_and_a_rejection_at_the_same_time_agree_on_what_happened(study: Study) -> None:
    number = put(study, {"allocation": {"C": 4.0}})["proposal_id"]
    paths = [f"/proposals/{number}/{verdict}" for verdict in ("approve", "reject")]
    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(paths, pool.map(lambda path: decide(study, path), paths), strict=True))
    assert sorted(status for status, _ in answers.values()) == [200, 409]
    assert len(versions(study)) == (2 if answers[paths[0]][0] == 200 else 1)


def test_nobody_from_another_study_approves_or_rejects(study: Study, new_study: Callable[..., Study]) -> None:
    number = put(study, {"allocation": {"C": 4.0}})["proposal_id"]
    other = second_admin(new_study())
    for role, status in (("another", 404), ("admin", 404), ("researcher", 403), ("client", 403)):
        for verdict in ("approve", "reject"):
            assert decide(other, f"/proposals/{number}/{verdict}", role)[0] == status
    assert len(versions(study)) == 1
    shown = study.call("GET", f"/proposals/{number}", role="researcher").get_json()["proposal"]
    assert shown["state"] == "open"


def test_what_needs_an_amendment_by_the_time_of_the_approval_is_refused_then(
    new_study: Callable[..., Study],
) -> None:
    study = second_admin(new_study())
    told = put(study, {"allocation": {"C": 4.0}}, amendment=False)
    study.enrol("eve")
    study.decide("eve")
    status, refused = approve(study, told["proposal_id"])
    assert (status, refused["error_code"]) == (409, 940)
    assert refused["errors"][0]["field"] == "document.allocation.C"
    assert decide(study, f"/proposals/{told['proposal_id']}/reject")[0] == 200


def test_a_version_waits_for_the_approval_and_for_its_time(study: Study) -> None:
    told = put(study, {"refit": {"nightly_hour": 5}}, effective_at="2199-01-01T00:00:00Z")
    assert approve(study, told["proposal_id"])[0] == 200
    assert [one["in_force"] for one in versions(study)] == [True, False]


def test_the_command_line_proposes_and_approves_too(study: Study, tmp_path: Path) -> None:
    def run(*words: str, account: str = "admin") -> dict[str, Any]:
        named = ("--account", f"{account}@{study.name}", "--reason", WHY)
        return study.service.command(*words, *named)

    file = tmp_path / "next.json"
    file.write_text(json.dumps({"protocol": "miwaves", "envelope": {"daily_cap": 1}}))
    assert run("protocol", "change", study.name, str(file))["state"] == "approved"
    file.write_text(json.dumps({"protocol": "miwaves", "allocation": {"C": 4.0}}))
    told = run("protocol", "change", study.name, str(file), "--amendment")
    assert (told["state"], len(versions(study))) == ("open", 2)
    approved = run("proposal", "approve", study.name, str(told["proposal_id"]), account="another")
    assert approved["proposal"]["state"] == "approved"
    assert versions(study)[-1]["document"]["allocation"]["C"] == 4.0
    assert {one["role"] for one in acts(study)} == {"operator"}
