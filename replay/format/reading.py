"""Reading an export, a folder or a zip: the manifest, its checksums, and the tables."""

import csv
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException
from pydantic import BaseModel, ConfigDict, ValidationError

from replay.findings import Report
from replay.format.columns import KINDS, Column, decode, texts
from replay.format.writing import FORMAT, MANIFEST, sha256

csv.field_size_limit(2**31 - 1)  # a covariance is one field
LARGEST = 64 * 2**30
"""The bytes that a zip may hold unpacked at most."""
Row = dict[str, Any]


class Unreadable(Exception):
    """An export cannot be read, or there is none; the message says why."""


class Strict(BaseModel):
    """Part of a manifest."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StudyFacts(Strict):
    """The study's row, as of the export."""

    name: str
    timezone: str
    ema_timezone: str
    protocol_version: int
    policy_id: int
    row_seq: int
    created_at: str
    paused: bool
    learning_frozen: bool
    closed_at: str | None


class FileFacts(Strict):
    """A file of the export."""

    bytes: int
    sha256: str


class TableFacts(Strict):
    """A table of the export: the number of its rows, and its columns as (name, kind)."""

    rows: int
    columns: list[tuple[str, str]]


class Manifest(Strict):
    """The manifest of an export, which describes the study, the tables and the files."""

    format: str
    study: StudyFacts
    as_of: str
    code_version: str
    protocol_hashes: dict[str, str]
    study_key_sha256: str
    study_key: str | None
    tables: dict[str, TableFacts]
    files: dict[str, FileFacts]


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Open the folder of an export. A zip is unpacked for as long as it is open. Raises Unreadable."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kairos-replay-") as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                # a name with a folder in it could write outside of ours
                if any(Path(member.filename).name != member.filename for member in members):
                    raise Unreadable(f"{path}: a name in the zip is no plain file name")
                if sum(member.file_size for member in members) > LARGEST:
                    raise Unreadable(f"{path}: unpacked it would be too large")
                for member in members:
                    with archive.open(member) as source, (folder / member.filename).open("wb") as target:
                        shutil.copyfileobj(source, target)
        except (OSError, zipfile.BadZipFile) as error:
            raise Unreadable(f"{path}: {error}") from None
        yield folder


def manifest(folder: Path) -> Manifest:
    """Read the manifest. Raises Unreadable."""
    try:
        facts = Manifest.model_validate(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except OSError as error:
        raise Unreadable(f"{MANIFEST}: {error.strerror}") from None
    except (ValueError, ValidationError) as error:
        raise Unreadable(f"{MANIFEST}: {type(error).__name__}, it is not the manifest of an export") from None
    if facts.format != FORMAT:
        raise Unreadable(f"{MANIFEST}: the format {facts.format!r} is not {FORMAT!r}")
    for table in facts.tables.values():
        for name, kind in table.columns:
            if kind not in KINDS:
                raise Unreadable(f"{MANIFEST}: column {name} has the unknown kind {kind!r}")
    return facts


def check_files(folder: Path, facts: Manifest, report: Report) -> None:
    """Check that every file is there, whole and as it was written, and no other. Raises Unreadable for a
    missing file."""
    for name, file in facts.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise Unreadable(f"{name}: the file is missing")
        report.compare("checksum", name, file.sha256, sha256(path))
        report.compare("checksum", f"{name}, bytes", file.bytes, path.stat().st_size)
    unnamed = {path.name for path in folder.iterdir()} - set(facts.files) - {MANIFEST}
    report.compare("checksum", "files that the manifest does not name", [], sorted(unnamed))
    for name in facts.tables:
        if f"{name}.csv" not in facts.files or f"{name}.parquet" not in facts.files:
            raise Unreadable(f"{name}: the manifest names the table, but not its files")


def table(folder: Path, name: str, facts: Manifest, report: Report) -> list[Row]:
    """Read the rows of a table from its CSV file and check that its Parquet file has the same. Raises
    Unreadable."""
    columns = [Column(*column) for column in facts.tables[name].columns]
    rows: list[Row] = []
    try:
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if header != [column.name for column in columns]:
                raise Unreadable(f"{name}.csv: its columns are not those of the manifest")
            parquet = _parquet(folder / f"{name}.parquet", columns)
            for number, line in enumerate(lines, 2):
                where, parquet_line = f"{name}.csv line {number}", list(next(parquet, ()))
                if len(line) != len(columns):
                    raise Unreadable(f"{where}: {len(line)} fields instead of {len(columns)}")
                report.compare("parquet", where, line, parquet_line)
                values = zip(columns, line, strict=True)
                try:
                    rows.append({column.name: decode(column.kind, text) for column, text in values})
                except (ValueError, TypeError, RecursionError, OverflowError) as error:
                    problem = "a value is none of its column's kind"
                    raise Unreadable(f"{where}: {type(error).__name__}: {problem}") from None
            surplus = sum(1 for _ in parquet)
    except (OSError, csv.Error, UnicodeDecodeError, ArrowException) as error:
        raise Unreadable(f"{name}: {type(error).__name__}: {error}") from None
    report.compare("parquet", f"{name}.parquet, rows beyond those of the CSV file", 0, surplus)
    report.compare("checksum", f"{name}, rows", facts.tables[name].rows, len(rows))
    return rows


def _parquet(path: Path, columns: list[Column]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a Parquet file as the texts that CSV has for them."""
    with pq.ParquetFile(path) as file:
        names = [column.name for column in columns]
        if file.schema_arrow.names != names:
            raise Unreadable(f"{path.name}: its columns are not those of the manifest")
        for batch in file.iter_batches():
            columns_of_texts = [texts(column.kind, batch.column(at)) for at, column in enumerate(columns)]
            yield from zip(*columns_of_texts, strict=True)
