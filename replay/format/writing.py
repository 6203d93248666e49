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
    """The source of an export: one snapshot of a study."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The manifest's entries about the study: study, as_of, protocol_hashes, study_key_sha256, ..."""

    @property
    def tables(self) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        """The columns of the raw tables, by name; each has the fields of `Column`."""

    def chunks(self, table: str) -> Iterator[Chunk]:
        """Yield the rows of a raw table, in its order."""

    def protocol(self) -> Mapping[str, Any]:
        """Return the protocol document in force."""

    def people(self) -> Iterator[Mapping[str, list[long_table.Row]]]:
        """Yield the rows of each table of `long_table.Raw`, a few participants at a time, by participant."""


class TableWriter:
    """The writer of one table into <name>.csv and <name>.parquet."""

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
            return  # no row has no columns to transpose
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
    """Write an export into the empty `folder` and return its manifest. `progress` is called with the table
    and its number of rows so far after each chunk."""
    document = source.protocol()
    raw = {name: [Column(*column) for column in columns] for name, columns in source.tables.items()}
    tables: dict[str, Sequence[Column]] = {"trial": long_table.columns(document), **raw}
    counts = {"trial": _table(folder, "trial", tables["trial"], _long(source, document), progress)}
    for name, columns in raw.items():
        counts[name] = _table(folder, name, columns, source.chunks(name), progress)
    tables["dictionary"] = DICTIONARY
    entries = [
        (name, c.name, c.kind, c.nullable, c.unit, c.range, c.meaning)
        for name, columns in tables.items()
        for c in columns
    ]
    # CSV writes null as the empty text, so an empty text must be null in Parquet too
    lines = [tuple(None if value == "" else value for value in entry) for entry in entries]
    counts["dictionary"] = _table(folder, "dictionary", DICTIONARY, [lines], progress)
    _dictionary_page(folder, lines)
    table_facts = {
        name: {"rows": counts[name], "columns": [[column.name, column.kind] for column in columns]}
        for name, columns in tables.items()
    }
    facts = {**source.facts, "as_of": source.facts["as_of"].isoformat(), "code_version": code_version}
    return seal(folder, {"format": FORMAT, **facts, "tables": table_facts})


def seal(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of the files in `folder`, with the checksum of each, and return it."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST  # it cannot hold its own checksum
    }
    manifest = {**facts, "files": files}
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def pack(folder: Path, target: Path) -> None:
    """Pack all files of `folder` into the zip `target`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(
    folder: Path, name: str, columns: Sequence[Column], chunks: Iterable[Chunk], progress: Progress
) -> int:
    """Write a table and return the number of its rows."""
    with TableWriter(folder, name, columns) as writer:
        progress(name, 0)
        for chunk in chunks:
            writer.write(chunk)
            progress(name, writer.rows)
    return writer.rows


def _long(source: Source, document: Mapping[str, Any]) -> Iterator[Chunk]:
    """Yield the rows of the long table, in chunks."""
    names = [column.name for column in long_table.columns(document)]
    context = long_table.Context(load(document), source.facts["as_of"])
    for tables in source.people():
        rows = long_table.rows(long_table.Raw(**tables), context)
        while part := list(islice(rows, ROWS)):
            yield [[row[name] for name in names] for row in part]


def _dictionary_page(folder: Path, lines: Sequence[tuple[Any, ...]]) -> None:
    """Write the dictionary as a page for people to read."""
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
