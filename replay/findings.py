"""What a replay finds: for each kind of check how often it held, and the first place where it did not."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = {
    "checksum": "files are as the manifest says",
    "parquet": "Parquet and CSV say the same",
    "protocol": "protocol documents have their hashes",
    "audit": "the audit's rows follow each other by their hashes",
    "reference": "rows belong together, in order and without a gap",
    "answers": "versions of answers make the outcomes they are said to make",
    "discrepancy": "reports that disagree are recorded, and no other",
    "time": "time of day and offset follow from decision_time and zone",
    "window": "windows follow their decisions",
    "reward": "the reward follows from the answers",
    "state": "the state follows from the answers, as known then",
    "availability": "points were available unless a rule of the safety envelope forbade a message",
    "fallback": "the rung of the ladder is the one that held",
    "probability": "act_prob follows from the policy and the state",
    "seed": "the seed is that of the study's key",
    "action": "the action follows from seed and act_prob",
    "learning row": "learning rows are the pairs of decisions and outcomes, as known then",
    "statistics hash": "policies contain exactly their learning rows",
    "hyper-parameters": "hyper-parameters are those of the policy before, or of their own fit",
    "posterior": "the policy's parameters follow from its rows",
    "block": "what serves each participant follows from the policy",
    "fit report": "the numbers of a fit's report follow from the fit",
    "trial table": "the long table follows from the other tables",
}
SAME_ARITHMETIC = 9
"""Where so many times more numbers agree to the bit than only within rounding, this machine computes as the
service did, and a number that does not agree to the bit was altered."""
SHORT = 160


@dataclass(frozen=True, slots=True)
class Divergence:
    """A place where the export says something else than the replay."""

    kind: str
    where: str
    stored: str
    recomputed: str


@dataclass
class Report:
    """Counts and first divergences by kind; `faults` are damages that decisions fell back from, `notes` what
    could not be checked."""

    held: Counter[str] = field(default_factory=Counter)
    diverged: Counter[str] = field(default_factory=Counter)
    first: dict[str, Divergence] = field(default_factory=dict)
    near: dict[str, list[Divergence]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, kind: str, where: str, stored: Any, recomputed: Any) -> bool:
        """Values that must be equal; NaN equals NaN."""
        if _equal(stored, recomputed):
            self.held[kind] += 1
            return True
        self.diverge(kind, where, stored, recomputed)
        return False

    def close(self, kind: str, where: str, stored: Any, recomputed: Any, tolerance: float) -> bool:
        """Numbers that must be equal, to the bit or, on a machine with another arithmetic, within `tolerance`
        times the largest of them."""
        try:
            ours, theirs = np.asarray(recomputed, dtype=np.float64), np.asarray(stored, dtype=np.float64)
        except (TypeError, ValueError):
            return self.compare(kind, where, stored, recomputed)
        if ours.shape == theirs.shape and np.array_equal(ours, theirs, equal_nan=True):
            self.held[kind] += 1
            return True
        if not _within(theirs, ours, tolerance):
            self.diverge(kind, where, stored, recomputed)
            return False
        self.approximate(kind, where, stored, recomputed)
        return True

    def approximate(self, kind: str, where: str, stored: Any, recomputed: Any) -> None:
        """Values that only another arithmetic may let differ so."""
        at = _difference(stored, recomputed)
        self.near.setdefault(kind, []).append(Divergence(kind, where + at[0], at[1], at[2]))

    def diverge(self, kind: str, where: str, stored: Any, recomputed: Any) -> None:
        """A divergence."""
        at, theirs, ours = _difference(stored, recomputed)
        self._count(Divergence(kind, where + at, theirs, ours))

    def _count(self, found: Divergence) -> None:
        self.diverged[found.kind] += 1
        self.first.setdefault(found.kind, found)

    def conclude(self) -> None:
        """Decide about the numbers that agree within rounding only."""
        near = sum(map(len, self.near.values()))
        exact = sum(self.held[kind] for kind in ("probability", "posterior", "block", "hyper-parameters"))
        altered = exact >= SAME_ARITHMETIC * near
        for kind, found in self.near.items():
            if altered:
                for divergence in found:
                    self._count(divergence)
            else:
                self.held[kind] += len(found)
        if near and not altered:
            self.notes.append(
                f"{near} comparisons agree within rounding: this machine's arithmetic is another"
            )
        self.near = {}

    def lines(self) -> list[str]:
        """The report for eyes."""
        found = []
        for kind, meaning in KINDS.items():
            if self.diverged[kind]:
                found.append(f"  DIVERGED {self.diverged[kind]:>8}  {kind}: {meaning}")
                one = self.first[kind]
                found += [f"           first at {one.where}", f"             stored     {one.stored}"]
                found.append(f"             recomputed {one.recomputed}")
            elif self.held[kind]:
                found.append(f"  held     {self.held[kind]:>8}  {kind}: {meaning}")
        found += [f"  fault    {fault}" for fault in self.faults]
        return found + [f"  note     {note}" for note in self.notes]


def _equal(stored: Any, recomputed: Any) -> bool:
    if isinstance(stored, list) and isinstance(recomputed, list):
        pairs = zip(stored, recomputed, strict=False)
        return len(stored) == len(recomputed) and all(_equal(one, other) for one, other in pairs)
    if isinstance(stored, float) and isinstance(recomputed, float) and math.isnan(stored):
        return math.isnan(recomputed)
    return bool(stored == recomputed) and isinstance(stored, bool) == isinstance(recomputed, bool)


def _within(stored: np.ndarray[Any, Any], recomputed: np.ndarray[Any, Any], tolerance: float) -> bool:
    if stored.shape != recomputed.shape or not np.isfinite(stored).all() or not np.isfinite(recomputed).all():
        return False
    scale = float(np.abs(recomputed).max(initial=0))
    return bool((np.abs(stored - recomputed) <= tolerance * scale).all())


def _difference(stored: Any, recomputed: Any) -> tuple[str, str, str]:
    """Where in two values, and what there: the first element that differs of lists of equal length."""
    theirs, ours = _listed(stored), _listed(recomputed)
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for place, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            if not _equal(one, other):
                at = _difference(one, other)
                return f", element {place}{at[0]}", at[1], at[2]
    return "", _short(theirs), _short(ours)


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= SHORT else f"{told[:SHORT]}..."
