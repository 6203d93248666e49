"""Each check catches the fault that it is there for: it is shown an answer with that fault."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from rehearsal.checks import Distinct, Ledger, Played, check_decision, check_prior, expected_state, z_score
from rehearsal.contract import Decision, Enrolment, Policy, Survey
from rehearsal.people import NOTHING, Person, Point

DAY = date(2026, 3, 2)
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
PERSON = Person(
    Enrolment("p", DAY, DAY, DAY, DAY, (800,) * 7, (2000,) * 7), [], lambda _index, _actions: NOTHING
)
POINT = Point(3, AT, evening=False)
USED = Survey(True, app_use_flag=True, activity_question_response=True, cannabis_use=())
HALF = 2**52
HONEST = Decision(9, 0, HALF, 0.5, 4, 3, AT, (0.0, 0.0, 1.0), "F0")


def played() -> Played:
    played = Played(PERSON)
    played.surveys = {1: NOTHING, 2: NOTHING, 3: USED}
    played.decisions = {1: replace(HONEST, rid=7, policy_id=2), 2: replace(HONEST, rid=8, policy_id=4)}
    return played


def failed(decision: Decision) -> set[str]:
    ledger, rids = Ledger(), Distinct()
    rids.new(8)
    check_decision(ledger, rids, played(), POINT, decision)
    assert ledger.counts.total() == 8
    return set(ledger.failed)


def test_an_honest_answer_passes() -> None:
    assert failed(HONEST) == set()
    assert failed(replace(HONEST, action=1, seed=HALF - 1)) == set()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rid": 8}, "rid is new"),
        ({"seed": 2**53, "act_prob": 0.5}, "seed is an integer of 53 bits"),
        ({"seed": -1, "action": 1}, "seed is an integer of 53 bits"),
        ({"action": 1}, "action is 1 exactly where seed / 2**53 < act_prob"),
        ({"seed": HALF - 1}, "action is 1 exactly where seed / 2**53 < act_prob"),
        ({"action": 2}, "action is 1 exactly where seed / 2**53 < act_prob"),
        ({"act_prob": 0.1999999999}, "act_prob is within 0.2 and 0.8"),
        ({"act_prob": 0.8000000001, "action": 1}, "act_prob is within 0.2 and 0.8"),
        ({"act_prob": float("nan")}, "act_prob is within 0.2 and 0.8"),
        ({"decision_index": 4}, "decision_index is the one asked for"),
        ({"policy_id": 3}, "policy_id never falls"),
        ({"policy_id": None}, "policy_id never falls"),
        ({"state": (1.0, 0.0, 1.0)}, "state follows from the answers"),
        ({"state": None}, "state follows from the answers"),
        ({"fallback_level": "F2"}, "the active policy answered (F0)"),
    ],
)
def test_a_tampered_answer_is_caught_by_its_check_alone(change: dict[str, Any], name: str) -> None:
    assert failed(replace(HONEST, **change)) == {name}


def test_rids_that_stay_the_same_are_seen_across_people() -> None:
    rids = Distinct()
    assert rids.new(1)
    assert not rids.new(1)


@pytest.mark.parametrize(
    ("surveys", "evening", "state"),
    [
        ({3: USED}, False, (1, 0, 1)),
        ({3: NOTHING}, True, (0, 1, 0)),
        ({1: USED, 2: USED, 3: NOTHING}, False, (1, 0, 0)),  # 3 + 3 + 0 = 3 x 2
        ({1: USED, 2: replace(USED, activity_question_response=False), 3: NOTHING}, False, (0, 0, 0)),
        ({0: USED, 3: NOTHING, 2: USED}, False, (0, 0, 0)),  # point 0 is too long ago: 3 + 0 < 2 x 2
        ({3: replace(USED, cannabis_use=(4.0,))}, False, (1, 0, 0)),
        ({3: replace(USED, cannabis_use=None)}, False, (1, 0, 0)),
    ],
)
def test_state(surveys: dict[int, Survey], evening: bool, state: tuple[int, ...]) -> None:
    assert expected_state(surveys, replace(POINT, evening=evening)) == state


def test_rows_need_the_next_decision_and_a_state() -> None:
    played = Played(PERSON)
    played.decisions = dict.fromkeys((1, 2, 3, 6, 7), HONEST)
    assert played.rows() == 3
    played.decisions[6] = replace(HONEST, state=None)
    assert played.rows() == 2


def test_only_decisions_of_policy_0_are_held_against_it() -> None:
    prior = Policy(0, 0, {"001": 0.5, "000": 0.4})
    for decision, passed in [
        (replace(HONEST, policy_id=0), True),
        (replace(HONEST, policy_id=0, act_prob=0.5001), False),
        (replace(HONEST, policy_id=1, act_prob=0.5001), True),
    ]:
        ledger = Ledger()
        check_prior(ledger, [decision], prior)
        assert ledger.passed is passed


def test_z_is_the_distance_in_standard_deviations() -> None:
    always = [replace(HONEST, action=1, act_prob=0.5)] * 100
    assert z_score(always) == pytest.approx(10)
    assert z_score([*always[:50], *[replace(HONEST, action=0)] * 50]) == pytest.approx(0)


def test_the_ledger_keeps_counts_and_the_first_examples() -> None:
    ledger = Ledger()
    for number in range(5):
        ledger.equal("numbers", number, 0)
    ledger.check("others", True)
    assert not ledger.passed
    assert (ledger.counts["numbers"], ledger.failed["numbers"]) == (5, 4)
    assert ledger.examples == {"numbers": [f"{n} is reported, 0 is expected" for n in (1, 2, 3)]}
