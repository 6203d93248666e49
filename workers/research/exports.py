"""Export: one study as a zip of CSV and Parquet files, out of one snapshot, a chunk of rows at a time."""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy.orm import Session

from models.core import audit, jobs, objects, studies
from models.core.jobs import Job
from models.core.session import transact
from models.research import exports
from models.research.exports import Snapshot
from replay.format import writing
from settings import settings
from version import code_version
from workers.core.celery_app import log
from workers.core.claims import guarded

BLOCK = 2**20  # bytes read at once
TOLD_EVERY = 1.0  # seconds between two notes of progress


def run(job_id: int) -> None:
    """Claim, write the files while one transaction reads, zip them, put the zip into the store, finish."""
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    if job is not None:
        guarded(job, lambda: _export(job))


def expire() -> None:
    """Delete exports that are older than they are kept, and objects of exports that no row names."""
    now = datetime.now(UTC)
    before = now - timedelta(days=settings().export_days)
    for key in transact(lambda session: exports.forget_expired(session, before)):
        objects.store().delete(key)
    objects.sweep(exports.AREA, lambda keys: transact(lambda session: exports.named(session, keys)), now)


def _export(job: Job) -> None:
    expire()  # there may be no room for this one otherwise
    with TemporaryDirectory(prefix="kairos-export-") as scratch:
        folder, packed = Path(scratch) / "export", Path(scratch) / "export.zip"
        manifest = transact(partial(_write, job, folder))
        told: dict[str, Any] = {
            "manifest_sha256": writing.sha256(folder / writing.MANIFEST),
            "rows": {name: table["rows"] for name, table in manifest["tables"].items()},
        }
        writing.pack(folder, packed)
        shutil.rmtree(folder)
        told["key"] = objects.new_key(exports.AREA, job.study_id)
        with packed.open("rb") as file:
            written = objects.store().put(told["key"], iter(partial(file.read, BLOCK), b""))
    told |= {"bytes": written.size, "sha256": written.sha256}
    transact(partial(_finish, job, told))
    log.info("export written", job_id=job.id, study_id=job.study_id, bytes=written.size)


def _finish(job: Job, told: dict[str, Any], session: Session) -> None:
    """The manifest's checksum goes into the audit too, whose chain is published."""
    sealed = {"manifest_sha256": told["manifest_sha256"]}
    about = job.study_id, None, exports.SEALED, f"job {job.id}"
    audit.note(session, *about, after=sealed, role=audit.SERVICE)
    jobs.finish(session, job, datetime.now(UTC), told)


def _write(job: Job, folder: Path, session: Session) -> dict[str, Any]:
    """The export of one snapshot, in a folder that may be left from an earlier try."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source = Snapshot(session, studies.by_id(session, job.study_id), exports.now(session))
    return writing.write(folder, source, code_version(), _progress(job, len(source.tables) + 2))


def _progress(job: Job, tables: int) -> Callable[[str, int], None]:
    """Writes down how far a job is, now and then, in transactions of its own."""
    begun: list[str] = []
    told = 0.0

    def note(table: str, rows: int) -> None:
        nonlocal told
        if table not in begun:
            begun.append(table)
        if time.monotonic() - told < TOLD_EVERY:
            return
        told = time.monotonic()
        state = {"table": table, "rows_written": rows, "tables_done": len(begun) - 1, "tables": tables}
        transact(lambda session: jobs.go_on(session, job, datetime.now(UTC), result=state))

    return note
