"""The reader of an export: a folder, or a .zip of one, as docs/export.md has it. Only CSV files are read."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats

FORMAT = "kairos-export-1"


class BadExport(ValueError):
    """An export cannot be read; the message says why."""


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def _parsed(text: str) -> Any:
    return json.loads(text) if text else None


READERS: dict[str, Callable[[str], Any]] = {
    "number": _number,
    "integer": _number,
    "boolean": lambda text: {"": float("nan"), "true": 1.0, "false": 0.0}[text],
    "json": _parsed,
    "numbers": _parsed,
    "integers": _parsed,
}
"""The function that reads a field, by kind. Fields of other kinds stay texts. A null is NaN, None or the
empty text."""
NUMERIC = {"number", "integer", "boolean"}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table's columns by name, all of the same length. Numbers, integers and booleans are float64 with NaN
    for null."""

    columns: dict[str, Any]
    rows: int

    def numbers(self, name: str) -> Floats:
        """Return a numeric column (rows,). Raises BadExport where there is none of this name."""
        if not isinstance(column := self.columns.get(name), np.ndarray):
            raise BadExport(f"no numeric column {name}; there are {', '.join(self.columns)}")
        return column

    def list(self, name: str) -> list[Any]:
        """Return a column that is not numeric. Raises BadExport where there is none of this name."""
        if not isinstance(column := self.columns.get(name), list):
            raise BadExport(f"no column {name}; there are {', '.join(self.columns)}")
        return column


class Export:
    """An export on disk. Each table is read when it is first needed, and then kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: dict[str, Table] = {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json. Raises BadExport for another format."""
        with self._open("manifest.json") as stream:
            contents: dict[str, Any] = json.load(stream)
        if contents.get("format") != FORMAT:
            raise BadExport(f"format {contents.get('format')!r} is not {FORMAT}")
        return contents

    def table(self, name: str) -> Table:
        """Return the table `name`. Raises BadExport where the export has none."""
        if name not in self._tables:
            if name not in self.manifest["tables"]:
                raise BadExport(f"the export has no table {name}")
            kinds = dict(self.manifest["tables"][name]["columns"])
            csv.field_size_limit(1 << 30)  # a covariance is one field
            with self._open(f"{name}.csv") as stream:
                lines = csv.reader(stream)
                header, rows = next(lines), list(lines)
            columns: dict[str, Any] = {}
            for place, column in enumerate(header):
                kind = kinds.get(column, "text")
                values = [READERS.get(kind, str)(row[place]) for row in rows]
                columns[column] = np.array(values, dtype=np.float64) if kind in NUMERIC else values
            self._tables[name] = Table(columns, len(rows))
        return self._tables[name]

    @contextmanager
    def _open(self, name: str) -> Iterator[io.TextIOBase]:
        try:
            if self.path.is_dir():
                with (self.path / name).open(encoding="utf-8", newline="") as stream:
                    yield stream
                return
            with zipfile.ZipFile(self.path) as archive:
                # somebody may have packed the folder itself instead of its files
                inside = next(entry for entry in archive.namelist() if entry.rpartition("/")[2] == name)
                with archive.open(inside) as raw:
                    yield io.TextIOWrapper(raw, encoding="utf-8", newline="")
        except (OSError, StopIteration, zipfile.BadZipFile) as error:
            raise BadExport(f"{self.path}: no file {name} can be read ({error})") from error
