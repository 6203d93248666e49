"""The figures of the summary."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rehearsal import summary
from rehearsal.checks import Ledger
from rehearsal.contract import Decision, Policy

DECISION = Decision(1, 1, 0, 0.25, 0, 1, datetime(2026, 3, 2, tzinfo=UTC), (0.0, 0.0, 0.0), "F0")


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.99, 99), (0.991, 100), (1, 100), (0.001, 1), (0.01, 1), (0.011, 2)]
)
def test_quantiles_of_one_to_a_hundred(share: float, value: int) -> None:
    assert summary.quantile(range(100, 0, -1), share) == value


def test_messages_sent_and_expected() -> None:
    line = summary.messages([DECISION, DECISION, replace(DECISION, action=0), DECISION])
    assert "0.750 sent, 0.250 expected (z = +2.31" in line


def test_probabilities_stand_under_their_states() -> None:
    first = Policy(0, 0, {"01": 0.5, "00": 0.25})
    lines = list(summary.probabilities(first, replace(first, policy_id=12, act_prob={"00": 0.2, "01": 0.8})))
    assert [line.split()[-2:] for line in lines] == [["00", "01"], ["0.2500", "0.5000"], ["0.2000", "0.8000"]]


def test_every_check_has_its_count_and_failures_their_examples() -> None:
    ledger = Ledger()
    ledger.equal("good", 1, 1)
    ledger.equal("bad", 1, 1)
    ledger.equal("bad", 2, 1)
    text = "\n".join(summary.checks(ledger))
    assert "held        1 of 1      good" in text
    assert "FAILED      1 of 2      bad" in text
    assert "for example: 2 is reported, 1 is expected" in text
