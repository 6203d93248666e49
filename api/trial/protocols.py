"""Protocols: the document that a study runs by, and its versions."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.core.endpoint import Domain, Reply
from models.core import studies
from models.core.session import transact
from models.trial import protocols
from models.trial.protocols import ProtocolVersion
from services.core.callers import Caller

domain = Domain("protocols", __doc__)


class VersionSeen(BaseModel):
    """One version of a protocol. The newest one whose `effective_at` has come is in force."""

    version: int
    protocol_hash: str
    document: dict[str, Any]
    author: str
    reason: str
    effective_at: datetime
    created_at: datetime
    in_force: bool


class VersionReply(Reply):
    """One version."""

    protocol: VersionSeen


class VersionList(Reply):
    """All versions by number; those after the one in force wait for their time."""

    protocols: list[VersionSeen]


@domain.operation("GET", "/study/protocol", roles={"client", "researcher", "admin"})
def show_protocol(caller: Caller) -> VersionReply:
    """The protocol in force in your study."""

    def read(session: Session) -> ProtocolVersion:
        return protocols.in_force(session, studies.by_id(session, caller.study_id))

    return VersionReply(protocol=_seen(transact(read), in_force=True))


@domain.operation("GET", "/study/protocol/versions", roles={"researcher", "admin"})
def list_protocol_versions(caller: Caller) -> VersionList:
    """Every version of your study's protocol, with author and reason."""

    def read(session: Session) -> list[VersionSeen]:
        number = studies.by_id(session, caller.study_id).protocol_version
        return [
            _seen(version, version.version == number)
            for version in protocols.listed(session, caller.study_id)
        ]

    return VersionList(protocols=transact(read))


def _seen(version: ProtocolVersion, in_force: bool) -> VersionSeen:
    return VersionSeen(
        version=version.version,
        protocol_hash=version.hash,
        document=version.document,
        author=version.author,
        reason=version.reason,
        effective_at=version.effective_at,
        created_at=version.created_at,
        in_force=in_force,
    )
