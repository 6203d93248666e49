"""Requests for a fit: who waits how long, what they join, and what is told of a fit that makes no policy."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from models.core import jobs
from models.core.jobs import OWN_FAULT, Job
from models.core.session import transact
from models.trial import refits
from tests.support.study import Trial
from workers.core import sweep
from workers.trial import refit

PAUSE = timedelta(minutes=7)
PARAMETERS, HYPERPARAMETERS = "/update_parameters", "/update_hyperparameters"


@pytest.fixture
def trial(new_trial: Callable[..., Trial]) -> Trial:
    """A study whose fits lie seven minutes apart."""
    return new_trial("refit.min_interval_minutes=7")


def ask(trial: Trial, role: str, path: str = PARAMETERS) -> int:
    answer = trial.call("POST", path, role=role)
    assert answer.status_code == 202, answer.text
    return int(answer.get_json()["job_id"])


def row(trial: Trial, job_id: int) -> dict[str, Any]:
    (found,) = trial.rows("SELECT * FROM jobs WHERE id = %s", job_id)
    return found


def seen(trial: Trial, job_id: int) -> dict[str, Any]:
    """The job as the study's back end sees it."""
    return dict(trial.call("GET", f"/jobs/{job_id}").get_json()["job"])


def learn(trial: Trial, path: str = PARAMETERS) -> dict[str, Any]:
    """A fit that an admin asks for, run here; the job as it is shown."""
    job_id = ask(trial, "admin", path)
    refit.run(job_id)
    return seen(trial, job_id)


def claim(job_id: int) -> Job | None:
    return transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))


@pytest.mark.parametrize("path", [PARAMETERS, HYPERPARAMETERS])
def test_the_app_waits_for_the_protocols_interval_and_sees_until_when(trial: Trial, path: str) -> None:
    first = ask(trial, "client", path)
    refit.run(first)
    assert row(trial, first)["state"] == "done"  # nobody waits for the first one
    waiting = ask(trial, "client", path)
    due = row(trial, first)["finished_at"] + PAUSE
    assert row(trial, waiting)["run_after"] == due
    assert datetime.fromisoformat(seen(trial, waiting)["run_after"]) == due
    assert claim(waiting) is None


def test_an_admin_waits_for_nothing(trial: Trial) -> None:
    assert learn(trial)["state"] == "done"
    assert learn(trial)["state"] == "done"


def test_what_counts_is_the_role_now_and_not_that_of_the_token(trial: Trial) -> None:
    learn(trial)
    trial.service.command("client", "role", f"admin@{trial.name}", "client")
    assert claim(ask(trial, "admin")) is None


def test_a_fit_that_runs_is_waited_for_too(trial: Trial) -> None:
    """Or asking during each would keep fits running one after the other."""
    running = claim(ask(trial, "client"))
    assert running is not None
    assert running.claimed_at is not None
    waiting = ask(trial, "client")
    transact(lambda session: jobs.finish(session, running, datetime.now(UTC)))
    assert row(trial, waiting)["run_after"] > running.claimed_at + PAUSE
    assert claim(waiting) is None


def test_a_fit_that_runs_may_end_now_at_the_earliest(trial: Trial) -> None:
    now = datetime.now(UTC)
    assert claim(ask(trial, "client")) is not None
    asked = partial(refits.request, study_id=trial.study_id, now=now, hyperparameters=False, pause=PAUSE)
    assert row(trial, transact(asked).job_id)["run_after"] == now + PAUSE


def test_who_joins_brings_the_queued_fit_no_further_forward_than_to_their_own_pause(trial: Trial) -> None:
    learn(trial)
    waiting = ask(trial, "client")
    due = row(trial, waiting)["run_after"]
    trial.tamper("UPDATE jobs SET run_after = run_after + interval '1 hour' WHERE id = %s", waiting)
    assert ask(trial, "client", HYPERPARAMETERS) == waiting
    assert row(trial, waiting)["run_after"] == due
    assert claim(waiting) is None
    assert ask(trial, "admin") == waiting
    assert row(trial, waiting)["run_after"] < due
    assert claim(waiting) is not None


def test_who_joins_later_puts_nothing_off(trial: Trial) -> None:
    learn(trial)
    waiting = ask(trial, "admin")
    due = row(trial, waiting)["run_after"]
    assert ask(trial, "client") == waiting
    assert (row(trial, waiting)["run_after"], row(trial, waiting)["requests"]) == (due, 2)


@pytest.mark.parametrize("paths", [(PARAMETERS, HYPERPARAMETERS), (HYPERPARAMETERS, PARAMETERS)])
def test_hyperparameters_are_learnt_whoever_of_two_asked_for_them(
    trial: Trial, paths: tuple[str, str]
) -> None:
    first, second = (ask(trial, "client", path) for path in paths)
    assert first == second
    assert row(trial, first)["hyperparameters"] is True


def test_nobody_asked_for_hyperparameters(trial: Trial) -> None:
    job_id = ask(trial, "client")
    assert ask(trial, "admin") == job_id
    assert row(trial, job_id)["hyperparameters"] is False


def test_who_joins_a_fit_that_failed_leaves_it_its_time(trial: Trial) -> None:
    running = claim(ask(trial, "admin"))
    assert running is not None
    later = datetime.now(UTC) + timedelta(minutes=10)
    transact(partial(jobs.postpone, job=running, run_after=later, code=OWN_FAULT, reason="of a test"))
    for role in ("client", "admin"):
        assert ask(trial, role, HYPERPARAMETERS) == running.id
    found = row(trial, running.id)
    assert (found["run_after"], found["requests"], found["hyperparameters"]) == (later, 3, True)


def test_a_job_that_makes_no_policy_says_why(trial: Trial) -> None:
    nothing = learn(trial)
    assert (nothing["state"], nothing["policy_id"]) == ("done", 0)
    assert nothing["note"] == "nothing to learn from: no participant has a learning row"
    trial.enrol("ann")
    trial.live("ann", 3)
    assert (learn(trial)["policy_id"], learn(trial)["note"]) == (1, "the serving policy contains every row")
    assert trial.call("POST", "/study/freeze_learning", {"reason": "a test"}, role="admin").status_code == 200
    assert learn(trial)["note"] == "learning is frozen: the policy that serves goes on serving"


def test_a_new_policy_has_nothing_to_say_unless_its_hyperparameters_stay(trial: Trial) -> None:
    trial.enrol("ann")
    trial.live("ann", 3)
    first = learn(trial)
    assert (first["policy_id"], first["note"]) == (1, None)
    second = learn(trial, HYPERPARAMETERS)
    told = "the hyper-parameters stay: needs 10 participants and 100 rows, has 1 and 2"
    assert (second["policy_id"], second["note"], second["reason"]) == (2, told, None)


def test_a_fit_that_another_one_goes_on_with_names_it(trial: Trial) -> None:
    running = claim(ask(trial, "client"))
    assert running is not None
    waiting = ask(trial, "client")
    transact(
        partial(jobs.release, job=running, run_after=datetime.now(UTC), code=OWN_FAULT, reason="of a test")
    )
    found = seen(trial, running.id)
    assert (found["state"], found["note"]) == ("done", f"job {waiting} goes on with it")


@pytest.mark.parametrize("role", ["client", "admin"])
def test_who_goes_on_with_a_fit_does_so_when_that_one_would_have(trial: Trial, role: str) -> None:
    """Neither sooner, because an admin asked, nor as late as the app's next fit."""
    running = claim(ask(trial, "client"))
    assert running is not None
    waiting = ask(trial, role)
    later = datetime.now(UTC) + timedelta(minutes=1)
    transact(partial(jobs.release, job=running, run_after=later, code=OWN_FAULT, reason="of a test"))
    assert row(trial, waiting)["run_after"] == later


def test_a_fit_whose_worker_died_is_gone_on_with_at_once(trial: Trial) -> None:
    assert claim(ask(trial, "client")) is not None  # by nobody who holds its lock
    waiting = ask(trial, "client")
    sweep.sweep()
    assert claim(waiting) is not None
