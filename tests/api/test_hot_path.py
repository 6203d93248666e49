"""What one decision costs the database."""

from typing import Any

import pytest
from psycopg2.extensions import cursor
from sqlalchemy import event

from models.session import engine
from tests.service import Service


@pytest.mark.parametrize("rules", [(), ("envelope.cool_down_hours=1", "envelope.daily_cap=1")])
def test_a_decision_is_two_statements_between_begin_and_commit(
    bare_service: Service, rules: tuple[str, ...]
) -> None:
    service = bare_service
    service.study("trial", *rules)
    messages: list[str] = []

    class Counting(cursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            messages.append(query.decode() if isinstance(query, bytes) else query)
            super().execute(query, vars)

    @event.listens_for(engine(), "checkout")
    def count(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.cursor_factory = Counting

    for user_id in ("ann", "bob"):
        assert service.enrol(user_id).status_code == 201
    service.decide("ann")  # at its first decision a connection plans the two
    messages.clear()
    assert service.decide("bob").status_code == 200
    first, second = messages
    assert first.startswith("BEGIN ISOLATION LEVEL REPEATABLE READ;EXECUTE read_point (")
    assert second.startswith("EXECUTE add_decision (")
    assert second.endswith(");COMMIT")
    assert (first + second).count("EXECUTE") == 2
