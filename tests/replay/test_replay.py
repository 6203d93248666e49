"""The replay of a rehearsed trial with corrections, gaps, faults and fallbacks: nothing diverges."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.core import studies
from models.core.session import transact
from replay.__main__ import main
from replay.checks import replay
from replay.format.reading import Unreadable
from replay.format.writing import pack
from tests.replay.conftest import Rehearsed
from workers.oversight import replay_sample

ROOT = Path(__file__).parents[2]


def test_every_decision_of_the_rehearsed_trial_replays(rehearsed: Rehearsed) -> None:
    report = replay(rehearsed.folder, rehearsed.key, rehearsed.manifest_sha256)
    assert not report.first, "\n".join(report.lines())
    decisions = rehearsed.study.rows("SELECT fallback_level FROM decisions")
    assert len(decisions) > 140
    assert {row["fallback_level"] for row in decisions} == {"F0", "F1", "F2", "F3", "F4", "none"}
    assert report.held["seed"] == len(decisions) + 1
    assert report.held["action"] == report.held["reward"] + 1 == len(decisions)
    assert report.notes == []
    assert len(report.faults) == 7


def test_the_rehearsed_trial_has_what_a_replay_must_get_right(rehearsed: Rehearsed) -> None:
    def count(query: str) -> int:
        return int(rehearsed.study.rows(f"SELECT count(*) AS n FROM {query}")[0]["n"])

    assert count("answers WHERE source = 'ema' AND reward IS NOT NULL") > 10
    assert count("answers WHERE source = 'actions'") > 5
    assert count("windows WHERE kind = 'missed'") > 2
    assert count("windows WHERE kind = 'end_missing'") > 2
    assert count("windows WHERE state = 'failed'") > 2
    assert count("learning_rows r JOIN learning_rows s USING (decision_id) WHERE r.row_seq < s.row_seq") > 0
    assert {row["code"] for row in rehearsed.study.rows("SELECT code FROM discrepancies")} >= {
        *(214, 215, 305, 306)
    }
    hyper = "policies WHERE report -> 'hyperparameters' ->> 'accepted' = {}"
    assert (count(hyper.format("'true'")), count(hyper.format("'false'"))) == (1, 1)
    notes = "jobs WHERE kind = 'refit' AND result ->> 'note' LIKE 'learning is frozen%%'"
    assert count(notes) == 2


def test_the_rehearsed_trial_has_every_act_with_decisions_after_it(rehearsed: Rehearsed) -> None:
    """Decided by the policy that a rollback left, by later ones for who was removed, under both versions of
    the protocol, and not at all where a rule or the app forbade it."""
    acts = {row["act"]: row for row in rehearsed.study.rows("SELECT * FROM audit ORDER BY seq")}
    assert {"correct", "withdraw", "remove_from_learning", "freeze_learning", "resume_learning"} <= set(acts)
    assert {"protocol_version", "rollback"} <= set(acts)

    def rules_and_policies(since: str, more: str = "") -> set[tuple[str | None, int | None]]:
        query = "SELECT DISTINCT unavailable_rule, policy_id FROM decisions WHERE act_gen_timestamp > %s"
        rows = rehearsed.study.rows(query + more, acts[since]["created_at"])
        return {(row["unavailable_rule"], row["policy_id"]) for row in rows}

    amended = rules_and_policies("protocol_version", " AND protocol_id > 1")
    assert {rule for rule, _ in amended} == {None, "app", "quiet_hours", "weekly_cap"}
    assert {policy for _, policy in amended} >= {4, 5, 6, 7, None}
    assert (None, 5) in rules_and_policies("rollback")
    gone = acts["remove_from_learning"]["participant_id"]
    since_removed = rules_and_policies("remove_from_learning", f" AND participant_id = {gone}")
    assert {policy for _, policy in since_removed} & {5, 6, 7}
    with_them = "SELECT policy_id FROM policies WHERE %s = ANY(participants) ORDER BY policy_id"
    assert [row["policy_id"] for row in rehearsed.study.rows(with_them, gone)] == [1, 2, 3, 4]


def test_a_zip_and_the_command_say_the_same(
    rehearsed: Rehearsed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(rehearsed.folder, tmp_path / "export.zip")
    assert main([str(tmp_path / "export.zip"), "--sha256", rehearsed.manifest_sha256]) == 0
    told = capsys.readouterr().out
    assert "no divergence" in told
    assert "seeds are not verified" in told


def test_the_command_needs_no_database_and_names_what_diverged(rehearsed: Rehearsed, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(rehearsed.folder, folder)
    text = (folder / "decisions.csv").read_text(encoding="utf-8")
    (folder / "decisions.csv").write_text(text.replace("F0", "F2", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "replay", str(folder), "--key", rehearsed.key.hex()],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "first at decisions.csv line 2" in done.stdout


@pytest.mark.parametrize("kept", [(), ("manifest.json",)], ids=["nothing", "a manifest alone"])
def test_what_is_no_export_is_unreadable(rehearsed: Rehearsed, tmp_path: Path, kept: tuple[str, ...]) -> None:
    for name in kept:
        shutil.copy(rehearsed.folder / name, tmp_path / name)
    with pytest.raises(Unreadable):
        replay(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "none.zip")]) == 2


def test_a_wrong_key_diverges(rehearsed: Rehearsed) -> None:
    report = replay(rehearsed.folder, b"another key")
    assert set(report.first) == {"seed"}


def test_the_nightly_sample_replays_recent_decisions_from_the_database(rehearsed: Rehearsed) -> None:
    study = transact(lambda session: studies.by_id(session, rehearsed.study.study_id))
    report = replay_sample.replay(study, datetime.now(UTC) - timedelta(hours=1))
    assert set(report.first) <= {"fallback", "probability"}  # blocks were spoilt on purpose
    assert report.held["seed"] > 100
