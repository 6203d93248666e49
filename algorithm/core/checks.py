"""Checks of single values in a protocol document.

A check is a function of (dotted key, given value) that returns the value in its declared type, or raises
`ProtocolError` naming the key. The result of a check passes the same check unchanged.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[str, object], Any]


class ProtocolError(ValueError):
    """A protocol document that cannot be used. `key` is the dotted key at fault, which the message names
    too."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


def real(low: float, high: float, exclude: Collection[float] = ()) -> Check:
    """A number in [low, high], both finite, that is none of `exclude`; returned as a float."""

    def check(key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(key, "must be a number")
        if not low <= value <= high or value in exclude:
            raise ProtocolError(key, f"must be {_interval(low, high, exclude)}")
        return float(value)

    return check


def _interval(low: float, high: float, exclude: Collection[float]) -> str:
    without = "".join(f", not {value:g}" for value in exclude)
    return f"a number in [{low:g}, {high:g}]{without}"


def integer(low: int, high: int) -> Check:
    """A whole number in [low, high], written without a fraction."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ProtocolError(key, "must be a whole number")
        if not low <= value <= high:
            raise ProtocolError(key, f"must be a whole number from {low} to {high}")
        return value

    return check


def hhmm(key: str, value: object) -> int:
    """A time of day as HHMM, 0 to 2359."""
    time: int = integer(0, 2359)(key, value)
    if time % 100 > 59:
        raise ProtocolError(key, "must be a time of day as HHMM")
    return time


def boolean(key: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ProtocolError(key, "must be true or false")
    return value


def choice(*names: str) -> Check:
    """One of `names`."""

    def check(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ProtocolError(key, f"{value!r} is unknown; known: {', '.join(names)}")
        return value

    return check


def constant(only: int) -> Check:
    """The whole number `only` and no other: what a design fixes and a document may merely repeat."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or value != only:
            raise ProtocolError(key, f"must be {only} in this protocol")
        return only

    return check


def reals(length: int, element: Check) -> Check:
    """A list of `length` values, each passing `element`."""

    def check(key: str, value: object) -> list[float]:
        if not isinstance(value, list | tuple) or len(value) != length:
            raise ProtocolError(key, f"must be a list of {length} numbers")
        return [element(f"{key}.{position}", number) for position, number in enumerate(value)]

    return check


def several(element: Check) -> Check:
    """A list of any length whose values pass `element` each."""

    def check(key: str, value: object) -> list[Any]:
        if not isinstance(value, list):
            raise ProtocolError(key, "must be a list")
        return [element(f"{key}.{position}", one) for position, one in enumerate(value)]

    return check


def optional(check: Check, default: Any) -> Check:
    """null, which stands for `default`, or a value that passes `check`."""
    return lambda key, value: default if value is None else check(key, value)


def section(checks: Mapping[str, Check], defaults: Mapping[str, Any]) -> Check:
    """An object with the keys of `checks` and no other; absent keys take their value from `defaults`."""

    def check(key: str, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ProtocolError(key or "document", "must be an object")
        prefix = f"{key}." if key else ""
        for name in value:
            if name not in checks:
                raise ProtocolError(f"{prefix}{name}", f"unknown key; known: {', '.join(checks)}")
        return {
            name: check_one(f"{prefix}{name}", value.get(name, defaults.get(name)))
            for name, check_one in checks.items()
        }

    return check
