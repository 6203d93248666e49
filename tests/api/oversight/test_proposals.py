"""Dangerous acts where two admins are needed: proposed by one, done by another; and the command line."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from api.core import auth
from models.core import accounts
from models.core.session import transact
from settings import Settings
from tests.support.study import Study

pytestmark = pytest.mark.usefixtures("two_persons")
WHY = {"reason": "a test"}


@pytest.fixture
def study(study: Study) -> Study:
    """A study with a second admin, `another`."""
    study.admit("another")
    return study


def post(study: Study, path: str, role: str = "admin", body: Any = WHY) -> tuple[int, dict[str, Any]]:
    answer = study.call("POST", path, body, role=role)
    return answer.status_code, dict(answer.get_json())


def proposed(study: Study, path: str = "/study/close", reason: str = "a test") -> int:
    status, told = post(study, path, body={"reason": reason})
    assert (status, told["state"]) == (202, "open")
    assert told["status_url"] == f"/proposals/{told['proposal_id']}"
    return int(told["proposal_id"])


def acts(study: Study) -> list[tuple[str, str]]:
    """Every act but the first, and the account in whose name it was done."""
    found = study.rows(
        "SELECT a.act, c.name FROM audit a JOIN clients c ON c.id = a.client_id WHERE a.study_id = %s"
        " ORDER BY seq",
        study.study_id,
    )
    return [(row["act"], row["name"].partition("@")[0]) for row in found]


def test_an_act_happens_when_another_admin_approves(study: Study) -> None:
    study.enrol("ann")
    number = proposed(study)
    assert study.decide("ann")["decision_index"] == 1
    assert post(study, f"/proposals/{number}/approve")[1]["error_code"] == 930
    status, told = post(study, f"/proposals/{number}/approve", role="another")
    assert (status, told["proposal"]["state"]) == (200, "approved")
    assert study.post_actions("ann", decision_index=2).status_code == 409
    assert acts(study) == [("propose", "admin"), ("approve", "another"), ("close", "another")]
    (act,) = study.call("GET", "/audit?act=close", role="researcher").get_json()["audit"]
    assert (act["reason"], act["after"]["proposal_id"]) == ("a test", number)
    assert act["after"]["proposed_by"] != act["client_id"]


def test_a_new_password_makes_nobody_a_second_person(study: Study) -> None:
    number = proposed(study)
    for _ in range(2):
        study.service.command("client", "password", f"admin@{study.name}")
    (found,) = study.rows("SELECT id FROM clients WHERE name = %s", f"admin@{study.name}")
    account = transact(lambda session: session.get_one(accounts.Client, found["id"]))
    study.tokens["admin"] = auth.token_for(account, datetime.now(UTC))
    assert post(study, f"/proposals/{number}/approve")[1]["error_code"] == 930
    assert post(study, f"/proposals/{number}/approve", role="another")[0] == 200


def test_a_closed_study_reveals_its_key_and_stays_closed(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    assert study.call("GET", "/study").get_json()["study_key"] is None
    post(study, f"/proposals/{proposed(study)}/approve", role="another")
    told = study.call("GET", "/study").get_json()
    assert hashlib.sha256(bytes.fromhex(told["study_key"])).hexdigest() == told["study_key_sha256"]
    assert told["closed_at"] is not None
    assert study.decide("ann") == first
    assert study.end("ann")["decision_index"] == 1
    assert study.post_actions("ann").status_code == 409
    for path in ("/study/resume", "/study/pause", "/study/close", "/policies/0/activate"):
        status, refused = post(study, path)
        assert (path, status, refused["error_code"]) == (path, 409, 932)


def test_a_rejected_or_expired_proposal_never_happens(study: Study) -> None:
    rejected, expired = proposed(study), proposed(study, reason="once more")
    assert post(study, f"/proposals/{rejected}/reject")[1]["proposal"]["state"] == "rejected"
    study.tamper("UPDATE proposals SET expires_at = now() WHERE id = %s", expired)
    for number in (rejected, expired):
        for verdict in ("approve", "reject"):
            status, told = post(study, f"/proposals/{number}/{verdict}", role="another")
            assert (status, told["error_code"]) == (409, 931)
    listed = study.call("GET", "/proposals", role="researcher").get_json()["proposals"]
    assert [(one["proposal_id"], one["state"]) for one in listed] == [
        (rejected, "rejected"),
        (expired, "expired"),
    ]
    assert study.call("GET", "/study").get_json()["closed_at"] is None
    assert acts(study) == [("propose", "admin"), ("propose", "admin"), ("reject", "admin")]


def test_what_has_become_impossible_is_refused_when_it_is_approved(study: Study) -> None:
    ann = study.enrol("ann")
    first, second = proposed(study), proposed(study, reason="once more")
    post(study, f"/proposals/{first}/approve", role="another")
    assert post(study, f"/proposals/{second}/approve", role="another")[1]["error_code"] == 932
    path = f"/participants/{ann}/remove_from_learning"
    one, two = (proposed(study, path, reason) for reason in ("a test", "once more"))
    post(study, f"/proposals/{one}/approve", role="another")
    assert post(study, f"/proposals/{two}/approve", role="another")[1]["error_code"] == 934


def test_a_proposal_that_is_sent_again_is_the_same_until_it_is_decided(study: Study) -> None:
    ann, bob = study.enrol("ann"), study.enrol("bob")
    first = proposed(study)
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda _: proposed(study), range(6))) == {first}
    assert acts(study) == [("propose", "admin")]
    other = proposed(study, reason="for another reason")
    removals = [proposed(study, f"/participants/{one}/remove_from_learning") for one in (ann, bob, ann)]
    another = post(study, "/study/close", role="another")[1]["proposal_id"]
    assert len({first, other, another, *removals}) == 5
    assert removals[0] == removals[2]
    post(study, f"/proposals/{first}/reject")
    again = proposed(study)
    assert again > another
    study.tamper("UPDATE proposals SET expires_at = now() WHERE id = %s", again)
    assert proposed(study) > again


def test_proposals_that_are_sent_together_are_one(study: Study) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(lambda _: proposed(study, "/policies/0/activate"), range(6)))) == 1
    assert acts(study) == [("propose", "admin")]


def test_going_back_and_removing_data_need_two_as_well(study: Study) -> None:
    ann = study.enrol("ann")
    for path in ("/policies/0/activate", f"/participants/{ann}/remove_from_learning"):
        number = proposed(study, path)
        assert post(study, f"/proposals/{number}/approve")[0] == 409
        shown = study.call("GET", f"/proposals/{number}", role="researcher").get_json()["proposal"]
        assert shown["state"] == "open"
        assert post(study, f"/proposals/{number}/approve", role="another")[0] == 200
    assert study.call("GET", "/study").get_json()["learning_frozen"] is True


def test_pausing_freezing_and_withdrawing_need_one(study: Study) -> None:
    ann = study.enrol("ann")
    for path in ("/study/pause", "/study/freeze_learning", f"/participants/{ann}/withdraw"):
        assert post(study, path)[0] == 200


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "more": 1}])
def test_every_act_needs_a_reason_and_nothing_else(study: Study, body: dict[str, Any]) -> None:
    number = proposed(study)
    for path in ("/study/close", f"/proposals/{number}/approve", f"/proposals/{number}/reject"):
        assert post(study, path, body=body)[0] == 422


def test_the_rule_follows_the_mode_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {}
    for mode in ("production", "embedded"):
        for value in (None, "true", "false"):
            monkeypatch.delenv("KAIROS_TWO_PERSON", raising=False)
            if value is not None:
                monkeypatch.setenv("KAIROS_TWO_PERSON", value)
            told = Settings(mode="embedded").model_copy(update={"mode": mode})
            rules[mode, value] = told.needs_two_persons
    assert rules == {
        ("production", None): True,
        ("production", "true"): True,
        ("production", "false"): False,
        ("embedded", None): False,
        ("embedded", "true"): True,
        ("embedded", "false"): False,
    }


def command(study: Study, *words: str, account: str = "admin", reason: str = "a test") -> Any:
    named = ["--account", f"{account}@{study.name}", "--reason", reason]
    return study.service.app.test_cli_runner().invoke(args=[*words, *named])


def told(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def test_everything_can_be_done_at_the_command_line(study: Study) -> None:
    ann, name = study.enrol("ann"), study.name
    assert told(command(study, "study", "pause", name))["paused"] is True
    assert told(command(study, "study", "resume", name))["paused"] is False
    assert told(command(study, "study", "freeze-learning", name))["learning_frozen"] is True
    assert told(command(study, "study", "resume-learning", name))["refit_job_id"] > 0
    assert told(command(study, "study", "withdraw", name, str(ann)))["phase"] == "WITHDRAWN"
    removal = told(command(study, "study", "remove-from-learning", name, str(ann)))
    pinned = told(command(study, "study", "activate-policy", name, "0"))
    closed = told(command(study, "study", "close", name))
    assert {one["state"] for one in (removal, pinned, closed)} == {"open"}
    alone = command(study, "proposal", "approve", name, str(closed["proposal_id"]))
    assert alone.output.strip() == "Error: Another admin than the one who proposed it must approve."
    told(command(study, "proposal", "reject", name, str(pinned["proposal_id"])))
    for one in (removal, closed):
        done = command(study, "proposal", "approve", name, str(one["proposal_id"]), account="another")
        assert told(done)["proposal"]["state"] == "approved"
    listed = json.loads(study.service.app.test_cli_runner().invoke(args=["proposal", "list", name]).output)
    assert [one["state"] for one in listed["proposals"]] == ["approved", "rejected", "approved"]
    rows = study.call("GET", "/audit", role="admin").get_json()["audit"]
    assert {row["role"] for row in rows} == {"operator"}
    assert told_acts(rows) >= {"pause", "resume", "withdraw", "remove_from_learning", "close", "reject"}


def told_acts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["act"] for row in rows}


@pytest.mark.parametrize(
    ("words", "account", "reason", "sentence"),
    [
        (("pause", "none"), "admin", "x", "there is no study 'none'"),
        (("pause", "{}"), "researcher", "x", "of an admin in"),
        (("pause", "{}"), "nobody", "x", "of an admin in"),
        (("pause", "{}"), "admin", "", "must be 1 to 1000 printable characters"),
        (("withdraw", "{}", "0"), "admin", "x", "Nothing of that name or number"),
        (("activate-policy", "{}", "7"), "admin", "x", "Nothing of that name or number"),
    ],
)
def test_failures_are_sentences(
    study: Study, words: tuple[str, ...], account: str, reason: str, sentence: str
) -> None:
    named = (word.format(study.name) for word in words)
    done = command(study, "study", *named, account=account, reason=reason)
    assert sentence in done.output
    assert done.exit_code in {1, 2}
    assert "Traceback" not in done.output
