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
from tests.support.service import NOT_FINISHED
from tests.support.study import Trial
from workers.oversight.statistics_check import compare
from workers.trial import refit

WHY = {"reason": "a test"}


def ask(trial: Trial, path: str, role: str = "admin") -> dict[str, Any]:
    answer = trial.call("POST", path, WHY, role=role)
    assert answer.status_code in {200, 202}, answer.text
    return dict(answer.get_json())


def fit(trial: Trial, job_id: int | None = None) -> dict[str, Any]:
    """Refit; the job's row."""
    chosen = job_id or trial.call("POST", "/update_parameters").get_json()["job_id"]
    refit.run(chosen)
    (job,) = trial.rows("SELECT state, result, reason FROM jobs WHERE id = %s", chosen)
    return job


def live(trial: Trial, points: int, *people: str) -> None:
    for person in people:
        for point in range(points):
            body = {**NOT_FINISHED, "app_use_flag": (len(person) + point) % 2 == 0}
            trial.decide(person, **body)
            trial.end(person)


def study(trial: Trial) -> dict[str, Any]:
    return dict(trial.call("GET", "/study").get_json())


def queued_refit(trial: Trial) -> int:
    (job,) = trial.rows(
        "SELECT id FROM jobs WHERE study_id = %s AND kind = 'refit' AND state = 'queued'", trial.study_id
    )
    return int(job["id"])


def people_of(trial: Trial, policy_id: int) -> list[int]:
    query = "SELECT participants FROM policies WHERE study_id = %s AND policy_id = %s"
    return list(trial.rows(query, trial.study_id, policy_id)[0]["participants"])


def replayed(trial: Trial, folder: Path) -> Report:
    words = ["export", trial.name, str(folder), "--account", f"admin@{trial.name}"]
    done = trial.service.app.test_cli_runner().invoke(args=words)
    assert done.exit_code == 0, done.output
    return replay(folder)


@pytest.fixture
def learning(new_trial: Callable[..., Trial]) -> tuple[Trial, list[int]]:
    """A study whose policy 1 is learnt from three people."""
    trial = new_trial("refit.min_interval_minutes=0")
    ids = [trial.enrol(name) for name in ("ann", "berta", "cem")]
    live(trial, 4, "ann", "berta", "cem")
    assert fit(trial)["result"] == {"policy_id": 1}
    return trial, ids


def test_while_learning_is_frozen_refits_end_with_a_note(learning: tuple[Trial, list[int]]) -> None:
    trial, _ = learning
    assert ask(trial, "/study/freeze_learning")["learning_frozen"] is True
    live(trial, 1, "ann")
    done = fit(trial)
    assert (done["state"], done["result"]["policy_id"]) == ("done", 1)
    assert done["result"]["note"].startswith("learning is frozen")
    assert (study(trial)["policies"], study(trial)["learning_frozen"]) == (2, True)
    resumed = ask(trial, "/study/resume_learning")
    assert fit(trial, resumed["refit_job_id"])["result"] == {"policy_id": 2}


@pytest.mark.parametrize("act", ["freeze", "activate"])
def test_a_fit_that_was_under_way_changes_nothing(
    learning: tuple[Trial, list[int]], act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, _ = learning
    live(trial, 1, "ann")
    whole = refit.fit

    def interrupted(*told: Any) -> Any:
        if act == "activate":
            ask(trial, "/policies/0/activate")
            ask(trial, "/study/resume_learning")
        else:
            ask(trial, "/study/freeze_learning")
        return whole(*told)

    monkeypatch.setattr(refit, "fit", interrupted)
    done = fit(trial)
    assert ("frozen" if act == "freeze" else "meanwhile") in done["result"]["note"]
    assert study(trial)["policies"] == 2
    monkeypatch.undo()
    if act == "activate":
        assert fit(trial, queued_refit(trial))["result"] == {"policy_id": 2}


def test_going_back_pins_a_policy_until_learning_is_resumed(
    learning: tuple[Trial, list[int]], tmp_path: Path
) -> None:
    trial, _ = learning
    live(trial, 2, "ann", "berta")
    assert fit(trial)["result"] == {"policy_id": 2}
    assert ask(trial, "/policies/1/activate")["state"] == "approved"
    assert (study(trial)["policy_id"], study(trial)["learning_frozen"]) == (1, True)
    assert trial.decide("ann")["policy_id"] == 1
    assert "frozen" in fit(trial)["result"]["note"]
    live(trial, 2, "berta")
    resumed = ask(trial, "/study/resume_learning")
    assert fit(trial, resumed["refit_job_id"])["result"] == {"policy_id": 3}
    (act,) = trial.call("GET", "/audit?act=rollback", role="admin").get_json()["audit"]
    assert act["before"] == {"policy_id": 2, "learning_frozen": False}
    assert (act["after"]["policy_id"], act["after"]["learning_frozen"]) == (1, True)
    report = replayed(trial, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_a_policy_that_cannot_serve_is_not_activated(learning: tuple[Trial, list[int]]) -> None:
    trial, _ = learning
    trial.tamper("DELETE FROM policy_blocks WHERE study_id = %s", trial.study_id)
    answer = trial.call("POST", "/policies/1/activate", WHY, role="admin")
    assert (answer.status_code, answer.get_json()["error_code"]) == (409, 933)
    assert trial.call("POST", "/policies/9/activate", WHY, role="admin").status_code == 404


def test_data_that_are_removed_leave_the_next_policy_and_no_earlier_one(
    learning: tuple[Trial, list[int]], tmp_path: Path
) -> None:
    trial, (ann, berta, cem) = learning
    before = trial.rows("SELECT * FROM policies WHERE study_id = %s", trial.study_id)
    rows = study(trial)["rows"]
    assert ask(trial, f"/participants/{berta}/remove_from_learning")["state"] == "approved"
    assert fit(trial, queued_refit(trial))["result"] == {"policy_id": 2}  # without a single new row
    assert people_of(trial, 1) == [ann, berta, cem]
    assert people_of(trial, 2) == [ann, cem]
    decided = trial.decide("berta")
    assert (decided["policy_id"], decided["fallback_level"]) == (2, "F0")
    query = "SELECT mean FROM policy_blocks WHERE study_id = %s AND policy_id = 2 AND participant_id = %s"
    assert trial.rows(query, trial.study_id, berta) == []
    trial.end("berta")
    live(trial, 2, "ann", "berta")
    assert fit(trial)["result"] == {"policy_id": 3}
    assert people_of(trial, 3) == [ann, cem]
    assert study(trial)["rows"] == rows - 3 + 2
    (act,) = trial.call("GET", "/audit?act=remove_from_learning", role="admin").get_json()["audit"]
    assert act["before"]["policy_id"] == 1
    assert act["after"]["removed_row_seq"] == act["before"]["row_seq"] + 1
    assert act["participant_id"] == berta
    twice = trial.call("POST", f"/participants/{berta}/remove_from_learning", WHY, role="admin")
    assert (twice.status_code, twice.get_json()["error_code"]) == (409, 934)
    now = trial.rows("SELECT * FROM policies WHERE study_id = %s AND policy_id < 2", trial.study_id)
    assert now == before
    report = replayed(trial, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_statistics_are_rebuilt_at_will_and_the_policy_with_them(
    learning: tuple[Trial, list[int]], tmp_path: Path
) -> None:
    trial, _ = learning
    words = ("--account", f"admin@{trial.name}", "--reason", "a test")
    told = trial.service.command("study", "rebuild-statistics", trial.name, *words)
    assert trial.rows("SELECT FROM statistics WHERE study_id = %s", trial.study_id) == []
    assert fit(trial, told["refit_job_id"])["result"] == {"policy_id": 2}  # without a single new row
    assert fit(trial)["result"]["policy_id"] == 2
    query = "SELECT DISTINCT statistics_hash, mean FROM policies WHERE study_id = %s AND policy_id > 0"
    assert len(trial.rows(query, trial.study_id)) == 1
    (act,) = trial.call("GET", "/audit?act=rebuild_statistics", role="admin").get_json()["audit"]
    assert (act["role"], act["reason"]) == ("operator", "a test")
    assert act["after"] == {
        "row_seq": act["before"]["row_seq"] + 1,
        "participants": 3,
        "refit_job_id": told["refit_job_id"],
    }
    live(trial, 1, "ann")
    assert fit(trial)["result"] == {"policy_id": 3}
    report = replayed(trial, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_a_removal_that_nobody_noted_diverges(learning: tuple[Trial, list[int]], tmp_path: Path) -> None:
    trial, (ann, *_) = learning
    trial.tamper("UPDATE participants SET removed_row_seq = 9 WHERE id = %s", ann)
    assert "reference" in replayed(trial, tmp_path / "out").first


def test_an_audit_that_was_altered_diverges(learning: tuple[Trial, list[int]], tmp_path: Path) -> None:
    trial, _ = learning
    ask(trial, "/study/pause")
    trial.tamper("UPDATE audit SET reason = 'x' WHERE study_id = %s AND seq = 2", trial.study_id)
    report = replayed(trial, tmp_path / "out")
    assert set(report.first) == {"audit"}
    assert report.first["audit"].where.startswith("row 2 was altered")


def test_when_all_data_are_removed_the_prior_serves(
    learning: tuple[Trial, list[int]], tmp_path: Path
) -> None:
    trial, ids = learning
    for participant_id in ids:
        ask(trial, f"/participants/{participant_id}/remove_from_learning")
    done = fit(trial, queued_refit(trial))
    assert (done["state"], done["result"]["policy_id"]) == ("done", 0)
    assert trial.decide("ann")["policy_id"] == 0
    (act,) = trial.call("GET", "/audit?act=activate", role="admin").get_json()["audit"]
    assert (act["role"], act["client_id"], act["after"]["policy_id"]) == ("service", None, 0)
    trial.enrol("dora")
    live(trial, 4, "dora")
    assert fit(trial)["result"] == {"policy_id": 2}
    report = replayed(trial, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


@pytest.mark.parametrize("rule", ["keep", "remove_from_learning"])
def test_the_protocol_says_what_becomes_of_the_data_of_who_withdraws(
    new_trial: Callable[..., Trial], rule: str, tmp_path: Path
) -> None:
    trial = new_trial("refit.min_interval_minutes=0", f"withdrawal.data={rule}")
    ann, ben = trial.enrol("ann"), trial.enrol("ben")
    live(trial, 3, "ann", "ben")
    fit(trial)
    ask(trial, f"/participants/{ann}/withdraw")
    live(trial, 1, "ben")
    fit(trial)
    assert people_of(trial, 2) == ([ben] if rule == "remove_from_learning" else [ann, ben])
    acts = [row["act"] for row in trial.call("GET", "/audit", role="admin").get_json()["audit"]]
    assert acts[1:] == ["withdraw", *(["remove_from_learning"] if rule != "keep" else [])]
    report = replayed(trial, tmp_path / "out")
    assert not report.first, "\n".join(report.lines())


def test_statistics_are_those_of_the_rows_after_a_removal(learning: tuple[Trial, list[int]]) -> None:

    trial, (_, berta, _) = learning
    ask(trial, f"/participants/{berta}/remove_from_learning")
    fit(trial, queued_refit(trial))
    count = "SELECT count(*) AS n FROM statistics WHERE study_id = %s"
    before = trial.rows(count, trial.study_id)
    compare(transact(studies.by_id, trial.study_id), datetime.now(UTC))
    assert trial.rows(count, trial.study_id) == before  # none was thrown away


def test_the_study_is_told_to_be_frozen_in_its_export(
    learning: tuple[Trial, list[int]], tmp_path: Path
) -> None:
    trial, _ = learning
    ask(trial, "/study/freeze_learning")
    assert not replayed(trial, tmp_path / "out").first
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert facts["study"]["learning_frozen"] is True
