"""Two stacks with the same port: the slower one does not take the other's answers for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.embedded import Embedded
from local.errors import StackError
from local.ports import free_port
from local.stack import Stack, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BROKER = 5  # the broker's database of these stacks


@pytest.fixture
def home(passable: Path, tmp_path: Path) -> Iterator[Embedded]:
    """The state folder and supervisor of the stack that is first at the ports."""
    with Embedded(passable / tmp_path.name, database=False, broker=False) as home:
        yield home


def stack_in(
    home: Embedded, embedded: Embedded, database_url: str, api_port: int, flower_port: int | None = None
) -> Stack:
    """Return a stack with one process of the API, whose children `home` supervises."""
    settings = environment(home.state, database_url, embedded.broker_url(BROKER), api_port)
    return Stack(home.state, home.supervisor, settings | {"KAIROS_API_PROCESSES": "1"}, flower_port)


def test_a_stack_whose_ports_another_one_took_does_not_start(
    home: Embedded, embedded: Embedded, passable: Path, tmp_path: Path, fresh_database: str
) -> None:
    api, flower = free_port(), free_port()
    stack_in(home, embedded, fresh_database, api, flower).start()
    for ports, name in (((api, None), "api"), ((free_port(), flower), "flower")):
        with Embedded(passable / f"{tmp_path.name}-{name}", database=False, broker=False) as late:
            stack = stack_in(late, embedded, fresh_database, *ports)
            with pytest.raises(StackError, match=rf"^{name} exited with code 1 (?s:.*)in use"):
                stack.start()
