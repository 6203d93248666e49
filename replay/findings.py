"""The findings of a replay: for each kind of check how often it held, and the first place where it did
not."""

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
"""If this many times more numbers agree to the bit than only within rounding, this machine computes as the
service did, and a number that does not agree to the bit was altered."""
SHORT = 160
"""The characters of a value that a divergence shows at most."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A place where the export differs from the replay."""

    kind: str
    where: str
    stored: str
    recomputed: str


@dataclass
class Report:
    """Counts and first divergences by kind. `near` are the numbers that agree within rounding only, until
    `conclude` decides about them; `faults` are damages that decisions fell back from; `notes` say what could
    not be checked."""

    held: Counter[str] = field(default_factory=Counter)
    diverged: Counter[str] = field(default_factory=Counter)
    first: dict[str, Divergence] = field(default_factory=dict)
    near: dict[str, list[Divergence]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, kind: str, where: str, stored: Any, recomputed: Any) -> bool:
        """Compare values that must be equal; NaN equals NaN. Return True if they are."""
        if _equal(stored, recomputed):
            self.held[kind] += 1
            return True
        self.diverge(kind, where, stored, recomputed)
        return False

    def close(self, kind: str, where: str, stored: Any, recomputed: Any, tolerance: float) -> bool:
        """Compare numbers that must be equal to the bit or, on a machine with another arithmetic, within
        `tolerance` times the largest of them. Return True if they are."""
        try:
            replay_value, export_value = (
                np.asarray(recomputed, dtype=np.float64),
                np.asarray(stored, dtype=np.float64),
            )
        except (TypeError, ValueError):
            return self.compare(kind, where, stored, recomputed)
        same_shape = replay_value.shape == export_value.shape
        if same_shape and np.array_equal(replay_value, export_value, equal_nan=True):
            self.held[kind] += 1
            return True
        finite = np.isfinite(export_value).all() and np.isfinite(replay_value).all()
        bound = tolerance * float(np.abs(replay_value).max(initial=0))
        if not (same_shape and finite and (np.abs(export_value - replay_value) <= bound).all()):
            self.diverge(kind, where, stored, recomputed)
            return False
        self.approximate(kind, where, stored, recomputed)
        return True

    def approximate(self, kind: str, where: str, stored: Any, recomputed: Any) -> None:
        """Record values that may differ, but only under another arithmetic."""
        at, export_value, replay_value = _difference(stored, recomputed)
        self.near.setdefault(kind, []).append(Divergence(kind, where + at, export_value, replay_value))

    def diverge(self, kind: str, where: str, stored: Any, recomputed: Any) -> None:
        """Record a divergence."""
        at, export_value, replay_value = _difference(stored, recomputed)
        self._count(Divergence(kind, where + at, export_value, replay_value))

    def _count(self, divergence: Divergence) -> None:
        self.diverged[divergence.kind] += 1
        self.first.setdefault(divergence.kind, divergence)

    def conclude(self) -> None:
        """Decide about the numbers that agree within rounding only: they diverge if this machine computes as
        the service did, and hold if its arithmetic is another."""
        near = sum(map(len, self.near.values()))
        exact = sum(self.held[kind] for kind in ("probability", "posterior", "block", "hyper-parameters"))
        altered = exact >= SAME_ARITHMETIC * near
        for kind, divergences in self.near.items():
            if altered:
                for divergence in divergences:
                    self._count(divergence)
            else:
                self.held[kind] += len(divergences)
        if near and not altered:
            self.notes.append(
                f"{near} comparisons agree within rounding: this machine's arithmetic is another"
            )
        self.near = {}

    def lines(self) -> list[str]:
        """Return the report as lines of text for people to read."""
        lines = []
        for kind, meaning in KINDS.items():
            if self.diverged[kind]:
                lines.append(f"  DIVERGED {self.diverged[kind]:>8}  {kind}: {meaning}")
                first = self.first[kind]
                lines += [f"           first at {first.where}", f"             stored     {first.stored}"]
                lines.append(f"             recomputed {first.recomputed}")
            elif self.held[kind]:
                lines.append(f"  held     {self.held[kind]:>8}  {kind}: {meaning}")
        lines += [f"  fault    {fault}" for fault in self.faults]
        return lines + [f"  note     {note}" for note in self.notes]


def _equal(stored: Any, recomputed: Any) -> bool:
    if isinstance(stored, list) and isinstance(recomputed, list):
        pairs = zip(stored, recomputed, strict=False)
        return len(stored) == len(recomputed) and all(
            _equal(export_value, replay_value) for export_value, replay_value in pairs
        )
    if isinstance(stored, float) and isinstance(recomputed, float) and math.isnan(stored):
        return math.isnan(recomputed)
    # Python's True equals 1, but an export that says 1 for true is another export
    return bool(stored == recomputed) and isinstance(stored, bool) == isinstance(recomputed, bool)


def _difference(stored: Any, recomputed: Any) -> tuple[str, str, str]:
    """Return the place of the first difference in two values, and the texts of both there. The place is an
    element where the values are lists of equal length, else empty."""
    export_value, replay_value = _listed(stored), _listed(recomputed)
    if (
        isinstance(export_value, list)
        and isinstance(replay_value, list)
        and len(export_value) == len(replay_value)
    ):
        for place, (export_element, replay_element) in enumerate(
            zip(export_value, replay_value, strict=True)
        ):
            if not _equal(export_element, replay_element):
                within, export_text, replay_text = _difference(export_element, replay_element)
                return f", element {place}{within}", export_text, replay_text
    return "", _short(export_value), _short(replay_value)


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."
