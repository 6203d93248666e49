"""Synthetic participants: coefficients, effects, habituation, answers."""

from collections import Counter

import numpy as np
import pytest

from algorithm.core.arrays import Floats
from algorithm.trial import testbed
from algorithm.trial.designs.design import Point
from algorithm.trial.protocol import load
from algorithm.trial.testbed_coefficients import GROUPS
from tests.support import references

MIWAVES = load({"protocol": "miwaves"})
MANY = 4000


def cohort(effect: str = "minimal", habituating: float = 0.0, seed: int = 0, m: int = MANY) -> testbed.Cohort:
    return testbed.draw_cohort(np.random.default_rng(seed), m, effect, habituating)


def classes(people: testbed.Cohort) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in people.possible]


def test_the_coefficients_are_the_published_ones() -> None:
    published = references.document("testbed_coefficients.json")
    assert [(list(group.classes), group.weight) for group in GROUPS] == [
        (group["classes"], group["weight"]) for group in published["groups"]
    ]
    for group, expected in zip(GROUPS, published["groups"], strict=True):
        assert {str(reward) for reward in group.rows} == set(expected["rows"])
        for reward, (mean, sd) in group.rows.items():
            assert list(mean) == expected["rows"][str(reward)]["mean"]
            assert list(sd) == expected["rows"][str(reward)]["sd"]


def test_kinds_of_people_come_in_the_published_shares() -> None:
    counted = Counter(classes(cohort()))
    assert sum(counted.values()) == MANY
    for group in GROUPS:
        share = group.weight / 42
        assert abs(counted[group.classes] / MANY - share) < 4 * (share * (1 - share) / MANY) ** 0.5


def test_coefficients_have_the_published_means_and_are_centred() -> None:
    people = cohort()
    for group in GROUPS:
        mine = people.coefficients[[kind == group.classes for kind in classes(people)]]
        members = list(group.classes)
        means = np.array([group.rows[reward][0] for reward in members if reward in group.rows])
        sds = np.array([group.rows[reward][1] for reward in members if reward in group.rows])
        if len(members) == 2:
            np.testing.assert_array_equal(mine[:, 2], -mine[:, 3])
            found, expected = mine[:, 3].mean(axis=0), means[0]
        else:
            np.testing.assert_allclose(mine[:, members].sum(axis=1), 0, atol=1e-12)
            found, expected = mine[:, members].mean(axis=0), means - means.mean(axis=0)
        assert (np.abs(found - expected) < 5 * sds.max() / len(mine) ** 0.5).all()


@pytest.mark.parametrize(("effect", "factor"), [("low", 0.7), ("high", 2.5)])
def test_effects_by_the_rule(effect: str, factor: float) -> None:
    before, after = cohort(m=300), cohort(effect, m=300)
    for kind, old, new in zip(classes(before), before.coefficients, after.coefficients, strict=True):
        action = {reward: old[reward, 6] for reward in kind}
        if 0 in kind:
            lowest = min(action, key=lambda reward: action[reward])
            action[0], action[lowest] = action[lowest], action[0]
        action[2] = action[3] = (action[2] + action[3]) / 2
        for reward in kind:
            assert new[reward, 6] == pytest.approx(factor * action[reward], abs=1e-12)
        others = [column for column in range(12) if column != 6]
        assert (old[:, others] == new[:, others]).all()
    assert (before.survey_rate == after.survey_rate).all()


def test_habituation_moves_towards_the_lowest_reward() -> None:
    people = cohort(habituating=0.5, m=400)
    for person, kind in enumerate(classes(people)):
        gains = people.habituation[person]
        if person >= 200:
            assert not gains.any()
            continue
        baseline = people.coefficients[person, :, :6].sum(axis=1) / 6
        sign = -1 if baseline[kind[0]] < 0 else 1
        np.testing.assert_allclose(gains, sign * baseline, atol=1e-15)
        assert gains[kind[0]] >= 0
        if kind == (2, 3):
            assert gains[3] == pytest.approx(-abs(baseline[3]))


def test_the_dose_weighs_the_last_six_actions() -> None:
    weights = np.array([(5 / 6) ** k for k in range(6)])
    weights /= weights.sum()
    earlier = np.array([[1, 1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0]])
    expected = [weights[0] + weights[3] + weights[5], 0.0]
    np.testing.assert_allclose(testbed.dose(earlier), expected, atol=1e-15)
    np.testing.assert_allclose(testbed.dose(np.array([[1, 0]])), [weights[1]], atol=1e-15)
    np.testing.assert_allclose(testbed.dose(np.ones((1, 9), dtype=int)), [1.0])
    assert testbed.dose(np.empty((3, 0), dtype=int)).tolist() == [0, 0, 0]


def softmax(logits: dict[int, float]) -> dict[int, float]:
    total = sum(np.exp(logit) for logit in logits.values())
    return {reward: float(np.exp(logit) / total) for reward, logit in logits.items()}


def test_class_probabilities_one_by_one() -> None:
    generator = np.random.default_rng(1)
    people = cohort(habituating=1.0, m=60)
    z, action, dose = generator.normal(size=(60, 6)), generator.integers(0, 2, 60), generator.random(60)
    found = testbed.class_probabilities(people, z, action, dose)
    for person, kind in enumerate(classes(people)):
        inputs = [*z[person], *(action[person] * z[person])]
        logits = {
            reward: float(people.coefficients[person, reward] @ inputs)
            + float(dose[person] * people.habituation[person, reward])
            for reward in kind
        }
        expected = softmax(logits)
        assert found[person] == pytest.approx([expected.get(reward, 0.0) for reward in range(4)], abs=1e-12)


def test_a_course_of_thirty_days() -> None:
    people = cohort(m=500)
    course = testbed.draw_course(np.random.default_rng(2), people, 60)
    one, survey, app, cannabis, weekend, day = np.moveaxis(course.z, -1, 0)
    assert (one == 1).all()
    assert abs(survey.mean() - 4 / 5.7) < 0.05
    assert abs(app.mean()) < 0.03
    assert app.min() >= -1
    np.testing.assert_allclose(cannabis, (course.amount - 1.3) / 1.35)
    assert abs((course.amount > 0).mean() - 0.6) < 0.05
    assert abs(course.amount[course.amount > 0].mean() - 2.17) < 0.03
    assert weekend[0].tolist() == ([0.0] * 10 + [1.0] * 4) * 4 + [0.0] * 4
    assert day[0, [0, 1, 2, 59]].tolist() == [-1.0, -1.0, -13.5 / 14.5, 1.0]


def rewards_at(people: testbed.Cohort, luck: Floats) -> list[int]:
    m = len(luck)
    course = testbed.Course(np.tile([1.0, 1, 0, 0, 0, 0], (m, 1, 1)), np.zeros((m, 1), int), luck[:, None])
    drawn = testbed.rewards(people, course, 0, np.empty((m, 0), int), np.ones(m, int))
    return [int(reward) for reward in drawn]


def test_luck_runs_from_the_lowest_class_to_the_highest() -> None:
    people = cohort(m=100)
    assert rewards_at(people, np.zeros(100)) == [kind[0] for kind in classes(people)]
    assert rewards_at(people, np.full(100, np.nextafter(1, 0))) == [3] * 100


def test_rewards_come_as_often_as_they_should() -> None:
    one = cohort(m=1)
    m = 20_000
    many = testbed.Cohort(
        *(np.repeat(getattr(one, name), m, axis=0) for name in testbed.Cohort.__dataclass_fields__)
    )
    found = np.bincount(rewards_at(many, np.random.default_rng(3).random(m)), minlength=4) / m
    z = np.array([[1.0, 1, 0, 0, 0, 0]])
    expected = testbed.class_probabilities(one, z, np.ones(1, int), np.zeros(1))[0]
    assert (np.abs(found - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / m)).all()


def test_a_participant_answers_the_same_when_asked_twice() -> None:
    people = [
        testbed.draw_participant(np.random.default_rng(5), 60, "high", habituates=True) for _ in range(2)
    ]
    previous = [1, 0, 1, 1]
    for index in (1, 5, 60):
        given = [person.respond(index, 1, previous[: index - 1]) for person in people for _ in range(2)]
        assert given.count(given[0]) == 4


def test_a_participant_is_the_cohorts_row() -> None:
    person = testbed.draw_participant(np.random.default_rng(6), 20, "high", habituates=True)
    actions = np.random.default_rng(7).integers(0, 2, 20)
    for t in range(20):
        together = testbed.rewards(person.cohort, person.course, t, actions[None, :t], actions[None, t])
        assert person.respond(t + 1, int(actions[t]), actions[:t].tolist()).reward == together[0]


@pytest.mark.parametrize("amount", [0, 1, 5, 12, 30])
@pytest.mark.parametrize("reward", [0, 1, 2, 3])
def test_answers_report_the_reward_and_the_cannabis_use(reward: int, amount: int) -> None:
    answers = testbed.answers(reward, amount)
    design, parameters = MIWAVES.design, MIWAVES.state
    assert design.reward(answers, parameters) == reward
    state = design.state(Point(1, False, answers, float(reward), None), [], parameters)
    assert state == (float(reward >= 2), 0.0, float(reward >= 2 and amount == 0))
    assert (answers["cannabis_use"] is None) == (reward < 2)
