"""Refits over real rows: what a policy holds, when there is none, and what hyper-parameters do."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from algorithm.trial import learner, protocol
from algorithm.trial.hyperparameters import LEAST_PARTICIPANTS
from algorithm.trial.learning_rows import Points, join
from models.core import jobs
from models.core.jobs import Job
from models.core.session import transact
from models.trial import policies
from tests.support.service import Service
from workers.trial import refit


def play(service: Service, people: int, points: int) -> list[list[dict[str, Any]]]:
    """Everybody decides at every point; the decisions as they were answered, by person."""
    decided: list[list[dict[str, Any]]] = []
    for person in range(people):
        service.enrol(f"p{person}")
        decided.append([])
        for index in range(1, points + 1):
            app_used = (person + index) % 3 == 0
            answers = {"finished_ema": False, "app_use_flag": app_used}
            decided[-1].append(service.decide(f"p{person}", answers, decision_index=index).get_json())
    return decided


def run(service: Service, path: str = "/update_parameters") -> dict[str, Any]:
    """Ask for a refit, run it here, and return the job."""
    job_id = service.call("POST", path, caller="admin").get_json()["job_id"]
    refit.run(job_id)
    job: dict[str, Any] = service.call("GET", f"/jobs/{job_id}").get_json()["job"]
    return job


def test_a_policy_is_the_fit_of_exactly_the_rows_that_exist(service: Service) -> None:
    decided = play(service, people=3, points=5)
    assert run(service)["policy_id"] == 1
    flat = [one for person in decided for one in person]
    points = Points(
        participant=np.repeat(np.arange(3), 5),
        index=np.array([one["decision_index"] for one in flat]),
        states=np.array([one["state"] for one in flat]),
        act_prob=np.array([one["act_prob"] for one in flat]),
        action=np.array([one["action"] for one in flat]),
        reward=np.array([float((person + index) % 3 == 0) for person in range(3) for index in range(1, 6)]),
        randomised=np.ones(15, dtype=bool),
    )
    expected = learner.fit(protocol.load({"protocol": "miwaves"}), join(points, 1), 3)
    stored = transact(lambda session: policies.numbered(session, 1, 1))
    assert stored is not None
    assert stored.row_count == expected.rows == 12
    assert stored.statistics_hash == expected.statistics_hash
    assert np.array_equal(stored.mean, expected.population_mean)
    means, covariances = transact(lambda session: policies.blocks(session, stored, stored.participants))
    assert np.array_equal(means, expected.beta)
    assert np.allclose(covariances, expected.V, rtol=0, atol=1e-15)


def test_without_a_row_the_prior_goes_on_serving(service: Service) -> None:
    play(service, people=2, points=1)
    job = run(service)
    assert (job["state"], job["policy_id"]) == ("done", 0)


def test_without_a_new_row_the_policy_stays(service: Service) -> None:
    play(service, people=2, points=3)
    assert run(service)["policy_id"] == 1
    assert run(service)["policy_id"] == 1


def test_requests_join_the_queued_refit(service: Service) -> None:
    first = service.call("POST", "/update_parameters").get_json()
    assert service.call("POST", "/update_hyperparameters").get_json() == first


def test_a_study_has_one_fit_at_a_time(service: Service) -> None:
    play(service, people=2, points=3)

    def claim(job_id: int) -> Job | None:
        return transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))

    first = service.call("POST", "/update_parameters", caller="admin").get_json()["job_id"]
    claimed = claim(first)
    assert claimed is not None
    second = service.call("POST", "/update_parameters", caller="admin").get_json()["job_id"]
    assert second != first
    refit.run(second)  # which finds that it must wait, and meets no error
    assert claim(second) is None
    transact(lambda session: jobs.finish(session, claimed, datetime.now(UTC)))
    assert claim(second) is not None


def test_few_participants_keep_the_hyperparameters_and_say_why(service: Service) -> None:
    play(service, people=2, points=3)
    assert run(service, "/update_hyperparameters")["policy_id"] == 1
    shown = service.call("GET", "/policies/1", caller="researcher").get_json()["policy"]
    assert shown["noise_variance"] == 0.85
    assert shown["report"]["hyperparameters"]["accepted"] is False


def test_enough_participants_move_the_hyperparameters(service: Service) -> None:
    play(service, people=LEAST_PARTICIPANTS, points=12)
    run(service, "/update_hyperparameters")
    shown = service.call("GET", "/policies/1", caller="researcher").get_json()["policy"]
    assert shown["noise_variance"] != 0.85
    evidence = shown["report"]["hyperparameters"]["evidence"]
    assert evidence["penalised_after"] > evidence["penalised_before"]


def test_a_fit_beyond_the_gate_is_refused_and_the_policy_stays(bare_service: Service) -> None:
    bare_service.study("trial", "gate.mean_bound=0.001")
    play(bare_service, people=2, points=3)
    job = run(bare_service)
    assert job["state"] == "failed"
    assert "beyond" in job["reason"]
    assert bare_service.call("GET", "/study", caller="researcher").get_json()["policy_id"] == 0
