"""PostgreSQL's disk is full: what was not stored was not answered, and the same call succeeds afterwards."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from local.os_user import server_account
from tests.support.backend import BackEnd, serving
from tests.support.study import Study, cursor
from workers.trial import ingest

FULL = """
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$
"""
DOES = "FOR EACH ROW EXECUTE FUNCTION no_space()"
WHEN = {
    "at the statement": f"CREATE TRIGGER no_space BEFORE INSERT ON {{}} {DOES}",
    "at its commit": (
        f"CREATE CONSTRAINT TRIGGER no_space AFTER INSERT ON {{}} DEFERRABLE INITIALLY DEFERRED {DOES}"
    ),
}


@contextmanager
def full(study: Study, table: str, when: str = "at the statement") -> Iterator[None]:
    """Rows of a table find no space, with the error that PostgreSQL gives then (53100)."""
    with cursor(study.database_url) as found:
        found.execute(FULL)
        found.execute(WHEN[when].format(table))
    try:
        yield
    finally:
        with cursor(study.database_url) as found:
            found.execute("DROP FUNCTION no_space CASCADE")


def stored(study: Study) -> list[tuple[int, str, int]]:
    found = study.rows(
        "SELECT p.decision_index, p.phase, count(d.id) AS decisions FROM participants p LEFT JOIN decisions d"
        " ON d.participant_id = p.id WHERE p.study_id = %s GROUP BY p.id ORDER BY p.id",
        study.study_id,
    )
    return [(row["decision_index"], row["phase"], row["decisions"]) for row in found]


@pytest.mark.parametrize("when", WHEN)
def test_a_decision_that_finds_no_space_is_not_made_and_can_be_asked_for_again(
    study: Study, when: str
) -> None:
    study.enrol("ann")
    with full(study, "decisions", when):
        for _ in range(2):
            answer = study.post_actions("ann", decision_index=1)
            assert (answer.status_code, answer.get_json()["error_code"]) == (503, 907)
            assert "Retry-After" in answer.headers
        assert stored(study) == [(0, "REGISTERED", 0)]
        assert study.call("GET", "/study", role="researcher").status_code == 200  # reading goes on
    assert study.decide("ann", decision_index=1)["decision_index"] == 1
    assert stored(study) == [(0, "STARTED", 1)]


@pytest.mark.parametrize("when", WHEN)
def test_an_end_that_finds_no_space_leaves_its_window_open(study: Study, when: str) -> None:
    study.enrol("ann")
    study.decide("ann")
    with full(study, "windows", when):
        assert study.post_end("ann").status_code == 503
        assert stored(study) == [(0, "STARTED", 1)]
    assert study.end("ann")["decision_index"] == 1


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    with serving() as served:
        yield served


def test_an_ingest_that_finds_no_space_is_done_later(new_study: object, back_end: BackEnd) -> None:
    study: Study = new_study(ema_url=back_end.url)  # type: ignore[operator]
    study.enrol("ann")
    decided = study.decide("ann")
    issued = ("seed", "act_prob", "policy_id", "decision_index", "rid", "act_gen_timestamp")
    item = {name: decided[name] for name in issued} | {"action_taken": decided["action"]}
    back_end.has(item | {"user_id": "ann", "finished_ema": False, "app_use_flag": True})
    job_id = study.end("ann")["job_id"]
    with full(study, "answers"):
        ingest.run(job_id)
    (job,) = study.rows("SELECT state, tries FROM jobs WHERE id = %s", job_id)
    assert (job["state"], job["tries"]) == ("queued", 0)  # given back: the sweep sends it again
    ingest.run(job_id)
    (job,) = study.rows("SELECT state FROM jobs WHERE id = %s", job_id)
    (answers,) = study.rows("SELECT count(*) AS n FROM answers WHERE study_id = %s", study.study_id)
    assert (job["state"], answers["n"]) == ("done", 1)


@pytest.fixture
def disk(study: Study, passable: Path) -> Iterator[Path]:
    """A disk of a megabyte for the table of decisions, where this machine lets us mount one."""
    account, folder = server_account(), Path(tempfile.mkdtemp(prefix="disk-", dir=passable))
    if account is None:
        pytest.skip("only root can mount a disk")
    options = f"size=1m,mode=0700,uid={account.uid},gid={account.gid}"
    with ExitStack() as stack:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this machine lets nobody mount a disk")
        stack.callback(lambda: subprocess.run(["umount", folder], check=True))
        study.tamper(f"CREATE TABLESPACE small LOCATION '{folder}'")
        stack.callback(study.tamper, "DROP TABLESPACE small")
        study.tamper("ALTER TABLE decisions SET TABLESPACE small")
        stack.callback(study.tamper, "ALTER TABLE decisions SET TABLESPACE pg_default")
        yield folder


def test_on_a_disk_that_is_full_every_answer_is_stored_and_every_refused_call_can_be_repeated(
    study: Study, disk: Path
) -> None:
    people = [f"p{number}" for number in range(40)]  # more than fit into the pages that the table has
    for name in people:
        study.enrol(name)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    answers = {name: study.post_actions(name, decision_index=1) for name in people}
    made = {name: answer.get_json() for name, answer in answers.items() if answer.status_code == 200}
    refused = [
        (one.status_code, one.get_json()["error_code"]) for one in answers.values() if one.status_code != 200
    ]
    assert set(refused) == {(503, 907)}
    assert sum(decisions for _, _, decisions in stored(study)) == len(made) == len(people) - len(refused)
    filler.unlink()
    again = {name: study.decide(name, decision_index=1) for name in people}
    assert {name: again[name] for name in made} == made
