"""A whole replay, in its order: checks come after those that they rely on."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import audit_chain
from replay import decisions, fits, integrity, learning_rows, manifest, reported
from replay.findings import Report
from replay.format import reading
from replay.format.long_table import Row
from replay.format.reading import Manifest, Unreadable
from replay.format.writing import MANIFEST, sha256
from replay.tables import TABLES, Study

DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""The errors of a check that meets a row which nothing but an alteration can have made."""


def replay(path: Path, key: bytes | None = None, anchor: str | None = None) -> Report:
    """Replay the export at `path`, a folder or a zip. Raises Unreadable.

    key: the study's key, where the manifest does not reveal it. anchor: the SHA-256 of the manifest, as the
    service told it when it wrote the export.
    """
    report = Report()
    with reading.opened(path) as folder:
        facts = reading.manifest(folder)
        if anchor is not None:
            report.compare("checksum", MANIFEST, sha256(folder / MANIFEST), anchor)
        reading.check_files(folder, facts, report)
        tables = {name: reading.table(folder, name, facts, report) for name in facts.tables}
    missing = [name for name in ("trial", "dictionary", *TABLES) if name not in tables]
    if missing:
        raise Unreadable(f"the export lacks {', '.join(missing)}")
    try:
        study = Study(tables, facts.study.model_dump(), as_of(facts))
    except DAMAGE as error:
        raise Unreadable(f"a row cannot be used: {type(error).__name__}: {error}") from None
    whole(study, tables["trial"], key or _revealed(facts), report, facts)
    report.conclude()
    return report


def whole(
    study: Study, long: list[Row], key: bytes | None, report: Report, facts: Manifest | None = None
) -> None:
    """Check a whole study, and against its export's manifest where `facts` are passed in."""
    with _damage_diverges(report):
        if facts is not None:
            revealed = _revealed(facts)
            if revealed is not None and key is not None and revealed != key:
                report.diverge("seed", "study_key", revealed.hex(), "another key, the one that was given")
            if key is None:
                note = "seeds are not verified: the study's key is not revealed (--key HEX gives it)"
                report.notes.append(note)
            else:
                published = facts.study_key_sha256
                report.compare("seed", "study_key_sha256", published, hashlib.sha256(key).hexdigest())
            for fault in audit_chain.check(study.tables["audit"], facts.study_key_sha256):
                report.diverge("audit", fault, "a chain with a fault", "a whole chain")
            report.held["audit"] += len(study.tables["audit"])
            manifest.check(study, facts, report)
            hashes = {str(version["id"]): version["hash"] for version in study.tables["protocols"]}
            report.compare("protocol", "the manifest's hashes", facts.protocol_hashes, hashes)
        integrity.whole(study, report)
        fits.check(study, report)  # before the decisions, which need the blocks it computes again
        some(study, key, report)
        fits.faults(study, report)  # after the decisions, which tell from which blocks they fell back
        learning_rows.complete(study, report)
        reported.long_table(study, long, report)


@contextmanager
def _damage_diverges(report: Report) -> Iterator[None]:
    """Record a divergence where the block cannot go on with a row."""
    try:
        yield
    except DAMAGE as error:
        report.diverge("reference", "a row", f"{type(error).__name__}: {error}", "rows that can be replayed")


def some(study: Study, key: bytes | None, report: Report) -> None:
    """Run the checks that do not need all participants: each decision, its answers and its learning rows."""
    with _damage_diverges(report):
        integrity.protocols(study, report)
        integrity.decisions(study, report)
        integrity.policies(study, report)
        integrity.learning_rows(study, report)
        reported.check(study, report)
        decisions.check(study, report, key)
        learning_rows.check(study, report)


def as_of(facts: Manifest) -> datetime:
    """Return the instant that an export shows. Raises Unreadable."""
    try:
        return datetime.fromisoformat(facts.as_of)
    except ValueError:
        raise Unreadable(f"as_of {facts.as_of!r} is no time") from None


def _revealed(facts: Manifest) -> bytes | None:
    try:
        return None if facts.study_key is None else bytes.fromhex(facts.study_key)
    except ValueError:
        raise Unreadable("study_key is not hexadecimal") from None
