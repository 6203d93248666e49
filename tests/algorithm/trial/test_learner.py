"""Policies: what a fit hands over, what may serve, and how much it changes."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from algorithm.trial import ladder, learner
from algorithm.trial.learner import NothingToLearn, Refused
from algorithm.trial.learning_rows import BadRows
from algorithm.trial.posterior import Hyperparameters
from algorithm.trial.protocol import load
from tests.support import made_up_trials

MIWAVES = made_up_trials.MIWAVES
ROWS = made_up_trials.random_rows(np.random.default_rng(0), [10, 0, 40, 1])


def test_the_prior_is_policy_zero() -> None:
    found = learner.prior_policy(MIWAVES)
    learner.gate(found, MIWAVES)
    assert (found.rows, found.participants, len(found.beta)) == (0, 0, 0)
    expected = ladder.prior_block(MIWAVES)
    assert (found.block.mean == expected.mean).all()
    assert (found.block.covariance == expected.covariance).all()


def test_a_fit_hands_over_plain_numbers_and_owned_arrays() -> None:
    found = learner.fit(MIWAVES, ROWS, 4)
    learner.gate(found, MIWAVES)
    plain = {f.name: type(getattr(found, f.name)) for f in fields(found)}
    assert plain["noise_variance"] is plain["log_evidence"] is float
    assert plain["rows"] is plain["participants"] is int
    assert (found.rows, found.participants, found.counts.tolist()) == (51, 3, [10, 0, 40, 1])
    assert (found.beta.shape, found.V.shape) == ((4, 8), (4, 8, 8))
    assert (found.beta[1] == found.block.mean).all()
    assert (found.V.mT == found.V).all()
    assert len(found.statistics_hash) == 64


def test_what_is_learnt_from_has_a_hash() -> None:
    again = learner.fit(MIWAVES, ROWS, 4)
    other = replace(ROWS, reward=np.where(np.arange(51) == 20, ROWS.reward + 1e-12, ROWS.reward))
    hashes = [learner.fit(MIWAVES, rows, 4).statistics_hash for rows in (ROWS, other)]
    assert again.statistics_hash == hashes[0] != hashes[1]


def test_nothing_to_learn_from() -> None:
    empty = made_up_trials.chosen(ROWS, np.zeros(51, dtype=bool))
    for participants in (0, 4):
        with pytest.raises(NothingToLearn, match="nothing to learn from"):
            learner.fit(MIWAVES, empty, participants)
    fixed = load({"protocol": "miwaves", "algorithm": "fixed_probability"})
    with pytest.raises(NothingToLearn, match="fixed_probability"):
        learner.fit(fixed, ROWS, 4)


def test_bad_input_is_refused_by_name() -> None:
    bad = replace(ROWS, reward=np.where(np.arange(51) == 20, np.nan, ROWS.reward))
    with pytest.raises(BadRows, match="reward"):
        learner.fit(MIWAVES, bad, 4)
    with pytest.raises(ValueError, match="0 or 1"):
        learner.fit(MIWAVES, replace(ROWS, states=ROWS.states + 0.5), 4)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="noise_variance"):
            learner.fit(MIWAVES, ROWS, 4, Hyperparameters(np.eye(24), wrong))
    for sigma_u in (np.eye(23), -np.eye(24), np.full((24, 24), np.nan)):
        with pytest.raises(ValueError, match="sigma_u"):
            learner.fit(MIWAVES, ROWS, 4, Hyperparameters(sigma_u, 1.0))


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_blocks_may_be_computed_anywhere(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made_up_trials.random_rows(np.random.default_rng(1), [3] * 700)
    alone = learner.fit(MIWAVES, rows, 700)
    with pool(2) as workers:
        shared = learner.fit(MIWAVES, rows, 700, parallel=workers.map)
    assert (alone.beta == shared.beta).all()
    assert (alone.V == shared.V).all()
    assert (alone.log_evidence, alone.statistics_hash) == (shared.log_evidence, shared.statistics_hash)


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("population_mean", lambda mean: mean + np.where(np.arange(24) == 3, np.nan, 0), "finite"),
        ("population_mean", lambda mean: mean + 12, "beyond"),
        ("beta", lambda beta: beta - 12, "beyond"),
        ("beta", lambda beta: beta + np.inf, "finite"),
        ("V", lambda V: V + np.triu(np.full((8, 8), 1e-3), 1), "symmetric"),
        ("V", lambda V: V - np.eye(8), "positive definite"),
        ("population_covariance", lambda S: -S, "positive definite"),
        ("population_covariance", lambda S: S * np.nan, "finite"),
    ],
)
def test_the_gate_refuses_with_a_reason(name: str, spoil: Any, words: str) -> None:
    found = learner.fit(MIWAVES, ROWS, 4)
    learner.gate(found, MIWAVES)
    with pytest.raises(Refused, match=words):
        learner.gate(replace(found, **{name: spoil(getattr(found, name))}), MIWAVES)


def test_the_gates_bound_is_the_protocols() -> None:
    found = learner.fit(MIWAVES, ROWS, 4)
    narrow = load({"protocol": "miwaves", "gate": {"mean_bound": 1.0}})
    with pytest.raises(Refused, match="beyond 1"):
        learner.gate(found, narrow)


def test_the_largest_change_over_participants_and_states() -> None:
    before, after = (
        learner.fit(MIWAVES, rows, 4) for rows in (made_up_trials.chosen(ROWS, slice(0, 30)), ROWS)
    )
    found = learner.largest_change((before.beta, before.V), (after.beta, after.V), MIWAVES)
    expected = 0.0
    for state in MIWAVES.design.states():
        features = MIWAVES.design.features(state)
        for i in range(4):
            blocks = (ladder.Block(fit.beta[i], fit.V[i]) for fit in (before, after))
            one, other = (ladder.randomise(features, block, MIWAVES).probability for block in blocks)
            expected = max(expected, abs(one - other))
    assert type(found) is float
    assert found == pytest.approx(expected, abs=1e-12)
    assert found > 0
    assert learner.largest_change((after.beta, after.V), (after.beta, after.V), MIWAVES) == 0
    none = np.empty((0, 8)), np.empty((0, 8, 8))
    assert learner.largest_change(none, none, MIWAVES) == 0


def test_a_policy_does_not_depend_on_the_one_before() -> None:
    given = Hyperparameters(0.04 * np.eye(24), 0.5)
    assert (learner.fit(MIWAVES, ROWS, 4, given).beta == learner.fit(MIWAVES, ROWS, 4, given).beta).all()
    assert np.abs(learner.fit(MIWAVES, ROWS, 4, given).beta - learner.fit(MIWAVES, ROWS, 4).beta).max() > 1e-3
