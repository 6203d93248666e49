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
from tests.support.study import Study
from workers.core import sweep
from workers.trial import refit

PAUSE = timedelta(minutes=7)
PARAMETERS, HYPERPARAMETERS = "/update_parameters", "/update_hyperparameters"


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """A study whose fits lie seven minutes apart."""
    return new_study("refit.min_interval_minutes=7")


def ask(study: Study, role: str, path: str = PARAMETERS) -> int:
    answer = study.call("POST", path, role=role)
    assert answer.status_code == 202, answer.text
    return int(answer.get_json()["job_id"])


def row(study: Study, job_id: int) -> dict[str, Any]:
    (found,) = study.rows("SELECT * FROM jobs WHERE id = %s", job_id)
    return found


def seen(study: Study, job_id: int) -> dict[str, Any]:
    """The job as the study's back end sees it."""
    return dict(study.job(job_id))


def learn(study: Study, path: str = PARAMETERS) -> dict[str, Any]:
    """A fit that an admin asks for, run here; the job as it is shown."""
    job_id = ask(study, "admin", path)
    refit.run(job_id)
    return seen(study, job_id)


def claim(job_id: int) -> Job | None:
    return transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))


@pytest.mark.parametrize("path", [PARAMETERS, HYPERPARAMETERS])
def test_the_app_waits_for_the_protocols_interval_and_sees_until_when(study: Study, path: str) -> None:
    first = ask(study, "client", path)
    refit.run(first)
    assert row(study, first)["state"] == "done"  # nobody waits for the first one
    waiting = ask(study, "client", path)
    due = row(study, first)["finished_at"] + PAUSE
    assert row(study, waiting)["run_after"] == due
    assert datetime.fromisoformat(seen(study, waiting)["run_after"]) == due
    assert claim(waiting) is None


def test_an_admin_waits_for_nothing(study: Study) -> None:
    assert learn(study)["state"] == "done"
    assert learn(study)["state"] == "done"


def test_what_counts_is_the_role_now_and_not_that_of_the_token(study: Study) -> None:
    learn(study)
    study.service.command("client", "role", f"admin@{study.name}", "client")
    assert claim(ask(study, "admin")) is None


def test_a_fit_that_runs_is_waited_for_too(study: Study) -> None:
    """Or asking during each would keep fits running one after the other."""
    running = claim(ask(study, "client"))
    assert running is not None
    assert running.claimed_at is not None
    waiting = ask(study, "client")
    transact(lambda session: jobs.finish(session, running, datetime.now(UTC)))
    assert row(study, waiting)["run_after"] > running.claimed_at + PAUSE
    assert claim(waiting) is None


def test_a_fit_that_runs_may_end_now_at_the_earliest(study: Study) -> None:
    now = datetime.now(UTC)
    assert claim(ask(study, "client")) is not None
    asked = partial(refits.request, study_id=study.study_id, now=now, hyperparameters=False, pause=PAUSE)
    assert row(study, transact(asked).job_id)["run_after"] == now + PAUSE


def test_who_joins_brings_the_queued_fit_no_further_forward_than_to_their_own_pause(study: Study) -> None:
    learn(study)
    waiting = ask(study, "client")
    due = row(study, waiting)["run_after"]
    study.tamper("UPDATE jobs SET run_after = run_after + interval '1 hour' WHERE id = %s", waiting)
    assert ask(study, "client", HYPERPARAMETERS) == waiting
    assert row(study, waiting)["run_after"] == due
    assert claim(waiting) is None
    assert ask(study, "admin") == waiting
    assert row(study, waiting)["run_after"] < due
    assert claim(waiting) is not None


def test_who_joins_later_puts_nothing_off(study: Study) -> None:
    learn(study)
    waiting = ask(study, "admin")
    due = row(study, waiting)["run_after"]
    assert ask(study, "client") == waiting
    assert (row(study, waiting)["run_after"], row(study, waiting)["requests"]) == (due, 2)


@pytest.mark.parametrize("paths", [(PARAMETERS, HYPERPARAMETERS), (HYPERPARAMETERS, PARAMETERS)])
def test_hyperparameters_are_learnt_whoever_of_two_asked_for_them(
    study: Study, paths: tuple[str, str]
) -> None:
    first, second = (ask(study, "client", path) for path in paths)
    assert first == second
    assert row(study, first)["hyperparameters"] is True


def test_nobody_asked_for_hyperparameters(study: Study) -> None:
    job_id = ask(study, "client")
    assert ask(study, "admin") == job_id
    assert row(study, job_id)["hyperparameters"] is False


def test_who_joins_a_fit_that_failed_leaves_it_its_time(study: Study) -> None:
    running = claim(ask(study, "admin"))
    assert running is not None
    later = datetime.now(UTC) + timedelta(minutes=10)
    transact(partial(jobs.postpone, job=running, run_after=later, code=OWN_FAULT, reason="of a test"))
    for role in ("client", "admin"):
        assert ask(study, role, HYPERPARAMETERS) == running.id
    found = row(study, running.id)
    assert (found["run_after"], found["requests"], found["hyperparameters"]) == (later, 3, True)


def test_a_job_that_makes_no_policy_says_why(study: Study) -> None:
    nothing = learn(study)
    assert (nothing["state"], nothing["policy_id"]) == ("done", 0)
    assert nothing["note"] == "nothing to learn from: no participant has a learning row"
    study.enrol("ann")
    study.live("ann", 3)
    assert (learn(study)["policy_id"], learn(study)["note"]) == (1, "the serving policy contains every row")
    assert study.call("POST", "/study/freeze_learning", {"reason": "a test"}, role="admin").status_code == 200
    assert learn(study)["note"] == "learning is frozen: the policy that serves goes on serving"


def test_a_new_policy_has_nothing_to_say_unless_its_hyperparameters_stay(study: Study) -> None:
    study.enrol("ann")
    study.live("ann", 3)
    first = learn(study)
    assert (first["policy_id"], first["note"]) == (1, None)
    second = learn(study, HYPERPARAMETERS)
    told = "the hyper-parameters stay: needs 10 participants and 100 rows, has 1 and 2"
    assert (second["policy_id"], second["note"], second["reason"]) == (2, told, None)


def test_a_fit_that_another_one_goes_on_with_names_it(study: Study) -> None:
    running = claim(ask(study, "client"))
    assert running is not None
    waiting = ask(study, "client")
    transact(
        partial(jobs.release, job=running, run_after=datetime.now(UTC), code=OWN_FAULT, reason="of a test")
    )
    found = seen(study, running.id)
    assert (found["state"], found["note"]) == ("done", f"job {waiting} goes on with it")


@pytest.mark.parametrize("role", ["client", "admin"])
def test_who_goes_on_with_a_fit_does_so_when_that_one_would_have(study: Study, role: str) -> None:
    """Neither sooner, because an admin asked, nor as late as the app's next fit."""
    running = claim(ask(study, "client"))
    assert running is not None
    waiting = ask(study, role)
    later = datetime.now(UTC) + timedelta(minutes=1)
    transact(partial(jobs.release, job=running, run_after=later, code=OWN_FAULT, reason="of a test"))
    assert row(study, waiting)["run_after"] == later


def test_a_fit_whose_worker_died_is_gone_on_with_at_once(study: Study) -> None:
    assert claim(ask(study, "client")) is not None  # by nobody who holds its lock
    waiting = ask(study, "client")
    sweep.sweep()
    assert claim(waiting) is not None
