"""The change of a study's protocol: proposed by one admin, approved by another."""

from typing import Any

from api.core.endpoint import Domain, StrictBody
from api.core.fields import Instant, Sentence, coded
from api.oversight.proposals import Proposed, propose
from models.core.session import transact
from models.oversight.acts import OversightAct
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.oversight import protocol_change
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

domain = Domain("protocol_change", __doc__)


class NewVersion(StrictBody):
    """A protocol that is to replace the one in force, at once or at `effective_at`.

    `amendment` must be true for changes that the analysis of the trial hangs on (docs/protocol.md).
    """

    document: dict[str, Any] = coded(CoreFault.FIELD, examples=[{"protocol": "miwaves"}])
    reason: Sentence = coded(CoreFault.FIELD, examples=["the safety board asked for fewer messages"])
    effective_at: Instant | None = coded(CoreFault.FIELD, default=None)
    amendment: bool = coded(CoreFault.FIELD, default=False)


@domain.operation(
    "PUT",
    "/study/protocol",
    roles={"admin"},
    status=202,
    faults=(
        OversightFault.NEEDS_AMENDMENT,
        OversightFault.PROTOCOL_SAME,
        OversightFault.PROTOCOL_WAITS,
        OversightFault.PROTOCOL_MOVED,
        TrialFault.STUDY_CLOSED,
    ),
)
def change_protocol(body: NewVersion, caller: Caller) -> Proposed:
    """Propose a new version of your study's protocol. Keys that are left out take their defaults.

    A version that only makes the safety envelope tighter is stored at once, by one person.
    """
    arguments = transact(
        protocol_change.arguments, caller.study_id, body.document, body.effective_at, body.amendment
    )
    return propose(caller, OversightAct.PROTOCOL_VERSION, arguments, body.reason)
