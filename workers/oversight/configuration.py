"""The configuration of the deployment in the audit: changes of settings that no request ever asks for.

Settings and signing keys stand in the environment and change with a restart. They are noted in the chain of
every study, since each study is run under them, and by the worker, since it runs whenever a trial does.
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
_noted: set[int] = set()  # ids of studies that have these settings, which this process keeps for its life


def note_changes() -> None:
    """Note the configuration in the audit of every study, where it differs from the one noted last."""
    for study_id in transact(studies.ids):
        if study_id not in _noted:
            transact(note_in_study, study_id)
            _noted.add(study_id)


def note_in_study(session: Session, study_id: int) -> None:
    """Note the configuration in the audit of one study, where it differs from the one noted last."""
    studies.take_turn(session, study_id)  # so that workers which start together write one row
    last = audit.last(session, study_id, OversightAct.CONFIGURATION)
    before, after = last.after if last else None, configuration()
    if before != after:
        actor = Actor(study_id, role=SERVICE)
        audit.note(session, actor, OversightAct.CONFIGURATION, REASON, before=before, after=after)


def configuration() -> dict[str, Any]:
    """Return the settings on who gets in, who approves, where data may go and what is notified.

    Keys appear as fingerprints, and so does the list of hosts, which are the back ends of other studies too.
    """
    current = settings()
    return {
        "mode": current.mode,
        "registration": current.registration,
        "token_hours": current.token_hours,
        "signing_keys": [fingerprint(key) for key in current.signing_keys],
        "secrets_keys": [fingerprint(key) for key in current.secrets_keys],
        "two_person": current.needs_two_persons,
        "proposal_hours": current.proposal_hours,
        "outgoing_hosts": fingerprint(",".join(sorted(current.outgoing_hosts))),
        "outgoing_private": current.outgoing_private,
        "notifies": notifications.channels(),
        "replay_sample": current.replay_sample,
    }
