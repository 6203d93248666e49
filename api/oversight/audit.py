"""The audit: who did what to a study, when and why, and whether the record of it is whole."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

import audit_chain
from api.core.cli import Commands, tell
from api.core.endpoint import Domain, Query, Reply
from api.core.fields import Printable
from api.oversight import operating
from audit_chain import Anchor
from models.core import audit, studies
from models.core.session import transact
from services.core.actor import Caller

domain = Domain("audit")
commands = Commands("audit", help="The record of who did what to a study.")


class AuditQuery(Query):
    """Rows after the last `seq` of the page before, of one act where it is named."""

    act: Printable | None = None
    after: int = Field(default=0, ge=0, le=2**63 - 1)
    limit: int = Field(default=100, ge=1, le=1000)


class ActSeen(BaseModel):
    """One act. `hash` covers all else here, and through `prev_hash` every row before."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    created_at: datetime
    client_id: int | None
    role: str
    participant_id: int | None
    act: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    prev_hash: str
    hash: str


class HeadSeen(BaseModel):
    """The last row of the chain: keep it elsewhere, and nothing up to it can be changed unnoticed."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    hash: str


class AuditPage(Reply):
    """Acts in their order, and the chain's head."""

    audit: list[ActSeen]
    head: HeadSeen


@domain.operation("GET", "/audit", roles={"researcher", "admin"})
def list_audit(query: AuditQuery, caller: Caller) -> AuditPage:
    """What was done to your study: configuration, conduct, accounts, corrections, access to exports."""

    def read(session: Session) -> AuditPage:
        found = audit.listed(session, caller.study_id, query.act, query.after, query.limit)
        head = HeadSeen.model_validate(audit.head(session, caller.study_id))
        return AuditPage(audit=[ActSeen.model_validate(row) for row in found], head=head)

    return transact(read)


@commands.command("head")
@click.argument("study")
def head(study: str) -> None:
    """Print number and hash of the last row of STUDY's audit: an anchor for `audit verify`."""
    found = transact(lambda session: audit.head(session, operating.study(session, study).id))
    tell(study=study, **found._asdict())


def _anchor(_context: click.Context, _option: click.Parameter, value: str | None) -> Anchor | None:
    if value is None:
        return None
    path = Path(value)
    try:
        return audit_chain.read_anchor(path.read_text(encoding="utf-8") if path.is_file() else value)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value!r} {error}") from None


@commands.command("verify")
@click.argument("study", required=False)
@click.option(
    "--anchor",
    callback=_anchor,
    metavar="FILE_OR_HEX",
    help="A head that was published: SEQ:HASH, a hash, or a file with one of them or its JSON.",
)
def verify(study: str | None, anchor: Anchor | None) -> None:
    """Find every altered, missing or moved row of the audit of STUDY, or of all studies."""
    if anchor is not None and study is None:
        raise click.UsageError("an anchor is one study's: name it")
    found = transact(lambda session: _faults(session, study, anchor))
    broken = {name: faults for name, (_, faults) in found.items() if faults}
    if broken:
        lines = [f"  {name}: {fault}" for name, faults in broken.items() for fault in faults]
        raise click.ClickException("\n".join(["the audit is not whole:", *lines]))
    tell(whole=True, heads={name: f"{head.seq}:{head.hash}" for name, (head, _) in found.items()})


def _faults(
    session: Session, name: str | None, anchor: Anchor | None
) -> dict[str, tuple[audit.Head, list[str]]]:
    chosen = studies.everyone(session) if name is None else [operating.study(session, name)]
    return {
        study.name: (audit.head(session, study.id), audit.faults(session, study.id, anchor))
        for study in chosen
    }
