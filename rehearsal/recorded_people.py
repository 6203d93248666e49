"""Real people out of a CSV: one row per participant and decision point.

Columns read (others are ignored): participant, decision_index (1 or more), decision_time (ISO 8601; the clock
time may be absent), evening (0 or 1), brushing_seconds (0 or more), app_used (0 or 1). A survey counts as
finished where there was any brushing, and the suggestion as used from 120 seconds on. Row t tells what
followed decision t, so its answers are reported at point t + 1: a person's first point, and the first after a
gap, has nothing to report.

The day of each point is the recorded one; the time of day is that of `evening`, at the clock time which the
person most often had on that weekday (evening rows may carry none).
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from rehearsal.contract import Enrolment, Survey
from rehearsal.people import NOTHING, Person, Point, local_time

COLUMNS = ("participant", "decision_index", "decision_time", "evening", "brushing_seconds", "app_used")
ZONE = "America/Los_Angeles"  # where the Oralytics pilot took place
LONGEST_BRUSHING = 180.0
SUGGESTION_USED = 120.0
MORNING, EVENING = 800, 2000  # notification times where a weekday has no clock time of its own

T = TypeVar("T")


class FileError(Exception):
    """What is wrong with a file, in one sentence."""


@dataclass(frozen=True)
class Row:
    """One decision point as recorded; `clock` is HHMM or None."""

    participant: str
    decision_index: int
    day: date
    clock: int | None
    evening: bool
    brushing_seconds: float
    app_used: bool

    def survey(self) -> Survey:
        """What the person reports of this row at the next point. The file knows no cannabis use."""
        if self.brushing_seconds == 0:
            return Survey(finished_ema=False, app_use_flag=self.app_used)
        used = self.brushing_seconds >= SUGGESTION_USED
        return Survey(True, app_use_flag=self.app_used, activity_question_response=used, cannabis_use=())


def people(path: Path) -> list[Person]:
    """Everyone in the file, by name. Raises FileError."""
    rows = sorted(read(path), key=lambda row: (row.participant, row.decision_index))
    return [_person(name, list(own)) for name, own in groupby(rows, key=lambda row: row.participant)]


def read(path: Path) -> list[Row]:
    """All rows, in the order of the file. Raises FileError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = _rows(path, csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            f"{path} cannot be read as CSV: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not rows:
        raise FileError(f"{path} has no rows")
    seen = Counter((row.participant, row.decision_index) for row in rows)
    twice = next((key for key, count in seen.items() if count > 1), None)
    if twice:
        raise FileError(f"{path} has decision_index {twice[1]} of participant {twice[0]} more than once")
    return rows


def _rows(path: Path, reader: "csv.DictReader[str]") -> list[Row]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise FileError(f"{path} lacks the column {missing[0]}")
    return [_row(path, reader.line_num, line) for line in reader]


def _row(path: Path, number: int, line: Mapping[str, str | None]) -> Row:
    def cell(name: str, parse: Callable[[str], T]) -> T:
        text = line[name] or ""
        try:
            return parse(text)
        except ValueError:
            raise FileError(f"{path}, line {number}: {name} cannot be {text!r}") from None

    evening = cell("evening", _flag)
    when = cell("decision_time", datetime.fromisoformat)
    clock = when.hour * 100 + when.minute
    return Row(
        participant=cell("participant", _name),
        decision_index=cell("decision_index", _index),
        day=when.date(),
        clock=clock if clock > 0 else None,
        evening=evening,
        brushing_seconds=cell("brushing_seconds", _seconds),
        app_used=cell("app_used", _flag),
    )


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text.strip()


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(text)
    return text == "1"


def _index(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(text)
    return min(seconds, LONGEST_BRUSHING)


def _person(name: str, rows: list[Row]) -> Person:
    mornings, evenings = _notification_times(rows)
    zone = ZoneInfo(ZONE)
    points = [
        Point(
            row.decision_index,
            local_time(row.day, (evenings if row.evening else mornings)[row.day.weekday()], zone),
            row.evening,
        )
        for row in rows
    ]
    return Person(_enrolment(name, rows, mornings, evenings), points, _answers(rows))


def _answers(rows: Iterable[Row]) -> Callable[[int, Sequence[int]], Survey]:
    reports = {row.decision_index + 1: row.survey() for row in rows}
    return lambda index, _actions: reports.get(index, NOTHING)


def _enrolment(name: str, rows: list[Row], mornings: tuple[int, ...], evenings: tuple[int, ...]) -> Enrolment:
    first, last = min(row.day for row in rows), max(row.day for row in rows) + timedelta(days=1)
    return Enrolment(name, first, last, first, last, mornings, evenings, ZONE)


def _notification_times(rows: list[Row]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pairs = [(_usual(rows, day, False, MORNING), _usual(rows, day, True, EVENING)) for day in range(7)]
    mornings, evenings = zip(*(p if p[0] < p[1] else (MORNING, EVENING) for p in pairs), strict=True)
    return mornings, evenings


def _usual(rows: list[Row], weekday: int, evening: bool, otherwise: int) -> int:
    clocks = [r.clock for r in rows if r.clock and r.evening == evening and r.day.weekday() == weekday]
    return Counter(clocks).most_common(1)[0][0] if clocks else otherwise
