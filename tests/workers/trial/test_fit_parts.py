"""Fits in parts, by several real processes, some of which are killed: the policy is that of one process."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from algorithm.trial import learner, protocol
from algorithm.trial.hyperparameters import hyperparameters_of
from algorithm.trial.learner import Fit
from benchmarks.crowd import settle
from local.stack import python
from local.state import CLONE
from models.core import pg_arrays
from models.core.session import transact
from models.trial import policies, sufficient_statistics
from models.trial.policies import Policy
from services.trial import protocols
from settings import settings
from tests.support.service import Service
from tests.support.study import Study, begin
from workers.core.celery_app import app, send
from workers.trial import fit_parts, refit
from workers.trial.sufficient_statistics import source

STUDY = 1
PEOPLE = 600
EACH = 3  # parts in a pass
WORKER = ("celery", "--app", "workers.app", "worker", "--queues", "fit", "--pool", "solo")
QUIET = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")


@pytest.fixture
def crowded(service: Service, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of more people than a part of a fit holds."""
    monkeypatch.setenv("KAIROS_FIT_PART", "256")
    settings.cache_clear()
    study = begin(service, "refit.min_interval_minutes=0", "hyperparameters.subsample=100", name="trial")
    transact(lambda session: settle(session.connection(), "trial", PEOPLE, 4))
    return study


@contextmanager
def helper(*command: str, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker that does parts and nothing else, or another one, at the broker that this process sends to."""
    env = {**os.environ, "BROKER_URL": app.conf.broker_url, **more}
    words = python((*(command or WORKER), *QUIET))
    with subprocess.Popen(words, cwd=CLONE, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def asked(study: Study, path: str = "/update_parameters", role: str = "client") -> int:
    """A refit that is asked for, by its job."""
    return int(study.call("POST", path, role=role).get_json()["job_id"])


def fitted(study: Study, job_id: int) -> Policy:
    """The policy that the job ended with; nothing else is left of it."""
    job = study.job(job_id)
    assert job["state"] == "done", job
    policy = transact(lambda session: policies.numbered(session, STUDY, job["policy_id"]))
    assert policy is not None
    assert policy.policy_id == 1
    assert transact(lambda session: session.scalar(text("SELECT count(*) FROM fit_parts"))) == 0
    return policy


def of_one_process(hyperparameters: bool = False) -> Fit:
    """The fit of the same statistics by the learner alone."""

    def read(session: Session) -> tuple[protocol.Protocol, sufficient_statistics.Kept]:
        return protocols.in_force(session, STUDY), sufficient_statistics.kept(
            session, STUDY, "miwaves-1", 2**62
        )

    made, kept = transact(read)
    used = hyperparameters_of(made, source(kept)).hyperparameters if hyperparameters else None
    return learner.fit_statistics(made, source(kept), used)


def assert_same(policy: Policy, expected: Fit) -> None:
    """To the last bit."""
    assert policy.row_count == expected.rows == PEOPLE * 3
    assert policy.statistics_hash == expected.statistics_hash
    assert policy.report["log_evidence"] == expected.log_evidence
    assert np.array_equal(policy.mean, expected.population_mean)
    assert np.array_equal(policy.covariance, expected.population_covariance.ravel())
    assert np.array_equal(policy.sigma_u, expected.sigma_u.ravel())
    means, covariances = transact(lambda session: policies.blocks(session, policy, policy.participants))
    assert np.array_equal(means, expected.beta)
    assert np.array_equal(pg_arrays.pack(covariances), pg_arrays.pack(expected.V))


def test_one_worker_does_all_parts_and_hyperparameters_too(crowded: Study) -> None:
    job_id = asked(crowded, "/update_hyperparameters")
    refit.run(job_id)
    policy, expected = fitted(crowded, job_id), of_one_process(hyperparameters=True)
    assert policy.report["parts"] == {"count": 2 * EACH, "processes": 1}
    assert policy.report["hyperparameters"]["evidence"]["participants"] == 100
    assert_same(policy, expected)
    before = transact(lambda session: policies.slim(session, STUDY, 0))
    prior = transact(lambda session: policies.blocks(session, before, policy.participants))
    made = protocol.load({"protocol": "miwaves"})
    change = learner.largest_change(prior, (expected.beta, expected.V), made)
    assert policy.report["largest_change"] == pytest.approx(change, rel=1e-12)


def test_a_study_of_one_part_pays_nothing(crowded: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAIROS_FIT_PART", "768")
    settings.cache_clear()
    monkeypatch.setattr(fit_parts, "fit", lambda *_: pytest.fail("in parts"))
    job_id = asked(crowded)
    refit.run(job_id)
    policy = fitted(crowded, job_id)
    assert "parts" not in policy.report
    assert_same(policy, of_one_process())


def test_without_a_broker_it_is_tried_once_in_each_pass_and_the_fit_is_the_same(
    crowded: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[bool]()

    def send_nowhere(kind: str, part_id: int) -> bool:
        sent.append(send(kind, part_id))
        return sent[-1]

    monkeypatch.setattr(app, "send_task", _away)
    monkeypatch.setattr(fit_parts, "send", send_nowhere)
    job_id = asked(crowded)
    refit.run(job_id)
    assert sent == [False, False]
    assert_same(fitted(crowded, job_id), of_one_process())


def test_several_processes_do_the_parts(crowded: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_parts, "PATIENCE", 20.0)
    take = fit_parts.take  # the last part of each step is left to the others
    monkeypatch.setattr(fit_parts, "take", lambda part_id: part_id % EACH != 0 and take(part_id))
    job_id = asked(crowded)
    with helper(), helper():
        refit.run(job_id)
    policy = fitted(crowded, job_id)
    assert policy.report["parts"]["count"] == 2 * EACH
    assert policy.report["parts"]["processes"] in {2, 3}
    assert_same(policy, of_one_process())


def test_a_part_whose_holder_hangs_is_done_without_it(
    crowded: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_parts, "PATIENCE", 0.1)
    monkeypatch.setattr(fit_parts, "take", lambda part_id: False)
    job_id = asked(crowded)
    refit.run(job_id)
    assert_same(fitted(crowded, job_id), of_one_process())


def _away(*_: Any, **__: Any) -> NoReturn:
    raise ConnectionRefusedError
