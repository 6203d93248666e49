"""The values of a prepared message reach the server as the driver's own quoting would send them."""

import math
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models.core.session import Prepared, transact

pytestmark = pytest.mark.usefixtures("shared_service")

# what PLAIN writes by itself and what the driver quotes take turns, so that a mix-up of their order shows
TYPES = ("bigint", "text", "float8", "bytea", "boolean", "text", "timestamptz", "text")
BYTES = {
    "bigint": "int8send",
    "text": "textsend",
    "float8": "float8send",
    "bytea": "byteasend",
    "boolean": "boolsend",
    "timestamptz": "timestamptz_send",
}
"""The server's functions that give a value's binary form: equal bytes are the same value to the last bit."""
MESSAGE = Prepared(
    "value_of_each_type",
    f"SELECT {', '.join(f'{BYTES[name]}(${place})' for place, name in enumerate(TYPES, start=1))}",
)
OFFSETS = st.integers(-57_599, 57_599).map(lambda seconds: timezone(timedelta(seconds=seconds)))  # below 16 h
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text("'\"\\%s$1;-E ")
VALUES: dict[str, SearchStrategy[Any]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": TEXTS,
    "float8": st.floats() | st.floats(-2.3e-308, 2.3e-308, allow_subnormal=True),
    "bytea": st.binary(max_size=40),
    "boolean": st.booleans(),
    "timestamptz": st.datetimes(timezones=OFFSETS),
}


def as_sent(row: Sequence[Any] | None) -> list[bytes | None]:
    """The binary forms in a row of the answer."""
    assert row is not None
    return [None if value is None else bytes(value) for value in row]


def by_the_driver(session: Session, values: Sequence[Any]) -> list[bytes | None]:
    """The server's answer to the prepared statement where the driver quotes every value."""
    link = session.info["link"]
    places = ", ".join(["%s"] * len(values))
    return as_sent(link.send("driver", link.cursor.mogrify(f"EXECUTE {MESSAGE.name} ({places})", values)))


def both_ways(session: Session, values: Sequence[Any]) -> tuple[list[bytes | None], list[bytes | None]]:
    """The server's answers to the same values by `Prepared` and by the driver."""
    return as_sent(MESSAGE.row(session, values)), by_the_driver(session, values)


@settings(max_examples=300)
@given(st.tuples(*(st.none() | VALUES[name] for name in TYPES)))
@example(
    (
        2**63 - 1,
        "it's 100 %s",
        float("nan"),
        b"\x00'\\",
        True,
        "\\' ; --",
        datetime.max.replace(tzinfo=UTC),
        "E'\\\\'",
    )
)
@example((-(2**63), "%", float("-inf"), b"%s", False, "''", datetime.min.replace(tzinfo=UTC), "$1"))
@example((-1, "", 5e-324, b"", None, "\U0001f9ea\ufeff\u202e", None, "%%"))
def test_the_server_gets_the_same_values_as_by_the_drivers_quoting(values: tuple[Any, ...]) -> None:
    ours, drivers = transact(both_ways, values)
    place = TYPES.index("float8")
    if ours[place] == struct.pack(">d", -0.0):
        drivers[place] = ours[place]  # the driver writes it as a decimal number, which has no such zero
    assert ours == drivers


@settings(max_examples=300)
@given(st.floats() | st.floats(-2.3e-308, 2.3e-308, allow_subnormal=True), VALUES["bigint"], TEXTS)
@example(-0.0, 0, "")
@example(float("inf"), -(2**63), "\\")
@example(1.7976931348623157e308, 2**63 - 1, "'")
def test_the_server_gets_what_python_has_to_the_bit(number: float, whole: int, words: str) -> None:
    sent = as_sent(
        transact(lambda session: MESSAGE.row(session, (whole, words, number, None, None, None, None, words)))
    )
    text = words.encode()
    bits = struct.pack(">d", math.nan if math.isnan(number) else number)
    assert sent == [struct.pack(">q", whole), text, bits, None, None, None, None, text]


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_that_the_server_cannot_hold_is_refused_before_it_is_sent(value: str) -> None:
    values = (1, value, None, None, None, None, None, None)
    with pytest.raises((ValueError, UnicodeEncodeError)):
        transact(lambda session: MESSAGE.row(session, values))
    assert transact(lambda session: MESSAGE.row(session, (None,) * 8)) == (None,) * 8


def test_a_value_of_another_type_than_the_statements_is_the_servers_error() -> None:
    with pytest.raises(DBAPIError):
        transact(lambda session: MESSAGE.row(session, ("no number", *[None] * 7)))
