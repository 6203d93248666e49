"""Arrays as they are stored, and as they come from the database."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
COPY_BEGINS = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, nothing more in the head
COPY_ENDS = b"\xff\xff"
FLOAT8 = 701
"""The number of the type double precision in PostgreSQL."""
_HEAD = 20  # int32: dimensions (1), flags, the elements' type, how many they are, the first one's index
_LENGTH = 4  # int32 in front of each element
_SENT = np.dtype(">f8")


def pack(covariances: Array) -> Array:
    """Return (m, q, q) symmetric matrices as (m, q(q+1)/2) upper triangles, row by row."""
    rows, columns = np.triu_indices(covariances.shape[-1])
    return covariances[:, rows, columns]


def unpack(packed: Array, q: int) -> Array:
    """Return a packed upper triangle as a (q, q) symmetric matrix. Raises ValueError for another length."""
    if packed.shape != (q * (q + 1) // 2,):
        raise ValueError(f"{packed.shape} is not the shape of a packed ({q}, {q}) matrix")
    return packed[places(q)]


@functools.lru_cache(maxsize=8)
def places(q: int) -> NDArray[np.intp]:
    """Return the place of each element of a (q, q) symmetric matrix in its packed form."""
    rows, columns = np.triu_indices(q)
    positions = np.empty((q, q), dtype=np.intp)
    positions[rows, columns] = positions[columns, rows] = np.arange(len(rows))
    return positions


def sent(array: str) -> Array:
    """Return the values, to the bit, of a double precision[] that `array_send` gave in hexadecimal.

    Raises ValueError where it is not of one dimension or where an element is null.
    """
    data = bytes.fromhex(array)
    if len(data) < _HEAD or data[3] != 1:
        raise ValueError("not an array of one dimension")
    count = int.from_bytes(data[12:16], "big")
    apart = _LENGTH + _SENT.itemsize
    if len(data) != _HEAD + count * apart:
        raise ValueError("an element is null")
    return np.ndarray(count, _SENT, data, _HEAD + _LENGTH, apart).astype(np.float64)


@functools.lru_cache(maxsize=8)
def binary(count: int) -> np.dtype[np.void]:
    """Return the type of a double precision[] of `count` elements in PostgreSQL's binary format.

    It is the array's head, then each element after its length.
    """
    element = np.dtype([("length", ">i4"), ("value", _SENT)])
    return np.dtype([("head", ">i4", (5,)), ("elements", element, (count,))])


def fill(column: NDArray[np.void], values: Array) -> None:
    """Write `values` (m, count) into m arrays of `binary(count)`."""
    column["head"] = (1, 0, FLOAT8, values.shape[1], 1)
    column["elements"]["length"] = _SENT.itemsize
    column["elements"]["value"] = values


def copied(columns: Mapping[str, Any], count: int) -> NDArray[np.void]:
    """Return `count` rows for COPY in binary, to stand between COPY_BEGINS and COPY_ENDS.

    A row is the number of columns, then each value, of its type in `columns`, after its length. The values
    are to be filled in.
    """
    fields = [(name, np.dtype([("length", ">i4"), ("value", kind)])) for name, kind in columns.items()]
    rows = np.zeros(count, [("columns", ">i2"), *fields])
    rows["columns"] = len(columns)
    for name, column in fields:
        rows[name]["length"] = column["value"].itemsize
    return rows


def received(rows: Sequence[memoryview], count: int) -> Array:
    """Return m arrays of `count` elements, as `array_send` gives them, as (m, count).

    Raises ValueError where an array has another length, or a null.
    """
    whole = np.frombuffer(b"".join(rows), binary(count))
    heads, lengths = whole["head"], whole["elements"]["length"]
    if len(whole) != len(rows) or (heads[:, 3] != count).any() or (lengths != _SENT.itemsize).any():
        raise ValueError(f"not {count} numbers each")
    return whole["elements"]["value"].astype(np.float64)
