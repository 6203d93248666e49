"""The changes of a protocol that need an amendment once decisions exist, key by key. Pure.

A key that is not named here needs one: whatever could change what is randomised, with which probability, or
what is learnt from it, is never changed in passing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from algorithm.trial.envelope import quiet_minutes

Leaves = dict[str, Any]
Rule = Callable[[Any, Any, int], bool]
"""A function of (old value, new value, highest decision index reached) that tells whether a change is
allowed."""
BASIS = ("protocol", "feature_version", "algorithm", "prior")
"""The keys that give a posterior its meaning: when one changes, nothing learnt before may serve."""


def _always(_old: Any, _new: Any, _reached: int) -> bool:
    return True


def _not_higher(old: float | None, new: float | None, _reached: int) -> bool:
    return old is None or (new is not None and new <= old)


def _minutes(hours: Mapping[str, int] | None) -> frozenset[int]:
    return quiet_minutes(None if hours is None else (hours["from"], hours["to"]))


TIGHTER: Mapping[str, Rule] = {
    # compared as sets of minutes: quiet hours may begin later and still be longer, over midnight
    "envelope.quiet_hours": lambda old, new, _: _minutes(old) <= _minutes(new),
    "envelope.cool_down_hours": lambda old, new, _: old is None or (new is not None and new >= old),
    "envelope.daily_cap": _not_higher,
    "envelope.weekly_cap": _not_higher,
}
"""The keys of the safety envelope, each with the rule that a change makes it tighter."""
FREE: Mapping[str, Rule] = {
    "schedule.study_length": lambda _, length, reached: length >= reached,
    "schedule.window_hours": _always,
    "schedule.look_back_hours": _always,
    "refit.min_interval_minutes": _always,
    "refit.nightly_only": _always,
    "refit.nightly_hour": _always,
    "refit.weekly_day": _always,
    **TIGHTER,
}
"""The keys that may change without an amendment, each with the rule that a change must satisfy."""


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys in which two complete documents differ, sorted."""
    before, after = leaves(old), leaves(new)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def breaking(old: Mapping[str, Any], new: Mapping[str, Any], reached: int) -> list[str]:
    """Return the dotted keys that change between two complete documents in a way that needs an amendment.

    reached: the highest decision index of any participant.
    """
    return _without(FREE, old, new, reached)


def only_tightens(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return True if the safety envelope becomes tighter between two complete documents and nothing else
    changes."""
    return not _without(TIGHTER, old, new, 0)


def _without(
    allowed: Mapping[str, Rule], old: Mapping[str, Any], new: Mapping[str, Any], reached: int
) -> list[str]:
    """Return the keys that change without being in `allowed`, or against their rule there."""
    before, after = leaves(old), leaves(new)
    return [
        key
        for key in changes(old, new)
        if key not in allowed or not allowed[key](before.get(key), after.get(key), reached)
    ]


def begins_anew(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return True if nothing that was learnt under the old complete document may serve under the new one."""
    return any(old.get(key) != new.get(key) for key in BASIS)


def leaves(document: Mapping[str, Any]) -> Leaves:
    """Return the values of a complete document by dotted key. Quiet hours are one value, because their two
    ends change together."""
    return dict(_leaves("", document))


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and key != "envelope.quiet_hours":
            yield from _leaves(f"{key}.", inner)
        else:
            yield key, inner
