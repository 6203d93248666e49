"""Recorded people, read from a CSV file with one row per participant and decision point.

Columns read (others are ignored): participant, decision_index (1 or more), decision_time (ISO 8601; the clock
time may be absent), evening (0 or 1), brushing_seconds (0 or more), app_used (0 or 1). A survey counts as
finished where there was any brushing, and the suggestion as used from 120 seconds on. Row t tells what
followed decision t, so its answers are reported at point t + 1: a person's first point, and the first after a
gap, has nothing to report.

The day of each point is the recorded one; the time of day is that of `evening`, at the clock time which the
person most often had on that weekday (evening rows may carry none).
"""

import contextlib
import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping
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
    """The fault of a file, in one sentence."""


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
        """Return the survey with which the person reports this row at the next point."""
        if self.brushing_seconds == 0:
            return Survey(finished_ema=False, app_use_flag=self.app_used)
        used = self.brushing_seconds >= SUGGESTION_USED
        # the file has no cannabis use, so none is reported
        return Survey(True, app_use_flag=self.app_used, activity_question_response=used, cannabis_use=())


def people(path: Path) -> list[Person]:
    """Return everybody in the file, by name. Raises FileError."""
    rows = sorted(read_rows(path), key=lambda row: (row.participant, row.decision_index))
    return [_person(name, list(group)) for name, group in groupby(rows, key=lambda row: row.participant)]


def read_rows(path: Path) -> list[Row]:
    """Return all rows, in the order of the file. Raises FileError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise FileError(f"{path} lacks the column {missing[0]}")
            rows = [_row(path, reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            f"{path} cannot be read as CSV: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not rows:
        raise FileError(f"{path} has no rows")
    counts = Counter((row.participant, row.decision_index) for row in rows)
    twice = next((key for key, count in counts.items() if count > 1), None)
    if twice:
        raise FileError(f"{path} has decision_index {twice[1]} of participant {twice[0]} more than once")
    return rows


def _row(path: Path, number: int, line: Mapping[str, str | None]) -> Row:
    """Return the row in line `number`. Raises FileError that names the line and the column at fault."""

    def cell(name: str, parse: Callable[[str], T], is_allowed: Callable[[T], bool] = lambda _: True) -> T:
        text = line[name] or ""  # None where the line is too short
        with contextlib.suppress(ValueError):
            value = parse(text)
            if is_allowed(value):
                return value
        raise FileError(f"{path}, line {number}: {name} cannot be {text!r}")

    flags = {"0": False, "1": True}
    when = cell("decision_time", datetime.fromisoformat)
    clock = when.hour * 100 + when.minute
    seconds = cell("brushing_seconds", float, lambda seconds: math.isfinite(seconds) and seconds >= 0)
    return Row(
        participant=cell("participant", str.strip, bool),
        decision_index=cell("decision_index", int, lambda index: index >= 1),
        day=when.date(),
        clock=clock if clock > 0 else None,  # midnight stands for a clock time that is absent
        evening=flags[cell("evening", str, flags.__contains__)],
        brushing_seconds=min(seconds, LONGEST_BRUSHING),
        app_used=flags[cell("app_used", str, flags.__contains__)],
    )


def _person(name: str, rows: list[Row]) -> Person:
    """Return the person with these rows, who is notified at their usual times."""
    pairs = [(_usual(rows, day, False, MORNING), _usual(rows, day, True, EVENING)) for day in range(7)]
    # a weekday whose usual morning is not before its usual evening gets the default times
    mornings, evenings = zip(*(p if p[0] < p[1] else (MORNING, EVENING) for p in pairs), strict=True)
    zone = ZoneInfo(ZONE)
    points = [
        Point(
            row.decision_index,
            local_time(row.day, (evenings if row.evening else mornings)[row.day.weekday()], zone),
            row.evening,
        )
        for row in rows
    ]
    first, last = min(row.day for row in rows), max(row.day for row in rows) + timedelta(days=1)
    enrolment = Enrolment(name, first, last, first, last, mornings, evenings, ZONE)
    reports = {row.decision_index + 1: row.survey() for row in rows}
    return Person(enrolment, points, lambda index, _actions: reports.get(index, NOTHING))


def _usual(rows: list[Row], weekday: int, evening: bool, otherwise: int) -> int:
    """Return the most frequent clock time (HHMM) of that weekday's mornings or evenings."""
    clocks = [r.clock for r in rows if r.clock and r.evening == evening and r.day.weekday() == weekday]
    return Counter(clocks).most_common(1)[0][0] if clocks else otherwise
