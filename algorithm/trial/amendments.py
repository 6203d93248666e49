"""Which changes of a protocol need an amendment once decisions exist, key by key. Pure.

A key that is not named here needs one: whatever could change what was randomised, with which probability, or
what is learnt from it, is never changed in passing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from algorithm.trial.envelope import quiet_minutes

Leaves = dict[str, Any]
BASIS = ("protocol", "feature_version", "algorithm", "prior")
"""What a posterior is of: with another one, nothing that was learnt before may serve."""


def _always(_old: Any, _new: Any, _reached: int) -> bool:
    return True


def _not_below_reached(_old: int, new: int, reached: int) -> bool:
    return new >= reached


def _not_lower(old: float | None, new: float | None, _reached: int) -> bool:
    return old is None or (new is not None and new >= old)


def _not_higher(old: float | None, new: float | None, _reached: int) -> bool:
    return old is None or (new is not None and new <= old)


def _not_shorter(old: Any, new: Any, _reached: int) -> bool:
    return _minutes(old) <= _minutes(new)


def _minutes(hours: Mapping[str, int] | None) -> frozenset[int]:
    return quiet_minutes(None if hours is None else (hours["from"], hours["to"]))


TIGHTER: Mapping[str, Callable[[Any, Any, int], bool]] = {
    "envelope.quiet_hours": _not_shorter,
    "envelope.cool_down_hours": _not_lower,
    "envelope.daily_cap": _not_higher,
    "envelope.weekly_cap": _not_higher,
}
FREE: Mapping[str, Callable[[Any, Any, int], bool]] = {
    "schedule.study_length": _not_below_reached,
    "schedule.window_hours": _always,
    "schedule.look_back_hours": _always,
    "refit.min_interval_minutes": _always,
    "refit.nightly_only": _always,
    "refit.nightly_hour": _always,
    "refit.weekly_day": _always,
    **TIGHTER,
}
"""(old value, new value, highest decision index reached) -> whether the change needs no amendment."""


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted keys that two complete documents differ in."""
    before, after = leaves(old), leaves(new)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def breaking(old: Mapping[str, Any], new: Mapping[str, Any], reached: int) -> list[str]:
    """Those of the changes between two complete documents that need an amendment.

    reached: the highest decision index of any participant.
    """
    return _without(FREE, old, new, reached)


def only_tightens(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the safety envelope becomes tighter between two complete documents and nothing else changes."""
    return not _without(TIGHTER, old, new, 0)


def _without(
    allowed: Mapping[str, Callable[[Any, Any, int], bool]],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    reached: int,
) -> list[str]:
    """The keys that change in another way than is allowed."""
    before, after = leaves(old), leaves(new)
    return [
        key
        for key in changes(old, new)
        if key not in allowed or not allowed[key](before.get(key), after.get(key), reached)
    ]


def begins_anew(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether nothing that was learnt under one complete document may serve under another."""
    return any(old.get(key) != new.get(key) for key in BASIS)


def leaves(document: Mapping[str, Any]) -> Leaves:
    """A complete document by dotted key. Quiet hours are one value, as they are changed."""
    return dict(_leaves("", document))


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and key != "envelope.quiet_hours":
            yield from _leaves(f"{key}.", inner)
        else:
            yield key, inner
