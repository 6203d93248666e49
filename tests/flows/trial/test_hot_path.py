"""What one decision costs the database."""

import json
from typing import Any

import pytest
from psycopg2.extensions import cursor

from models.core.connections import lent
from models.trial.decisions import Decision
from tests.support.service import Service
from tests.support.study import begin


@pytest.mark.parametrize(
    ("rules", "reading"),
    [
        ((), "read_point"),
        (("envelope.cool_down_hours=1", "envelope.daily_cap=1"), "read_point_with_sent"),
    ],
)
def test_a_decision_is_two_statements_between_begin_and_commit(
    service: Service, rules: tuple[str, ...], reading: str
) -> None:
    study = begin(service, *rules)
    messages: list[str] = []

    class Counting(cursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            messages.append(query.decode() if isinstance(query, bytes) else query)
            super().execute(query, vars)

    with lent() as link:  # the only one of this process
        link.cursor = link.driver.cursor(cursor_factory=Counting)
    for user_id in ("ann", "bob", "cem"):
        study.enrol(user_id)
    study.decide("ann")  # with its first decision a process learns whether the protocol looks back
    study.decide("bob")  # at its first use a connection plans a statement
    messages.clear()
    study.decide("cem")
    first, second = messages
    assert first.startswith(f"BEGIN ISOLATION LEVEL REPEATABLE READ;EXECUTE {reading} (")
    assert second.startswith("EXECUTE add_decision (")
    assert second.endswith(");COMMIT")
    assert (first + second).count("EXECUTE") == 2
    record = json.loads(second[second.index("{") : second.rindex("}") + 1])
    assert sorted(record) == sorted(Decision.__table__.columns.keys())  # what is missing would be null
