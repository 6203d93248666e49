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
from models.core.audit import SERVICE, Actor
from models.core.jobs import Job
from models.core.session import transact
from models.research import exports
from models.research.acts import ResearchAct
from models.research.exports import Snapshot
from replay.format import writing
from settings import settings
from version import code_version
from workers.core.celery_app import log
from workers.core.claims import guarded

BLOCK = 2**20  # bytes read at once
PROGRESS_SECONDS = 1.0  # between two notes of progress


def run(job_id: int) -> None:
    """Write an export.

    1. Claim the job.
    2. Write the files while one transaction reads its snapshot, and zip them.
    3. Put the zip into the object store under a new key.
    4. Finish the job: its row names the key, and only what a row names is an export.
    """
    job = transact(jobs.claim, job_id, datetime.now(UTC))
    if job is not None:
        guarded(job, lambda: _export(job))


def expire() -> None:
    """Delete exports that are older than they are kept, and objects of exports that no row names."""
    now = datetime.now(UTC)
    for key in transact(exports.forget_expired, now - timedelta(days=settings().export_days)):
        objects.store().delete(key)
    objects.sweep(exports.AREA, lambda keys: transact(exports.named, keys), now)


def _export(job: Job) -> None:
    expire()  # there may be no room for this one otherwise
    with TemporaryDirectory(prefix="kairos-export-") as scratch:
        folder, packed = Path(scratch) / "export", Path(scratch) / "export.zip"
        manifest = transact(_write, job, folder)
        result: dict[str, Any] = {
            "manifest_sha256": writing.sha256(folder / writing.MANIFEST),
            "rows": {name: table["rows"] for name, table in manifest["tables"].items()},
        }
        writing.pack(folder, packed)
        shutil.rmtree(folder)
        result["key"] = objects.new_key(exports.AREA, job.study_id)
        with packed.open("rb") as file:
            stored = objects.store().put(result["key"], iter(partial(file.read, BLOCK), b""))
    transact(_finish, job, result | {"bytes": stored.size, "sha256": stored.sha256})
    log.info("export written", job_id=job.id, study_id=job.study_id, bytes=stored.size)


def _finish(session: Session, job: Job, result: dict[str, Any]) -> None:
    # the manifest's checksum cannot stand in the export itself; the audit's chain is published
    actor, after = Actor(job.study_id, role=SERVICE), {"manifest_sha256": result["manifest_sha256"]}
    audit.note(session, actor, ResearchAct.EXPORT_WRITTEN, f"job {job.id}", after=after)
    jobs.finish(session, job, datetime.now(UTC), result)


def _write(session: Session, job: Job, folder: Path) -> dict[str, Any]:
    """Write the export of one snapshot into a folder that may be left from an earlier try."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source = Snapshot(session, studies.by_id(session, job.study_id), exports.now(session))
    return writing.write(folder, source, code_version(), _progress(job, len(source.tables) + 2))


def _progress(job: Job, tables: int) -> Callable[[str, int], None]:
    """A function that notes how far a job is, now and then, in transactions of its own."""
    begun: list[str] = []
    noted_at = 0.0

    def note(table: str, rows: int) -> None:
        nonlocal noted_at
        if table not in begun:
            begun.append(table)
        if time.monotonic() - noted_at < PROGRESS_SECONDS:
            return
        noted_at = time.monotonic()
        state = {"table": table, "rows_written": rows, "tables_done": len(begun) - 1, "tables": tables}
        transact(lambda session: jobs.go_on(session, job, datetime.now(UTC), result=state))

    return note
