"""Conduct of the learning: freezing it, going back to a policy, taking somebody's data out; replayed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from models.core import studies
from models.core.session import transact
from replay.checks import replay
from replay.findings import Report
from tests.support.study import NOT_FINISHED, Study
from workers.oversight.statistics_check import compare
from workers.trial import refit

WHY = {"reason": "a test"}


def ask(study: Study, path: str, role: str = "admin") -> dict[str, Any]:
    answer = study.call("POST", path, WHY, role=role)
    assert answer.status_code in {200, 202}, answer.text
    return dict(answer.get_json())


def fit(study: Study, job_id: int | None = None) -> dict[str, Any]:
    """Refit; the job's row."""
    chosen = job_id or study.call("POST", "/update_parameters").get_json()["job_id"]
    refit.run(chosen)
    (job,) = study.rows("SELECT state, result, reason FROM jobs WHERE id = %s", chosen)
    return job


def live(study: Study, points: int, *people: str) -> None:
    for person in people:
        for point in range(points):
            body = {**NOT_FINISHED, "app_use_flag": (len(person) + point) % 2 == 0}
            study.decide(person, **body)
            study.end(person)


def status(study: Study) -> dict[str, Any]:
    return dict(study.call("GET", "/study").get_json())


def queued_refit(study: Study) -> int:
    (job,) = study.rows(
        "SELECT id FROM jobs WHERE study_id = %s AND kind = 'refit' AND state = 'queued'", study.study_id
    )
    return int(job["id"])


def people_of(study: Study, policy_id: int) -> list[int]:
    query = "SELECT participants FROM policies WHERE study_id = %s AND policy_id = %s"
    return list(study.rows(query, study.study_id, policy_id)[0]["participants"])


def replayed(study: Study, folder: Path) -> Report:
    words = ["export", study.name, str(folder), "--account", f"admin@{study.name}"]
    done = study.service.app.test_cli_runner().invoke(args=words)
    assert done.exit_code == 0, done.output
    return replay(folder)


@pytest.fixture
def learning(new_study: Callable[..., Study]) -> tuple[Study, list[int]]:
    """A study whose policy 1 is learnt from three people."""
    study = new_study("refit.min_interval_minutes=0")
    ids = [study.enrol(name) for name in ("ann", "berta", "cem")]
    live(study, 4, "ann", "berta", "cem")
    assert fit(study)["result"] == {"policy_id": 1}
    return study, ids


def test_while_learning_is_frozen_refits_end_with_a_note(learning: tuple[Study, list[int]]) -> None:
    study, _ = learning
    assert ask(study, "/study/freeze_learning")["learning_frozen"] is True
    live(study, 1, "ann")
    done = fit(study)
    assert (done["state"], done["result"]["policy_id"]) == ("done", 1)
    assert done["result"]["note"].startswith("learning is frozen")
    assert (status(study)["policies"], status(study)["learning_frozen"]) == (2, True)
    resumed = ask(study, "/study/resume_learning")
    assert fit(study, resumed["refit_job_id"])["result"] == {"policy_id": 2}


@pytest.mark.parametrize("act", ["freeze", "activate"])
def test_a_fit_that_was_under_way_changes_nothing(
    learning: tuple[Study, list[int]], act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = learning
    live(study, 1, "ann")
    whole = refit.fit

    def interrupted(*told: Any) -> Any:
        if act == "activate":
            ask(study, "/policies/0/activate")
            ask(study, "/study/resume_learning")
        else:
            ask(study, "/study/freeze_learning")
        return whole(*told)

    monkeypatch.setattr(refit, "fit", interrupted)
    done = fit(study)
    assert ("frozen" if act == "freeze" else "meanwhile") in done["result"]["note"]
    assert status(study)["policies"] == 2
    monkeypatch.undo()
    if act == "activate":
        assert fit(study, queued_refit(study))["result"] == {"policy_id": 2}


def test_going_back_pins_a_policy_until_learning_is_resumed(
    learning: tuple[Study, list[int]], tmp_path: Path
) -> None:
    study, _ = learning
    live(study, 2, "ann", "berta")
    assert fit(study)["result"] == {"policy_id": 2}
    assert ask(study, "/policies/1/activate")["state"] == "approved"
    assert (status(study)["policy_id"], status(study)["learning_frozen"]) == (1, True)
    assert study.decide("ann")["policy_id"] == 1
    assert "frozen" in fit(study)["result"]["note"]
    live(study, 2, "berta")
    resumed = ask(study, "/study/resume_learning")
    assert fit(study, resumed["refit_job_id"])["result"] == {"policy_id": 3}
    (act,) = study.call("GET", "/audit?act=rollback", role="admin").get_json()["audit"]
    assert act["before"] == {"policy_id": 2, "learning_frozen": False}
    assert (act["after"]["policy_id"], act["after"]["learning_frozen"]) == (1, True)
    report = replayed(study, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_a_policy_that_cannot_serve_is_not_activated(learning: tuple[Study, list[int]]) -> None:
    study, _ = learning
    study.tamper("DELETE FROM policy_blocks WHERE study_id = %s", study.study_id)
    answer = study.call("POST", "/policies/1/activate", WHY, role="admin")
    assert (answer.status_code, answer.get_json()["error_code"]) == (409, 933)
    assert study.call("POST", "/policies/9/activate", WHY, role="admin").status_code == 404


def test_data_that_are_removed_leave_the_next_policy_and_no_earlier_one(
    learning: tuple[Study, list[int]], tmp_path: Path
) -> None:
    study, (ann, berta, cem) = learning
    before = study.rows("SELECT * FROM policies WHERE study_id = %s", study.study_id)
    rows = status(study)["rows"]
    assert ask(study, f"/participants/{berta}/remove_from_learning")["state"] == "approved"
    assert fit(study, queued_refit(study))["result"] == {"policy_id": 2}  # without a single new row
    assert people_of(study, 1) == [ann, berta, cem]
    assert people_of(study, 2) == [ann, cem]
    decided = study.decide("berta")
    assert (decided["policy_id"], decided["fallback_level"]) == (2, "F0")
    query = "SELECT mean FROM policy_blocks WHERE study_id = %s AND policy_id = 2 AND participant_id = %s"
    assert study.rows(query, study.study_id, berta) == []
    study.end("berta")
    live(study, 2, "ann", "berta")
    assert fit(study)["result"] == {"policy_id": 3}
    assert people_of(study, 3) == [ann, cem]
    assert status(study)["rows"] == rows - 3 + 2
    (act,) = study.call("GET", "/audit?act=remove_from_learning", role="admin").get_json()["audit"]
    assert act["before"]["policy_id"] == 1
    assert act["after"]["removed_row_seq"] == act["before"]["row_seq"] + 1
    assert act["participant_id"] == berta
    twice = study.call("POST", f"/participants/{berta}/remove_from_learning", WHY, role="admin")
    assert (twice.status_code, twice.get_json()["error_code"]) == (409, 934)
    now = study.rows("SELECT * FROM policies WHERE study_id = %s AND policy_id < 2", study.study_id)
    assert now == before
    report = replayed(study, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_statistics_are_rebuilt_at_will_and_the_policy_with_them(
    learning: tuple[Study, list[int]], tmp_path: Path
) -> None:
    study, _ = learning
    words = ("--account", f"admin@{study.name}", "--reason", "a test")
    told = study.service.command("study", "rebuild-statistics", study.name, *words)
    assert study.rows("SELECT FROM statistics WHERE study_id = %s", study.study_id) == []
    assert fit(study, told["refit_job_id"])["result"] == {"policy_id": 2}  # without a single new row
    assert fit(study)["result"]["policy_id"] == 2
    query = "SELECT DISTINCT statistics_hash, mean FROM policies WHERE study_id = %s AND policy_id > 0"
    assert len(study.rows(query, study.study_id)) == 1
    (act,) = study.call("GET", "/audit?act=rebuild_statistics", role="admin").get_json()["audit"]
    assert (act["role"], act["reason"]) == ("operator", "a test")
    assert act["after"] == {
        "row_seq": act["before"]["row_seq"] + 1,
        "participants": 3,
        "refit_job_id": told["refit_job_id"],
    }
    live(study, 1, "ann")
    assert fit(study)["result"] == {"policy_id": 3}
    report = replayed(study, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_a_removal_that_nobody_noted_diverges(learning: tuple[Study, list[int]], tmp_path: Path) -> None:
    study, (ann, *_) = learning
    study.tamper("UPDATE participants SET removed_row_seq = 9 WHERE id = %s", ann)
    assert "reference" in replayed(study, tmp_path / "out").first


def test_an_audit_that_was_altered_diverges(learning: tuple[Study, list[int]], tmp_path: Path) -> None:
    study, _ = learning
    ask(study, "/study/pause")
    study.tamper("UPDATE audit SET reason = 'x' WHERE study_id = %s AND seq = 2", study.study_id)
    report = replayed(study, tmp_path / "out")
    assert set(report.first) == {"audit"}
    assert report.first["audit"].where.startswith("row 2 was altered")


def test_when_all_data_are_removed_the_prior_serves(
    learning: tuple[Study, list[int]], tmp_path: Path
) -> None:
    study, ids = learning
    for participant_id in ids:
        ask(study, f"/participants/{participant_id}/remove_from_learning")
    done = fit(study, queued_refit(study))
    assert (done["state"], done["result"]["policy_id"]) == ("done", 0)
    assert study.decide("ann")["policy_id"] == 0
    (act,) = study.call("GET", "/audit?act=activate", role="admin").get_json()["audit"]
    assert (act["role"], act["client_id"], act["after"]["policy_id"]) == ("service", None, 0)
    study.enrol("dora")
    live(study, 4, "dora")
    assert fit(study)["result"] == {"policy_id": 2}
    report = replayed(study, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


@pytest.mark.parametrize("rule", ["keep", "remove_from_learning"])
def test_the_protocol_says_what_becomes_of_the_data_of_who_withdraws(
    new_study: Callable[..., Study], rule: str, tmp_path: Path
) -> None:
    study = new_study("refit.min_interval_minutes=0", f"withdrawal.data={rule}")
    ann, ben = study.enrol("ann"), study.enrol("ben")
    live(study, 3, "ann", "ben")
    fit(study)
    ask(study, f"/participants/{ann}/withdraw")
    live(study, 1, "ben")
    fit(study)
    assert people_of(study, 2) == ([ben] if rule == "remove_from_learning" else [ann, ben])
    acts = [row["act"] for row in study.call("GET", "/audit", role="admin").get_json()["audit"]]
    assert acts[1:] == ["withdraw", *(["remove_from_learning"] if rule != "keep" else [])]
    report = replayed(study, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_statistics_are_those_of_the_rows_after_a_removal(learning: tuple[Study, list[int]]) -> None:

    study, (_, berta, _) = learning
    ask(study, f"/participants/{berta}/remove_from_learning")
    fit(study, queued_refit(study))
    count = "SELECT count(*) AS n FROM statistics WHERE study_id = %s"
    before = study.rows(count, study.study_id)
    compare(transact(studies.by_id, study.study_id), datetime.now(UTC))
    assert study.rows(count, study.study_id) == before  # none was thrown away


def test_the_study_is_told_to_be_frozen_in_its_export(
    learning: tuple[Study, list[int]], tmp_path: Path
) -> None:
    study, _ = learning
    ask(study, "/study/freeze_learning")
    assert not replayed(study, tmp_path / "out").first
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert facts["study"]["learning_frozen"] is True
