"""The deployment's own configuration in the audit: what nobody asks the service for is found when it starts.

Settings and signing keys stand in the environment and change with a restart. They are noted in every study's
chain, because each study is run under them, and by the worker, because it is there whenever a trial is.
"""

from typing import Any

from sqlalchemy.orm import Session

from models.core import audit, studies
from models.core.audit import SERVICE, Actor
from models.core.encryption import fingerprint
from models.core.session import transact
from models.oversight.acts import OversightAct
from settings import settings
from workers.oversight import notifications

REASON = "found by a worker among its settings"
_noted: set[int] = set()  # studies that have these settings: they are those of this process for its life


def note_changes() -> None:
    """Tell every study under which configuration it is run from now on, where it does not know yet."""
    for study_id in transact(studies.ids):
        if study_id not in _noted:
            transact(_note, study_id)
            _noted.add(study_id)


def _note(session: Session, study_id: int) -> None:
    studies.take_turn(session, study_id)  # workers that start together write one row
    last = audit.last(session, study_id, OversightAct.CONFIGURATION)
    before, now = last.after if last else None, configuration()
    if before != now:
        actor = Actor(study_id, role=SERVICE)
        audit.note(session, actor, OversightAct.CONFIGURATION, REASON, before=before, after=now)


def configuration() -> dict[str, Any]:
    """Who gets in, who approves, where data may go and what is told.

    Of keys there are fingerprints, and one of the hosts: they are the back ends of other studies too.
    """
    told = settings()
    return {
        "mode": told.mode,
        "registration": told.registration,
        "token_hours": told.token_hours,
        "signing_keys": [fingerprint(key) for key in told.signing_keys],
        "secrets_keys": [fingerprint(key) for key in told.secrets_keys],
        "two_person": told.needs_two_persons,
        "proposal_hours": told.proposal_hours,
        "outgoing_hosts": fingerprint(",".join(sorted(told.outgoing_hosts))),
        "outgoing_private": told.outgoing_private,
        "notifies": notifications.channels(),
        "replay_sample": told.replay_sample,
    }
