"""The stored statistics are what their rows give, to the last bit, whatever happened to them."""

from datetime import UTC, datetime
from typing import Any, NoReturn

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from algorithm.trial import learner, protocol
from algorithm.trial.learning_rows import Rows
from models.core import jobs, studies
from models.core.session import transact
from models.trial import learning_rows, policies, protocols, sufficient_statistics
from models.trial.policies import Policy
from tests.support.study import Study
from workers.oversight import statistics_check
from workers.trial import refit

STUDY = 1


def play(study: Study, people: int, points: int) -> None:
    """Everybody goes on for some decision points."""
    for person in range(people):
        study.enrol(f"p{person}")
        for _ in range(points):
            study.decide(f"p{person}", app_use_flag=person % 2 == 0)
            study.end(f"p{person}")


def fit(study: Study) -> Policy:
    """Ask for a fit and run it; the policy."""
    job_id = study.call("POST", "/update_parameters", role="admin").get_json()["job_id"]
    refit.run(job_id)
    job = study.job(job_id)
    assert job["state"] == "done", job
    policy = transact(lambda session: policies.numbered(session, STUDY, job["policy_id"]))
    assert policy is not None
    return policy


def from_all_rows() -> learner.Fit:
    """The fit of all rows that there are, from the rows themselves."""

    def read(session: Session) -> tuple[protocol.Protocol, learning_rows.Rows]:
        study = studies.by_id(session, STUDY)
        made = protocol.load(protocols.in_force(session, study).document)
        everybody = list(session.scalars(text("SELECT id FROM participants")))
        features = made.design.feature_version
        return made, learning_rows.snapshot(session, STUDY, study.row_seq, everybody, features)

    made, found = transact(read)
    learning = Rows(found.codes, found.states, found.act_prob, found.action, found.outcome)
    return learner.fit(made, learning, len(found.participants))


def test_policies_made_step_by_step_equal_one_made_of_all_rows(only_study: Study) -> None:
    for people, points in ((2, 3), (4, 1), (3, 2)):
        play(only_study, people, points)
        policy = fit(only_study)
        expected = from_all_rows()
        assert policy.row_count == expected.rows
        assert policy.statistics_hash == expected.statistics_hash
        np.testing.assert_allclose(policy.mean, expected.population_mean, rtol=1e-12, atol=1e-13)
        served, covariances = transact(_serving)
        np.testing.assert_allclose(served, expected.beta, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(covariances, expected.V, rtol=1e-12, atol=1e-13)


def _serving(session: Session) -> tuple[Any, Any]:
    policy = policies.numbered(session, STUDY, studies.by_id(session, STUDY).policy_id)
    assert policy is not None
    return policies.blocks(session, policy, policy.participants)


def kept() -> sufficient_statistics.Kept:
    return transact(lambda session: sufficient_statistics.kept(session, STUDY, "miwaves-1", 2**62))


def test_a_second_fit_reads_the_rows_of_nobody_who_has_no_new_ones(only_study: Study) -> None:
    play(only_study, people=3, points=3)
    fit(only_study)
    play(only_study, people=1, points=1)

    def changed(session: Session) -> list[int]:
        study = studies.locked(session, STUDY)
        row_seq = learning_rows.collect(session, study, 1, "miwaves-1")
        return sufficient_statistics.changed(session, STUDY, "miwaves-1", row_seq)

    assert transact(changed) == [1]


def test_a_rebuild_gives_the_same_to_the_last_bit(only_study: Study) -> None:
    play(only_study, people=3, points=4)
    before = fit(only_study)
    stored = kept()
    assert transact(lambda session: sufficient_statistics.forget(session, STUDY)) == 3
    play(only_study, people=1, points=1)
    fit(only_study)
    again = kept()
    for mine, yours in zip(stored.take(slice(1, None)), again.take(slice(1, None)), strict=True):
        assert np.array_equal(mine, yours)
    assert before.row_count == 9


def test_whoever_has_rows_and_no_statistics_is_looked_at_again(only_study: Study) -> None:
    play(only_study, people=3, points=4)
    fit(only_study)
    transact(lambda session: session.execute(text("DELETE FROM statistics WHERE participant_id = 2")))
    play(only_study, people=1, points=1)
    assert fit(only_study).statistics_hash == from_all_rows().statistics_hash


DAMAGES = ["c = c + 1e-12", *(f"{one} = {one} + 1" for one in ("row_count", "row_index", "row_seq"))]


@pytest.mark.parametrize("damage", [*DAMAGES, "row_seq = row_seq - 1"])
def test_the_nightly_comparison_finds_one_wrong_number(only_study: Study, damage: str) -> None:
    play(only_study, people=3, points=4)
    fit(only_study)
    statistics_check.compare(transact(studies.by_id, STUDY), datetime.now(UTC))
    assert len(kept().participants) == 3
    spoil(damage)
    statistics_check.compare(transact(studies.by_id, STUDY), datetime.now(UTC))
    assert len(kept().participants) == 0
    assert fit(only_study).statistics_hash == from_all_rows().statistics_hash


def spoil(damage: str) -> None:
    statement = text(f"UPDATE statistics SET {damage} WHERE participant_id = 2")
    transact(lambda session: session.execute(statement))


def learnt_wrongly(study: Study) -> Policy:
    """A policy of statistics that somebody altered, which the comparison has found since."""
    play(study, people=3, points=4)
    fit(study)
    spoil("row_count = row_count + 7")
    play(study, people=1, points=1)
    wrong = fit(study)
    assert wrong.statistics_hash != from_all_rows().statistics_hash
    statistics_check.compare(transact(studies.by_id, STUDY), datetime.now(UTC))
    return wrong


def test_a_policy_of_wrong_statistics_is_replaced_once_without_a_new_row(only_study: Study) -> None:
    wrong = learnt_wrongly(only_study)
    asked = transact(lambda session: jobs.queued_refit(session, STUDY))
    assert asked is not None
    refit.run(asked.id)
    policy = fit(only_study)
    assert policy.policy_id == wrong.policy_id + 1
    assert policy.statistics_hash == from_all_rows().statistics_hash


def test_a_policy_of_wrong_statistics_is_replaced_though_the_first_fit_comes_to_nothing(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = learnt_wrongly(only_study)
    job_id = only_study.call("POST", "/update_parameters").get_json()["job_id"]
    with monkeypatch.context() as patch:
        patch.setattr(learner, "gate", refused)
        refit.run(job_id)
    assert only_study.job(job_id)["state"] == "failed"
    assert len(kept().participants) == 3
    policy = fit(only_study)
    assert policy.policy_id == wrong.policy_id + 1
    assert policy.statistics_hash == from_all_rows().statistics_hash


def refused(*_: Any) -> NoReturn:
    raise learner.Refused("a test")


def test_blocks_of_policies_that_never_served_are_pruned(only_study: Study) -> None:
    play(only_study, people=2, points=2)
    for _ in range(4):
        fit(only_study)
        play(only_study, people=1, points=1)  # a decision under each of them
    for _ in range(3):
        play(only_study, people=2, points=1)
        fit(only_study)
    left = transact(lambda session: policies.prune(session, STUDY))
    numbers = transact(
        lambda session: list(session.scalars(text("SELECT DISTINCT policy_id FROM policy_blocks ORDER BY 1")))
    )
    served = transact(lambda session: set(session.scalars(text("SELECT policy_id FROM decisions"))))
    assert left == 0 or set(numbers) <= served | {7, 6}
    assert {6, 7} <= set(numbers)
