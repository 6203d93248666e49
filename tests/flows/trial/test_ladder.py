"""Every rung of the fallback ladder, reached by damaged rows, stored with its true probability and replayed.

The replay is arithmetic on stored rows: features written out, a normal integral by quadrature, an HMAC.
"""

import hashlib
import hmac
from math import exp, nan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from models.core import studies
from models.core.session import transact
from services.trial import rungs
from tests.support.study import Study
from workers.trial import refit

SIZE = 8  # features: 1 and every product of the three state variables
DAMAGED: dict[str, tuple[Any, Any]] = {
    "a mean that is no number": ([nan] * SIZE, None),
    "an infinite mean": ([float("inf")] + [0.0] * (SIZE - 1), None),
    "a mean with a hole": ([None] + [0.0] * (SIZE - 1), None),
    "a short mean": ([0.0] * (SIZE - 1), None),
    "an empty mean": ([], None),
    "a covariance that is no number": (None, [nan] * 36),
    "a short covariance": (None, [1.0]),
    "an empty covariance": (None, []),
    "a negative variance": (None, [-1.0] * 36),
}
PRIOR_SD = [
    0.27,
    0.33,
    0.30,
    0.32,
    0.10,
    0.10,
    0.10,
    0.10,
]  # of the advantage, as the MiWaves protocol has it
PRIOR_SIGMA_U = 0.01


def probability(mean: float, variance: float) -> float:
    """E[0.2 + 0.6 / (1 + 5 exp(-(10 / 0.95) x))] under x ~ N(mean, variance)."""
    sd = sqrt(variance)

    def integrand(x: float) -> float:
        return float((0.2 + 0.6 / (1 + 5 * exp(-10 / 0.95 * x))) * norm.pdf(x, mean, sd))

    return float(quad(integrand, mean - 9 * sd, mean + 9 * sd, epsabs=1e-12, limit=400)[0])


def features(state: list[float]) -> np.ndarray[Any, Any]:
    a, b, c = state
    return np.array([1, a, b, c, a * b, a * c, b * c, a * b * c])


def symmetric(upper: list[float]) -> np.ndarray[Any, Any]:
    """A matrix of which the upper triangle was stored, row by row."""
    matrix = np.zeros((SIZE, SIZE))
    matrix[np.triu_indices(SIZE)] = upper
    return matrix + np.triu(matrix, 1).T


def check(study: Study, rid: int, mean: Any, covariance: Any) -> None:
    """The stored decision follows from a posterior of the advantage, and its action from its seed."""
    (row,) = study.rows("SELECT * FROM decisions WHERE id = %s", rid)
    f = features(row["state"])
    assert row["advantage_mean"] == pytest.approx(f @ np.array(mean), abs=1e-12)
    assert row["advantage_variance"] == pytest.approx(f @ np.array(covariance) @ f, abs=1e-12)
    assert row["act_prob"] == pytest.approx(
        probability(row["advantage_mean"], row["advantage_variance"]), abs=1e-9
    )
    check_draw(study, row)


def check_draw(study: Study, row: dict[str, Any]) -> None:
    key = transact(lambda session: studies.by_id(session, study.study_id).study_key)
    message = f"{row['participant_id']}|{row['decision_index']}".encode()
    seed = int.from_bytes(hmac.new(key, message, hashlib.sha256).digest()[:8], "big") >> 11
    assert row["seed"] == seed
    assert row["action"] == int(seed / 2**53 < row["act_prob"])


def fit(study: Study) -> int:
    """Refit and return the number of the policy that serves now."""
    answer = study.call("POST", "/update_parameters", role="admin")
    assert answer.json is not None
    refit.run(answer.json["job_id"])
    return int(study.rows("SELECT policy_id FROM studies WHERE id = %s", study.study_id)[0]["policy_id"])


def own(study: Study, policy_id: int, participant_id: int) -> tuple[Any, Any]:
    """A participant's stored block."""
    (row,) = study.rows(
        "SELECT mean, covariance FROM policy_blocks"
        " WHERE (study_id, policy_id, participant_id) = (%s, %s, %s)",
        study.study_id,
        policy_id,
        participant_id,
    )
    return row["mean"], symmetric(row["covariance"])


def population(study: Study, policy_id: int) -> tuple[Any, Any]:
    """The block of a policy for who was not in its fit."""
    (row,) = study.rows(
        "SELECT advantage_mean AS mean, advantage_covariance AS covariance FROM policies"
        " WHERE (study_id, policy_id) = (%s, %s)",
        study.study_id,
        policy_id,
    )
    return row["mean"], np.array(row["covariance"]).reshape(SIZE, SIZE)


def damage_blocks(study: Study, policy_id: int, wrong: tuple[Any, Any]) -> None:
    """Overwrite the mean or the covariance of every participant's block under a policy."""
    _damage(study, "policy_blocks", dict(zip(("mean", "covariance"), wrong, strict=True)), policy_id)


def damage_population(study: Study, policy_id: int, wrong: tuple[Any, Any]) -> None:
    """Overwrite the mean or the covariance of a policy's population block, as a new process finds it."""
    columns = ("advantage_mean", "advantage_covariance")
    _damage(study, "policies", dict(zip(columns, wrong, strict=True)), policy_id)
    rungs._populations.clear()


def _damage(study: Study, table: str, wrong: dict[str, Any], policy_id: int) -> None:
    for column, value in wrong.items():
        if value is not None:
            changed = study.tamper(
                f"UPDATE {table} SET {column} = %s::float8[] WHERE (study_id, policy_id) = (%s, %s)",
                value,
                study.study_id,
                policy_id,
            )
            assert changed


@pytest.fixture
def learnt(study: Study) -> tuple[Study, int]:
    """A study whose serving policy, number 2, was fitted with Ann's decisions; and Ann's id."""
    ann = study.enrol("ann")
    study.live("ann", 3)
    assert fit(study) == 1
    study.live("ann", 1)
    assert fit(study) == 2
    return study, ann


def decided(study: Study, user_id: str, level: str, policy_id: int | None) -> int:
    """The rid of a decision on this rung."""
    answer = study.decide(user_id, app_use_flag=True)
    assert (answer["fallback_level"], answer["policy_id"]) == (level, policy_id)
    return int(answer["rid"])


def test_f0_the_participants_own_block(learnt: tuple[Study, int]) -> None:
    study, ann = learnt
    block = own(study, 2, ann)
    assert not np.allclose(block[0], population(study, 2)[0])
    check(study, decided(study, "ann", "F0", 2), *block)


def test_f0_the_population_for_who_is_not_in_the_fit(learnt: tuple[Study, int]) -> None:
    study, _ = learnt
    study.enrol("ben")
    check(study, decided(study, "ben", "F0", 2), *population(study, 2))


def test_f0_the_prior_policy_at_a_studys_begin(study: Study) -> None:
    study.enrol("ann")
    variance = np.diag(np.array(PRIOR_SD) ** 2 + PRIOR_SIGMA_U)
    check(study, decided(study, "ann", "F0", 0), np.zeros(SIZE), variance)


@pytest.mark.parametrize("wrong", DAMAGED.values(), ids=DAMAGED.keys())
def test_f2_the_population_where_the_own_block_is_damaged(
    learnt: tuple[Study, int], wrong: tuple[Any, Any]
) -> None:
    study, _ = learnt
    damage_blocks(study, 2, wrong)
    check(study, decided(study, "ann", "F2", 2), *population(study, 2))


def test_f2_the_population_where_the_own_block_is_gone(learnt: tuple[Study, int]) -> None:
    study, _ = learnt
    study.tamper("DELETE FROM policy_blocks WHERE (study_id, policy_id) = (%s, 2)", study.study_id)
    check(study, decided(study, "ann", "F2", 2), *population(study, 2))


@pytest.mark.parametrize("wrong", DAMAGED.values(), ids=DAMAGED.keys())
def test_f1_the_policy_before_where_the_active_one_is_damaged(
    learnt: tuple[Study, int], wrong: tuple[Any, Any]
) -> None:
    study, ann = learnt
    before = own(study, 1, ann)
    damage_blocks(study, 2, wrong)
    damage_population(study, 2, wrong)
    check(study, decided(study, "ann", "F1", 1), *before)
    study.enrol("ben")
    check(study, decided(study, "ben", "F1", 1), *population(study, 1))


def test_f1_the_population_before_where_both_own_blocks_are_damaged(learnt: tuple[Study, int]) -> None:
    study, _ = learnt
    for policy_id in (1, 2):
        damage_blocks(study, policy_id, ([nan] * SIZE, None))
    damage_population(study, 2, ([nan] * SIZE, None))
    check(study, decided(study, "ann", "F1", 1), *population(study, 1))


def test_f1_where_the_active_policys_row_is_gone(learnt: tuple[Study, int]) -> None:
    study, ann = learnt
    study.tamper("DELETE FROM policies WHERE (study_id, policy_id) = (%s, 2)", study.study_id)
    check(study, decided(study, "ann", "F1", 1), *own(study, 1, ann))


def test_f3_the_prior_where_no_policy_is_usable(learnt: tuple[Study, int]) -> None:
    study, _ = learnt
    for policy_id in (1, 2):
        damage_blocks(study, policy_id, ([nan] * SIZE, None))
        damage_population(study, policy_id, ([nan] * SIZE, None))
    variance = np.diag(np.array(PRIOR_SD) ** 2 + PRIOR_SIGMA_U)
    check(study, decided(study, "ann", "F3", 0), np.zeros(SIZE), variance)


@pytest.mark.parametrize("reward", ["NaN", "Infinity"])
def test_f4_one_half_where_the_state_cannot_be_computed(learnt: tuple[Study, int], reward: str) -> None:
    study, ann = learnt
    study.tamper("UPDATE decisions SET reward = %s WHERE participant_id = %s", reward, ann)
    rid = decided(study, "ann", "F4", None)
    (row,) = study.rows("SELECT * FROM decisions WHERE id = %s", rid)
    assert (row["act_prob"], row["state"], row["advantage_mean"]) == (0.5, None, None)
    check_draw(study, row)


def test_a_decision_on_f4_is_no_learning_row_but_its_outcome_is_one(learnt: tuple[Study, int]) -> None:
    study, ann = learnt
    honest = study.rows("SELECT id, reward FROM decisions WHERE participant_id = %s", ann)
    study.tamper("UPDATE decisions SET reward = 'NaN' WHERE participant_id = %s", ann)
    blind = decided(study, "ann", "F4", None)
    for row in honest:
        study.tamper("UPDATE decisions SET reward = %s WHERE id = %s", row["reward"], row["id"])
    study.end("ann")
    study.decide("ann")
    fit(study)
    learnt_from = study.rows("SELECT decision_index FROM learning_rows WHERE study_id = %s", study.study_id)
    assert sorted(row["decision_index"] for row in learnt_from) == [1, 2, 3, 4]
    assert study.rows("SELECT decision_index FROM decisions WHERE id = %s", blind) == [{"decision_index": 5}]


def test_the_study_counts_its_fallbacks(learnt: tuple[Study, int]) -> None:
    study, _ = learnt
    damage_blocks(study, 2, ([nan] * SIZE, None))
    study.decide("ann")
    shown = study.call("GET", "/study", role="researcher").json
    assert shown is not None
    assert "fallbacks" in shown, shown
    assert shown["fallbacks"] == {"F0": 4, "F2": 1}
