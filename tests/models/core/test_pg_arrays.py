"""Arrays read as PostgreSQL sends them in binary, against the same arrays as text."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sqlalchemy import text

from models.core import pg_arrays
from models.core.session import transact
from tests.support.service import Service

SENT = "SELECT encode(array_send(CAST(:value AS float8[])), 'hex')"
Ask = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def ask(shared_service: Service) -> Ask:
    """The one value of a statement with one parameter."""
    return lambda statement, value: transact(
        lambda session: session.connection().execute(text(statement), {"value": value}).scalar_one()
    )


@settings(max_examples=50)
@given(numbers=some.lists(some.floats(), min_size=1, max_size=40))
def test_every_number_comes_back_to_the_bit(ask: Ask, numbers: list[float]) -> None:
    found = pg_arrays.sent(ask(SENT, numbers))
    expected = np.array(ask("SELECT CAST(:value AS float8[])", numbers), dtype=np.float64)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize(
    "damaged", ["{}", "{1,NULL}", "{NULL,NULL,NULL}", "{1,NULL,NULL,NULL,2}", "{{1,2},{3,4}}"]
)
def test_what_is_no_list_of_numbers_is_refused(ask: Ask, damaged: str) -> None:
    with pytest.raises(ValueError, match=r"null|dimension"):
        pg_arrays.sent(ask(SENT, damaged))


@settings(max_examples=30)
@given(numbers=some.lists(some.lists(some.floats(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_several_arrays_are_received_to_the_bit_and_sent_back_as_they_came(
    ask: Ask, numbers: list[list[float]]
) -> None:
    rows = [ask("SELECT array_send(CAST(:value AS float8[]))", one) for one in numbers]
    found = pg_arrays.received(rows, 3)
    assert (
        found.tobytes()
        == np.array([ask("SELECT CAST(:value AS float8[])", one) for one in numbers]).tobytes()
    )
    column = np.zeros(len(rows), pg_arrays.binary(3))
    pg_arrays.fill(column, found)
    assert column.tobytes() == b"".join(map(bytes, rows))


@pytest.mark.parametrize("damaged", ["{}", "{1,2}", "{1,2,NULL}", "{1,2,3,4}", "{{1,2,3},{4,5,6}}"])
def test_an_array_of_another_length_is_refused_among_others(ask: Ask, damaged: str) -> None:
    statement = "SELECT array_send(CAST(:value AS float8[]))"
    with pytest.raises(ValueError, match=r"."):
        pg_arrays.received([ask(statement, "{1,2,3}"), ask(statement, damaged)], 3)


def test_a_packed_matrix_is_unpacked() -> None:
    whole = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    (packed,) = pg_arrays.pack(whole[None])
    assert packed.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert np.array_equal(pg_arrays.unpack(packed, 3), whole)
    with pytest.raises(ValueError, match="packed"):
        pg_arrays.unpack(packed, 2)
