"""Checks of single values in a protocol document.

A check is a function of (dotted key, value in the document) that returns the value in its declared type, or
raises `ProtocolError` naming the key. The result of a check passes the same check unchanged.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[str, object], Any]


class ProtocolError(ValueError):
    """A protocol document cannot be used. `key` is the dotted key at fault; the message names it too."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


def real(low: float, high: float, exclude: Collection[float] = ()) -> Check:
    """Return a check for a number in [low, high], both finite, that is none of `exclude`. The checked value
    is a float."""

    def check(key: str, value: object) -> float:
        # JSON's true and false are bool, which Python counts among the ints
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(key, "must be a number")
        if not low <= value <= high or value in exclude:
            exclusions = "".join(f", not {number:g}" for number in exclude)
            raise ProtocolError(key, f"must be a number in [{low:g}, {high:g}]{exclusions}")
        return float(value)

    return check


def integer(low: int, high: int) -> Check:
    """Return a check for a whole number in [low, high], written without a fraction."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ProtocolError(key, "must be a whole number")
        if not low <= value <= high:
            raise ProtocolError(key, f"must be a whole number from {low} to {high}")
        return value

    return check


def hhmm(key: str, value: object) -> int:
    """Check a time of day, written HHMM from 0 to 2359."""
    time: int = integer(0, 2359)(key, value)
    if time % 100 > 59:
        raise ProtocolError(key, "must be a time of day as HHMM")
    return time


def boolean(key: str, value: object) -> bool:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise ProtocolError(key, "must be true or false")
    return value


def choice(*names: str) -> Check:
    """Return a check for one of `names`."""

    def check(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ProtocolError(key, f"{value!r} is unknown; known: {', '.join(names)}")
        return value

    return check


def constant(only: int) -> Check:
    """Return a check for the whole number `only`, which a design fixes and a document may merely repeat."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or value != only:
            raise ProtocolError(key, f"must be {only} in this protocol")
        return only

    return check


def reals(length: int, element: Check) -> Check:
    """Return a check for a list of `length` values that each pass the check `element`."""

    def check(key: str, value: object) -> list[float]:
        if not isinstance(value, list | tuple) or len(value) != length:
            raise ProtocolError(key, f"must be a list of {length} numbers")
        return [element(f"{key}.{position}", number) for position, number in enumerate(value)]

    return check


def several(element: Check) -> Check:
    """Return a check for a list of any length whose values each pass the check `element`."""

    def check(key: str, value: object) -> list[Any]:
        if not isinstance(value, list):
            raise ProtocolError(key, "must be a list")
        return [element(f"{key}.{position}", item) for position, item in enumerate(value)]

    return check


def optional(check: Check, default: Any) -> Check:
    """Return a check that takes null for `default`, and otherwise a value that passes `check`."""
    return lambda key, value: default if value is None else check(key, value)


def section(checks: Mapping[str, Check], defaults: Mapping[str, Any]) -> Check:
    """Return a check for an object with the keys of `checks` and no other. Absent keys take their value from
    `defaults`."""

    def check(key: str, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ProtocolError(key or "document", "must be an object")
        prefix = f"{key}." if key else ""
        for name in value:
            if name not in checks:
                raise ProtocolError(f"{prefix}{name}", f"unknown key; known: {', '.join(checks)}")
        return {
            name: check_value(f"{prefix}{name}", value.get(name, defaults.get(name)))
            for name, check_value in checks.items()
        }

    return check
