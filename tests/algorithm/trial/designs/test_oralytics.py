"""The brushing protocol, and nine real people's data fitted as what they are."""

import csv
from collections import defaultdict

import numpy as np
import pytest

from algorithm.trial import learner
from algorithm.trial.designs.design import Point
from algorithm.trial.hyperparameters import fit_hyperparameters
from algorithm.trial.learning_rows import Points, Rows, join
from algorithm.trial.protocol import load
from tests.support import dense, references

PROTOCOL = load({"protocol": "oralytics"})
DESIGN = PROTOCOL.design


def brushed(index: int, seconds: float, app: bool = False, action: int | None = 0) -> Point:
    answers = {"brushing_seconds": seconds, "app_used": app}
    return Point(index, index % 2 == 0, answers, DESIGN.reward(answers, {}), action)


@pytest.mark.parametrize(("seconds", "reward"), [(0, 0.0), (119.5, 119.5), (180, 180.0), (216.0, 180.0)])
def test_the_reward_is_seconds_up_to_three_minutes(seconds: float, reward: float) -> None:
    found = DESIGN.reward({"brushing_seconds": seconds, "app_used": False}, {})
    assert found == reward
    assert type(found) is float


def test_before_the_record_there_is_no_reward_and_the_point_counts_for_its_prompt_alone() -> None:
    assert DESIGN.reward({}, {}) is None
    assert DESIGN.reward({"available": False}, {}) is None
    unrecorded = [Point(index, index % 2 == 0, {}, None, 1) for index in (1, 2)]
    assert DESIGN.state(Point(3, False, {}, None, None), unrecorded, {}) == (0.0, 0.0, 0.0, 1.0)


def test_nothing_is_known_at_first() -> None:
    assert DESIGN.state(brushed(1, 100), [], {}) == (0.0, 0.0, 0.0, 0.0)
    assert DESIGN.state(brushed(2, 100), [brushed(3, 5, app=True)], {}) == (1.0, 0.0, 0.0, 0.0)


def test_averages_weigh_the_latest_most() -> None:
    state = DESIGN.state(brushed(3, 0), [brushed(2, 180, action=1), brushed(1, 0, action=0)], {})
    weights = np.array([13 / 14, (13 / 14) ** 2])
    expected = 2 * weights[0] / weights.sum() - 1
    assert state[2:] == pytest.approx((expected, expected))


def test_averages_reach_seven_days_back_and_skip_what_is_missing() -> None:
    unknown = Point(15, False, None, None, None)
    oldest, too_old = brushed(4, 180, action=1), brushed(3, 0, action=0)
    assert DESIGN.state(brushed(18, 0), [unknown, oldest, too_old], {})[2:] == pytest.approx((1.0, 1.0))
    assert DESIGN.state(brushed(18, 0), [unknown, too_old], {})[2:] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("index", "used_at", "expected"),
    [(5, 4, 1.0), (5, 3, 1.0), (5, 2, 0.0), (6, 5, 0.0), (6, 4, 1.0), (6, 3, 1.0), (6, 2, 0.0)],
)
def test_yesterday_is_the_day_before(index: int, used_at: int, expected: float) -> None:
    earlier = [brushed(other, 60, app=other == used_at) for other in range(1, index)]
    assert DESIGN.state(brushed(index, 60), earlier, {})[1] == expected


def test_features_are_an_intercept_and_the_state() -> None:
    states = np.array(DESIGN.states())
    assert states.shape == (16, 4)
    assert DESIGN.features(states).tolist() == [[1.0, *state] for state in states.tolist()]
    assert DESIGN.features((1.0, 0.0, 0.25, -1.0)).tolist() == [1.0, 1.0, 0.0, 0.25, -1.0]


def pilot() -> tuple[Rows, int]:
    """The pilot's learning rows, states computed by the design itself."""
    with references.path("pilot_engagement.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    people = sorted({line["participant"] for line in lines})
    seen = defaultdict[str, list[Point]](list)
    states = []
    for line in lines:
        answers = {"brushing_seconds": float(line["brushing_seconds"]), "app_used": line["app_used"] == "1"}
        reward = DESIGN.reward(answers, PROTOCOL.state)
        point = Point(
            int(line["decision_index"]), line["evening"] == "1", answers, reward, int(line["action"])
        )
        history = seen[line["participant"]]
        states.append(DESIGN.state(point, history[-DESIGN.history :], PROTOCOL.state))
        history.append(point)
    points = Points(
        participant=np.array([people.index(line["participant"]) for line in lines]),
        index=np.array([int(line["decision_index"]) for line in lines]),
        states=np.array(states),
        act_prob=np.array([float(line["act_prob"]) for line in lines]),
        action=np.array([int(line["action"]) for line in lines]),
        reward=np.array([min(float(line["brushing_seconds"]), 180) for line in lines]),
        randomised=np.ones(len(lines), dtype=np.bool_),
    )
    return join(points, PROTOCOL.schedule.outcome_lag), len(people)


def test_the_pilot_is_fitted_as_what_it_is() -> None:
    rows, m = pilot()
    assert (len(rows.reward), m) == (707, 9)
    assert rows.reward.max() == 180
    assert np.abs(rows.states[:, 2:]).max() <= 1
    found = learner.fit(PROTOCOL, rows, m)
    learner.gate(found, PROTOCOL)
    start = learner.start(PROTOCOL)
    phi = dense.design_matrix(PROTOCOL, rows)
    slow = dense.conditioned(
        phi, rows.reward, rows.participant, m, PROTOCOL.prior, start.sigma_u, start.noise_variance
    )
    np.testing.assert_allclose(found.population_mean, slow.population_mean, atol=1e-9)
    np.testing.assert_allclose(found.beta, slow.means[:, -5:], atol=1e-9)
    np.testing.assert_allclose(found.V, slow.covariances[:, -5:, -5:], atol=1e-8)
    table = learner.probability_table(found.beta, found.V, PROTOCOL, DESIGN.features(DESIGN.states()))
    assert table.shape == (9, 16)
    assert 0.2 <= table.min() < table.max() <= 0.8


def test_people_differ_in_how_they_brush() -> None:
    rows, m = pilot()
    apart = learner.fit(PROTOCOL, rows, m)
    alike = learner.fit(load({"protocol": "oralytics", "algorithm": "pooled"}), rows, m)
    assert apart.log_evidence > alike.log_evidence + 5


def test_nine_people_are_too_few_for_hyperparameters_and_eighteen_are_not() -> None:
    rows, m = pilot()
    few = fit_hyperparameters(PROTOCOL, rows, m)
    assert not few.accepted
    assert few.reason == "needs 10 participants and 100 rows, has 9 and 707"
    twice = Rows(
        np.concatenate([rows.participant, rows.participant + m]),
        *(
            np.concatenate([column, column])
            for column in (rows.states, rows.act_prob, rows.action, rows.reward)
        ),
    )
    enough = fit_hyperparameters(PROTOCOL, twice, 2 * m)
    assert enough.accepted
    assert enough.evidence is not None
    assert enough.evidence.converged
    assert 2000 < enough.hyperparameters.noise_variance < 6000
