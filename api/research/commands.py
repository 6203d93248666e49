"""The command that exports a study at once."""

from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from sqlalchemy.orm import Session

from api.core.cli import Command, print_json
from models.core import accounts, audit, studies
from models.core.audit import OPERATOR, Actor
from models.core.session import transact
from models.research import exports
from models.research.acts import ResearchAct
from models.research.exports import Snapshot
from replay.format import writing
from version import code_version


@click.command("export", cls=Command)
@click.argument("study")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--account", required=True, help="In whose name the audit notes the export.")
@with_appcontext
def export(study: str, folder: Path, account: str) -> None:
    """Write the export of STUDY into FOLDER, which must be empty or missing. A closed study's has its key."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty")
        manifest = transact(_write, study, folder, account)
        digest = writing.sha256(folder / writing.MANIFEST)
        transact(_seal, study, account, digest)
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    rows = {name: table["rows"] for name, table in manifest["tables"].items()}
    print_json(study=study, folder=str(folder), rows=rows, manifest_sha256=digest)


def _seal(session: Session, study: str, account: str, digest: str) -> None:
    """Note the manifest's checksum, which cannot stand in the export itself."""
    found, client = studies.by_name(session, study), accounts.by_name(session, account)
    if found is not None and client is not None:
        after = {"manifest_sha256": digest}
        actor, reason = Actor(found.id, client.id, OPERATOR), str(ResearchAct.EXPORT_COMMAND)
        audit.note(session, actor, ResearchAct.EXPORT_WRITTEN, reason, after=after)


def _write(session: Session, name: str, folder: Path, account: str) -> dict[str, Any]:
    for path in folder.iterdir():  # of a try that was run again
        path.unlink()
    study = studies.by_name(session, name)
    client = accounts.by_name(session, account)
    if study is None:
        raise click.ClickException(f"there is no study {name!r}")
    if client is None or client.study_id != study.id or client.role == "client":
        raise click.ClickException(f"there is no account {account!r} of a researcher or admin in {name!r}")
    key = "with the study's key" if study.closed_at else "without the key"
    audit.note(session, Actor(study.id, client.id, OPERATOR), ResearchAct.EXPORT_COMMAND, key)
    source = Snapshot(session, study, exports.now(session))
    return writing.write(folder, source, code_version(), lambda _table, _rows: None)
