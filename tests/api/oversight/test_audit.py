"""The audit of a study: what is noted, by whom, and that tampering behind the service's back is found."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.models.core.test_grants import APPEND_ONLY
from tests.support.study import NOT_FINISHED, Study, cursor

WHY = {"reason": "a test"}


def audit(study: Study, query: str = "") -> list[dict[str, Any]]:
    answer = study.call("GET", f"/audit{query}", role="researcher")
    assert answer.status_code == 200, answer.text
    return list(answer.json["audit"])  # type: ignore[index]


def run(study: Study, *words: str) -> tuple[int, str]:
    done = study.service.app.test_cli_runner().invoke(args=["audit", *words])
    return done.exit_code, done.output


def some_acts(study: Study) -> None:
    """A chain of five rows and more."""
    for path in ("/study/pause", "/study/resume") * 3:
        assert study.call("POST", path, WHY, role="admin").status_code == 200


def test_a_study_begins_with_the_hash_of_its_key(study: Study) -> None:
    (first,) = audit(study)
    told = study.call("GET", "/study").get_json()
    assert (first["seq"], first["act"], first["role"]) == (1, "create_study", "operator")
    assert first["prev_hash"] == first["after"]["study_key_sha256"] == told["study_key_sha256"]
    assert first["after"]["protocol_hash"] == told["protocol_hash"]
    assert first["after"]["name"] == study.name


def test_conduct_is_noted_with_who_why_before_and_after(study: Study) -> None:
    ann = study.enrol("ann")
    study.call("POST", "/study/pause", {"reason": "a fault in the app"}, role="admin")
    study.call("POST", f"/participants/{ann}/withdraw", WHY, role="admin")
    _, pause, withdrawal = audit(study)
    assert (pause["before"], pause["after"]) == ({"paused": False}, {"paused": True})
    assert (pause["act"], pause["reason"], pause["role"]) == ("pause", "a fault in the app", "admin")
    assert (withdrawal["before"], withdrawal["after"]) == ({"phase": "REGISTERED"}, {"phase": "WITHDRAWN"})
    assert withdrawal["participant_id"] == ann
    (who,) = study.rows("SELECT id FROM clients WHERE name = %s", f"admin@{study.name}")
    assert pause["client_id"] == withdrawal["client_id"] == who["id"]


def test_accounts_are_noted(study: Study) -> None:
    name = f"dear@{study.name}"
    study.service.command("client", "create", name, "--study", study.name, "--role", "client")
    study.service.command("client", "role", name, "researcher")
    study.service.command("client", "disable", name)
    study.service.command("client", "disable", name)  # changes nothing
    study.service.command("client", "enable", name)
    study.service.command("client", "password", name)
    body = {"api_user": f"app@{study.name}", "api_pass": "a long password", "study": study.name}
    study.tamper("DELETE FROM clients WHERE study_id = %s AND role = 'client'", study.study_id)
    assert study.service.call("POST", "/auth/register", body).status_code == 201
    found = audit(study)[1:]
    assert [row["act"] for row in found] == [
        "create_account",
        *["change_account"] * 3,
        *("reset_password", "create_account"),
    ]
    assert [row["role"] for row in found] == ["operator"] * 5 + ["client"]
    assert (found[1]["before"]["role"], found[1]["after"]["role"]) == ("client", "researcher")
    assert "dear" not in json.dumps(found)


def test_a_later_body_that_differs_is_noted_and_a_new_decision_is_not(study: Study) -> None:
    ann = study.enrol("ann")
    rid = study.decide("ann")["rid"]
    study.decide("ann")
    assert len(audit(study)) == 1
    for _ in range(2):
        study.decide("ann", app_use_flag=True)
    _, correction = audit(study)
    assert (correction["act"], correction["participant_id"]) == ("correct", ann)
    assert correction["after"] == {"rid": rid, "source": "actions"}


def test_windows_retried_by_hand_are_noted(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 1)
    (window,) = study.rows("SELECT id FROM windows WHERE study_id = %s", study.study_id)
    study.call("POST", f"/windows/{window['id']}/retry", role="admin")
    assert audit(study)[-1]["after"]["window_id"] == window["id"]
    assert [row["act"] for row in audit(study, "?act=retry_window")] == ["retry_window"]


def test_pages_go_on_after_a_number(study: Study) -> None:
    some_acts(study)
    assert [row["seq"] for row in audit(study, "?limit=2&after=3")] == [4, 5]
    head = study.call("GET", "/audit?limit=1", role="admin").get_json()["head"]
    last = audit(study)[-1]
    assert head == {"seq": last["seq"], "hash": last["hash"]}
    _, told = run(study, "head", study.name)
    assert json.loads(told) == {"study": study.name, **head}


def test_an_honest_audit_is_whole(study: Study, new_study: Callable[..., Study], tmp_path: Path) -> None:
    some_acts(study)
    some_acts(new_study())
    code, told = run(study, "verify", study.name)
    assert (code, json.loads(told)["whole"]) == (0, True)
    (tmp_path / "head.json").write_text(run(study, "head", study.name)[1], encoding="utf-8")
    some_acts(study)
    assert run(study, "verify", study.name, "--anchor", str(tmp_path / "head.json"))[0] == 0
    assert study.name in json.loads(run(study, "verify")[1])["heads"]


TAMPERING = {
    "UPDATE audit SET reason = 'another' WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "UPDATE audit SET after = '{\"paused\": 1}' WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "UPDATE audit SET after = NULL WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "UPDATE audit SET client_id = NULL WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "UPDATE audit SET created_at = created_at - interval '1 microsecond' "
    "WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "UPDATE audit SET hash = prev_hash WHERE study_id = %s AND seq = 3": "row 3 was altered",
    "DELETE FROM audit WHERE study_id = %s AND seq = 3": "row 3 is missing",
    "DELETE FROM audit WHERE study_id = %s AND seq IN (3, 4)": "rows 3 to 4 are missing",
    "DELETE FROM audit WHERE study_id = %s": "row 1 is missing",
    "WITH gone AS (DELETE FROM audit WHERE study_id = %s AND seq = 7 RETURNING *) "
    "UPDATE audit a SET reason = g.reason, act = g.act, before = g.before, after = g.after, "
    "created_at = g.created_at FROM gone g WHERE a.study_id = g.study_id AND a.seq = 3": "row 3 was altered",
    "UPDATE studies SET study_key_sha256 = 'x' WHERE id = %s": "row 1 does not follow the study's key",
}


@pytest.mark.parametrize("statement", TAMPERING)
def test_tampering_past_the_triggers_is_found_and_named(study: Study, statement: str) -> None:
    some_acts(study)
    study.tamper(statement, study.study_id)
    code, told = run(study, "verify", study.name)
    assert code == 1
    assert f"{study.name}: {TAMPERING[statement]}" in told


def test_two_rows_that_changed_places_are_found(study: Study) -> None:
    some_acts(study)
    for old, new in ((3, 1003), (4, 3), (1003, 4)):
        study.tamper("UPDATE audit SET seq = %s WHERE study_id = %s AND seq = %s", new, study.study_id, old)
    told = run(study, "verify", study.name)[1]
    assert "row 3 was altered" in told
    assert "row 4 was altered" in told


def test_a_cut_tail_and_a_rewritten_chain_are_found_by_their_anchor(study: Study) -> None:
    some_acts(study)
    head = json.loads(run(study, "head", study.name)[1])
    anchor = f"{head['seq']}:{head['hash']}"
    study.tamper("DELETE FROM audit WHERE study_id = %s AND seq > 4", study.study_id)
    assert run(study, "verify", study.name)[0] == 0
    code, told = run(study, "verify", study.name, "--anchor", anchor)
    assert code == 1
    assert "row 7, the anchor's, is missing: the chain ends at row 4" in told
    some_acts(study)  # the forger goes on until the number is reached
    code, told = run(study, "verify", study.name, "--anchor", anchor)
    assert code == 1
    assert "row 7 has not the anchor's hash" in told
    assert "no row has the anchor's hash" in run(study, "verify", study.name, "--anchor", head["hash"])[1]


def test_failures_are_sentences(study: Study) -> None:
    assert "is no anchor" in run(study, "verify", study.name, "--anchor", "x")[1]
    assert "name it" in run(study, "verify", "--anchor", "ab" * 32)[1]
    assert "there is no study 'none'" in run(study, "verify", "none")[1]


def test_acts_at_once_make_no_fork(study: Study) -> None:
    people = [f"p{number}" for number in range(6)]
    for name in people:
        study.enrol(name)
        study.decide(name)

    def correct(name: str) -> int:
        body = {"user_id": name, **NOT_FINISHED, "app_use_flag": True}
        return study.call("POST", "/actions", body).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(correct, people)) == {200}
    found = audit(study)
    assert [row["seq"] for row in found] == list(range(1, 8))
    assert run(study, "verify", study.name)[0] == 0


def test_other_answers_leave_the_first_ones_and_say_why(study: Study) -> None:
    study.enrol("ann")
    rid = study.decide("ann")["rid"]
    study.decide("ann", app_use_flag=True)
    (first,) = study.rows("SELECT answers FROM decisions WHERE id = %s", rid)
    (later,) = study.rows("SELECT item, version FROM answers WHERE decision_id = %s", rid)
    assert (first["answers"]["app_use_flag"], later["item"]["app_use_flag"]) == (False, True)
    (act,) = [row for row in audit(study) if row["act"] == "correct"]
    assert (act["role"], act["after"]) == ("client", {"rid": rid, "source": "actions"})
    assert act["reason"] == "other answers for a decision point that has its decision"


def test_append_only_tables_refuse_their_owner(study: Study) -> None:
    study.enrol("ann")
    study.decide("ann")
    study.decide("ann", app_use_flag=True)
    with cursor(study.database_url) as found:
        found.execute("SET session_replication_role = origin")
        for table in sorted(APPEND_ONLY):
            for statement in (
                f"UPDATE {table} SET study_id = study_id",
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
            ):
                with pytest.raises(Exception, match="append-only"):
                    found.execute(statement)
        found.execute("SET kairos.migration = 'on'")
        found.execute("UPDATE audit SET study_id = study_id WHERE false")
