"""Writing an export: every table as CSV and as Parquet, chunk by chunk, then the manifest and the zip."""

import csv
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from algorithm.trial.protocol import load
from replay.format import long_table
from replay.format.columns import KINDS, Column, array, encode

FORMAT = "kairos-export-1"
MANIFEST = "manifest.json"
ROWS = 5000  # of the long table in memory at once, however long the study is
DICTIONARY = (
    Column("table", "text", "name of the table"),
    Column("column", "text", "name of the column"),
    Column("kind", "text", "kind of value, as docs/export.md writes each"),
    Column("nullable", "boolean", "whether it may be null"),
    Column("unit", "text", "unit"),
    Column("range", "text", "what values are possible"),
    Column("meaning", "text", "what it means"),
)
Chunk = Sequence[Sequence[Any]]
Progress = Callable[[str, int], None]


class Source(Protocol):
    """Where an export comes from: one snapshot of a study."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says of the study: study, as_of, protocol_hashes, study_key_sha256, ..."""

    @property
    def tables(self) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        """The columns of the raw tables, by name; each has the fields of `Column`."""

    def chunks(self, table: str) -> Iterator[Chunk]:
        """The rows of a raw table, in its order."""

    def protocol(self) -> Mapping[str, Any]:
        """The protocol document in force."""

    def people(self) -> Iterator[Mapping[str, list[long_table.Row]]]:
        """The rows of each table of `trial.Raw`, a few participants at a time, by participant."""


class TableWriter:
    """One table on its way into <name>.csv and <name>.parquet."""

    def __init__(self, folder: Path, name: str, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.rows = 0
        self.schema = pa.schema([(column.name, KINDS[column.kind].arrow) for column in columns])
        self.file = (folder / f"{name}.csv").open("w", newline="", encoding="utf-8")
        self.csv = csv.writer(self.file, lineterminator="\n")
        self.csv.writerow(column.name for column in columns)
        self.parquet = pq.ParquetWriter(folder / f"{name}.parquet", self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self.parquet.close()

    def write(self, chunk: Chunk) -> None:
        """Append rows."""
        if not chunk:
            return
        kinds = [column.kind for column in self.columns]
        self.csv.writerows(
            [encode(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in chunk
        )
        columns = [
            array(kind, list(values)) for kind, values in zip(kinds, zip(*chunk, strict=True), strict=True)
        ]
        self.parquet.write_table(pa.table(columns, schema=self.schema))
        self.rows += len(chunk)


def write(folder: Path, source: Source, code_version: str, progress: Progress) -> dict[str, Any]:
    """Write an export into the empty `folder`; its manifest. `progress` hears of each chunk: table, rows."""
    document = source.protocol()
    raw = {name: [Column(*column) for column in found] for name, found in source.tables.items()}
    tables: dict[str, Sequence[Column]] = {"trial": long_table.columns(document), **raw}
    counts = {"trial": _table(folder, "trial", tables["trial"], _long(source, document), progress)}
    for name, columns in raw.items():
        counts[name] = _table(folder, name, columns, source.chunks(name), progress)
    tables["dictionary"] = DICTIONARY
    described = [(name, column) for name, columns in tables.items() for column in columns]
    lines = [(name, *_described(column)) for name, column in described]
    counts["dictionary"] = _table(folder, "dictionary", DICTIONARY, [lines], progress)
    _page(folder, lines)
    listed = {name: {"rows": counts[name], "columns": _listed(tables[name])} for name in tables}
    facts = {**source.facts, "as_of": source.facts["as_of"].isoformat(), "code_version": code_version}
    return seal(folder, {"format": FORMAT, **facts, "tables": listed})


def seal(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of what lies in `folder`, with the checksum of every file; the manifest."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    manifest = {**facts, "files": files}
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def pack(folder: Path, target: Path) -> None:
    """All files of `folder` in one zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(
    folder: Path, name: str, columns: Sequence[Column], chunks: Iterable[Chunk], progress: Progress
) -> int:
    with TableWriter(folder, name, columns) as writer:
        progress(name, 0)
        for chunk in chunks:
            writer.write(chunk)
            progress(name, writer.rows)
    return writer.rows


def _long(source: Source, document: Mapping[str, Any]) -> Iterator[Chunk]:
    names = [column.name for column in long_table.columns(document)]
    when = long_table.Context(load(document), source.facts["as_of"])
    for found in source.people():
        rows = long_table.rows(long_table.Raw(**found), when)
        while part := list(islice(rows, ROWS)):
            yield [[row[name] for name in names] for row in part]


def _listed(columns: Sequence[Column]) -> list[list[str]]:
    return [[column.name, column.kind] for column in columns]


def _described(column: Column) -> tuple[Any, ...]:
    told = (column.name, column.kind, column.nullable, column.unit, column.range, column.meaning)
    return tuple(None if value == "" else value for value in told)


def _page(folder: Path, lines: Sequence[tuple[Any, ...]]) -> None:
    """The dictionary for eyes."""
    with (folder / "dictionary.md").open("w", encoding="utf-8") as page:
        page.write("# Data dictionary\n")
        table = None
        for name, column, kind, nullable, unit, possible, meaning in lines:
            if name != table:
                page.write(f"\n## {name}\n\n| column | kind | null | unit | range | meaning |\n")
                page.write("|---|---|---|---|---|---|\n")
                table = name
            cells = (
                f"`{column}`",
                kind,
                "yes" if nullable else "no",
                unit or "",
                possible or "",
                meaning or "",
            )
            page.write("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
