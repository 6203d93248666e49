"""Reading an export: a folder, or a .zip of one, as docs/export.md has it. Only its CSV files are read."""

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
    """An export that cannot be read; the message says why."""


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
"""How a field of each kind is read; of all others the text stays. A null is NaN, None or the empty text."""
NUMERIC = {"number", "integer", "boolean"}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table's columns by name, all of one length. Numbers, integers and booleans are float64 with NaN for
    null."""

    columns: dict[str, Any]
    rows: int

    def numbers(self, name: str) -> Floats:
        """A numeric column (rows,). Raises BadExport where there is none of this name."""
        if not isinstance(found := self.columns.get(name), np.ndarray):
            raise BadExport(f"no numeric column {name}; there are {', '.join(self.columns)}")
        return found

    def list(self, name: str) -> list[Any]:
        """Any other column. Raises BadExport where there is none of this name."""
        if not isinstance(found := self.columns.get(name), list):
            raise BadExport(f"no column {name}; there are {', '.join(self.columns)}")
        return found


class Export:
    """An export on disk. Tables are read when they are asked for, once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: dict[str, Table] = {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json. Raises BadExport for another format."""
        with self._open("manifest.json") as stream:
            found: dict[str, Any] = json.load(stream)
        if found.get("format") != FORMAT:
            raise BadExport(f"format {found.get('format')!r} is not {FORMAT}")
        return found

    def table(self, name: str) -> Table:
        """The table `name`. Raises BadExport where the export has none."""
        if name not in self._tables:
            if name not in self.manifest["tables"]:
                raise BadExport(f"the export has no table {name}")
            with self._open(f"{name}.csv") as stream:
                self._tables[name] = _read(stream, dict(self.manifest["tables"][name]["columns"]))
        return self._tables[name]

    @contextmanager
    def _open(self, name: str) -> Iterator[io.TextIOBase]:
        try:
            if self.path.is_dir():
                with (self.path / name).open(encoding="utf-8", newline="") as stream:
                    yield stream
                return
            with zipfile.ZipFile(self.path) as archive:
                inside = next(entry for entry in archive.namelist() if entry.rpartition("/")[2] == name)
                with archive.open(inside) as raw:
                    yield io.TextIOWrapper(raw, encoding="utf-8", newline="")
        except (OSError, StopIteration, zipfile.BadZipFile) as error:
            raise BadExport(f"{self.path}: no file {name} can be read ({error})") from error


def _read(stream: io.TextIOBase, kinds: dict[str, str]) -> Table:
    csv.field_size_limit(1 << 30)
    lines = csv.reader(stream)
    header = next(lines)
    rows = list(lines)
    columns: dict[str, Any] = {}
    for place, name in enumerate(header):
        kind = kinds.get(name, "text")
        values = [READERS.get(kind, str)(row[place]) for row in rows]
        columns[name] = np.array(values, dtype=np.float64) if kind in NUMERIC else values
    return Table(columns, len(rows))
