"""The kinds of values that an export holds, and how each is written: as text in CSV, as a type in Parquet."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of a table. `kind` is one of KINDS, `range` and `meaning` are for the dictionary."""

    name: str
    kind: str
    meaning: str = ""
    unit: str = ""
    range: str = ""
    nullable: bool = True


class Kind(NamedTuple):
    """The functions that write and read values of a kind. None of them is ever called with None."""

    arrow: pa.DataType
    text: Callable[[Any], str]
    """From a value to its text in CSV."""
    value: Callable[[str], Any]
    """From a text in CSV to its value."""
    stored: Callable[[Any], Any]
    """From a value to what Parquet stores."""
    loaded: Callable[[Any], Any]
    """From what Parquet returns to the value."""


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return instant.astimezone(UTC)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _same(value: Any) -> Any:
    return value


def _utc(value: datetime) -> datetime:
    # the database's driver returns instants in the offset of its session
    return value.astimezone(UTC)


def _floats(value: Any) -> list[float | None]:
    # JSON may hold 1 where a float 1.0 was meant, which CSV and Parquet would write differently
    return [None if number is None else float(number) for number in value]


def _plain(arrow: pa.DataType, text: Callable[[Any], str], value: Callable[[str], Any]) -> Kind:
    return Kind(arrow, text, value, _same, _same)


KINDS: dict[str, Kind] = {
    # repr writes the shortest text that reads back as the same float64
    "number": _plain(pa.float64(), lambda number: repr(float(number)), float),
    "integer": _plain(pa.int64(), str, int),
    "boolean": _plain(pa.bool_(), lambda value: "true" if value else "false", _boolean),
    "text": _plain(pa.string(), str, str),
    "date": _plain(pa.date32(), date.isoformat, date.fromisoformat),
    "instant": Kind(pa.timestamp("us", tz="UTC"), lambda at: _utc(at).isoformat(), _instant, _utc, _utc),
    "json": Kind(pa.string(), _json, json.loads, _json, json.loads),
    "numbers": Kind(
        pa.list_(pa.float64()),
        lambda value: _json(_floats(value)),
        lambda text: _floats(json.loads(text)),
        _floats,
        _floats,
    ),
    "integers": Kind(pa.list_(pa.int64()), _json, json.loads, list, list),
}


def encode(kind: str, value: Any) -> str:
    """Return the text of a value; a null is the empty text."""
    return "" if value is None else KINDS[kind].text(value)


def decode(kind: str, text: str) -> Any:
    """Return the value of a text. Raises ValueError where it is none of this kind."""
    return None if text == "" else KINDS[kind].value(text)


def array(kind: str, values: list[Any]) -> pa.Array:
    """Return values as a Parquet column."""
    of_kind = KINDS[kind]
    stored = [None if value is None else of_kind.stored(value) for value in values]
    return pa.array(stored, type=of_kind.arrow)


def texts(kind: str, column: pa.ChunkedArray | pa.Array) -> list[str]:
    """Return a Parquet column as the texts that CSV has for it."""
    of_kind = KINDS[kind]
    return ["" if value is None else of_kind.text(of_kind.loaded(value)) for value in column.to_pylist()]
