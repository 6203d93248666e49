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
from tests.support.study import Study, begin
from workers.trial import refit


def play(study: Study, people: int, points: int) -> list[list[dict[str, Any]]]:
    """Everybody decides at every point; the decisions as they were answered, by person."""
    decided: list[list[dict[str, Any]]] = []
    for person in range(people):
        study.enrol(f"p{person}")
        decided.append([])
        for index in range(1, points + 1):
            app_used = (person + index) % 3 == 0
            answers = {"finished_ema": False, "app_use_flag": app_used}
            decided[-1].append(study.decide(f"p{person}", **answers, decision_index=index))
    return decided


def run(study: Study, path: str = "/update_parameters") -> dict[str, Any]:
    """Ask for a refit, run it here, and return the job."""
    job_id = study.call("POST", path, role="admin").get_json()["job_id"]
    refit.run(job_id)
    return study.job(job_id)


def test_a_policy_is_the_fit_of_exactly_the_rows_that_exist(only_study: Study) -> None:
    decided = play(only_study, people=3, points=5)
    assert run(only_study)["policy_id"] == 1
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


def test_without_a_row_the_prior_goes_on_serving(only_study: Study) -> None:
    play(only_study, people=2, points=1)
    job = run(only_study)
    assert (job["state"], job["policy_id"]) == ("done", 0)


def test_without_a_new_row_the_policy_stays(only_study: Study) -> None:
    play(only_study, people=2, points=3)
    assert run(only_study)["policy_id"] == 1
    assert run(only_study)["policy_id"] == 1


def test_requests_join_the_queued_refit(only_study: Study) -> None:
    first = only_study.call("POST", "/update_parameters").get_json()
    assert only_study.call("POST", "/update_hyperparameters").get_json() == first


def test_a_study_has_one_fit_at_a_time(only_study: Study) -> None:
    play(only_study, people=2, points=3)

    def claim(job_id: int) -> Job | None:
        return transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))

    first = only_study.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    claimed = claim(first)
    assert claimed is not None
    second = only_study.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    assert second != first
    refit.run(second)  # which finds that it must wait, and meets no error
    assert claim(second) is None
    transact(lambda session: jobs.finish(session, claimed, datetime.now(UTC)))
    assert claim(second) is not None


def test_few_participants_keep_the_hyperparameters_and_say_why(only_study: Study) -> None:
    play(only_study, people=2, points=3)
    assert run(only_study, "/update_hyperparameters")["policy_id"] == 1
    shown = only_study.call("GET", "/policies/1", role="researcher").get_json()["policy"]
    assert shown["noise_variance"] == 0.85
    assert shown["report"]["hyperparameters"]["accepted"] is False


def test_enough_participants_move_the_hyperparameters(only_study: Study) -> None:
    play(only_study, people=LEAST_PARTICIPANTS, points=12)
    run(only_study, "/update_hyperparameters")
    shown = only_study.call("GET", "/policies/1", role="researcher").get_json()["policy"]
    assert shown["noise_variance"] != 0.85
    evidence = shown["report"]["hyperparameters"]["evidence"]
    assert evidence["penalised_after"] > evidence["penalised_before"]


def test_a_fit_beyond_the_gate_is_refused_and_the_policy_stays(service: Service) -> None:
    study = begin(service, "gate.mean_bound=0.001")
    play(study, people=2, points=3)
    job = run(study)
    assert job["state"] == "failed"
    assert "beyond" in job["reason"]
    assert study.call("GET", "/study", role="researcher").get_json()["policy_id"] == 0
