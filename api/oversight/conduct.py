"""The conduct of a trial: what its admins do to it while it runs, each time with a reason that is kept."""

from datetime import UTC, datetime

from api.core import broker
from api.core.endpoint import Domain, Reply, StrictBody
from api.core.fields import Sentence, coded
from api.oversight.proposals import Proposed, propose
from models.core.session import transact
from models.oversight.acts import OversightAct
from models.trial.participants import WITHDRAWN
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.oversight import conduct
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

domain = Domain("conduct", __doc__)
OF_ADMINS = {"admin"}


class Reason(StrictBody):
    """The reason for an act. It is kept for good and must not name the participant."""

    reason: Sentence = coded(CoreFault.FIELD, examples=["asked by telephone to leave the study"])


class Withdrawn(Reply):
    """The participant is out of the trial; what was decided until now stays."""

    participant_id: int
    phase: str


class Paused(Reply):
    """The study's pause: while it holds no new decisions are made."""

    paused: bool


class Frozen(Reply):
    """The freeze of learning: while it holds no new policy serves; it ends with the refit `refit_job_id`."""

    learning_frozen: bool
    refit_job_id: int | None


@domain.operation(
    "POST",
    "/participants/<int:participant_id>/withdraw",
    roles=OF_ADMINS,
    faults=(CoreFault.UNKNOWN, TrialFault.PARTICIPANT_ENDED),
)
def withdraw(participant_id: int, body: Reason, caller: Caller) -> Withdrawn:
    """Take a participant out of the trial: an open window is closed and ingested, no decision follows.

    Repeats of earlier calls are still answered as they were. Withdrawing twice changes nothing. Whether the
    participant's data leave learning is a rule of the protocol (withdrawal.data).
    """
    jobs = transact(conduct.withdraw, caller.actor, participant_id, body.reason, datetime.now(UTC))
    broker.send(*jobs)
    return Withdrawn(participant_id=participant_id, phase=WITHDRAWN)


@domain.operation("POST", "/study/pause", roles=OF_ADMINS, faults=(TrialFault.STUDY_CLOSED,))
def pause(body: Reason, caller: Caller) -> Paused:
    """Make no new decisions in your study. Repeats, ends of windows and ingest go on."""
    transact(conduct.set_paused, caller.actor, True, body.reason)
    return Paused(paused=True)


@domain.operation("POST", "/study/resume", roles=OF_ADMINS, faults=(TrialFault.STUDY_CLOSED,))
def resume(body: Reason, caller: Caller) -> Paused:
    """Make decisions again."""
    transact(conduct.set_paused, caller.actor, False, body.reason)
    return Paused(paused=False)


@domain.operation("POST", "/study/freeze_learning", roles=OF_ADMINS)
def freeze_learning(body: Reason, caller: Caller) -> Frozen:
    """Let the policy that serves go on serving: refits end with a note and change nothing."""
    return _frozen(caller, body, frozen=True)


@domain.operation("POST", "/study/resume_learning", roles=OF_ADMINS)
def resume_learning(body: Reason, caller: Caller) -> Frozen:
    """Learn again, beginning with a refit from everything that has gathered."""
    return _frozen(caller, body, frozen=False)


def _frozen(caller: Caller, body: Reason, frozen: bool) -> Frozen:
    """Freeze learning in the caller's study, or resume it with a refit."""
    jobs = transact(conduct.set_frozen, caller.actor, frozen, body.reason, datetime.now(UTC))
    broker.send(*jobs)
    return Frozen(learning_frozen=frozen, refit_job_id=jobs[0].job_id if jobs else None)


@domain.operation(
    "POST",
    "/participants/<int:participant_id>/remove_from_learning",
    roles=OF_ADMINS,
    status=202,
    faults=(CoreFault.UNKNOWN, OversightFault.REMOVED_ALREADY),
)
def remove_from_learning(participant_id: int, body: Reason, caller: Caller) -> Proposed:
    """Propose that no later policy is fitted from a participant's data. Policies that exist are not touched.

    When it happens a refit is requested at once; from its policy on the participant gets the population's
    posterior. It cannot be undone.
    """
    return propose(caller, OversightAct.REMOVE, {"participant_id": participant_id}, body.reason)


@domain.operation(
    "POST",
    "/policies/<int:policy_id>/activate",
    roles=OF_ADMINS,
    status=202,
    faults=(
        CoreFault.UNKNOWN,
        TrialFault.POLICY_PRUNED,
        OversightFault.POLICY_OF_OTHERS,
        TrialFault.STUDY_CLOSED,
    ),
)
def activate_policy(policy_id: int, body: Reason, caller: Caller) -> Proposed:
    """Propose that a policy serves from the next decision on, and learning is frozen until it is resumed."""
    return propose(caller, OversightAct.ROLLBACK, {"policy_id": policy_id}, body.reason)


@domain.operation("POST", "/study/close", roles=OF_ADMINS, status=202, faults=(TrialFault.STUDY_CLOSED,))
def close_study(body: Reason, caller: Caller) -> Proposed:
    """Propose to end your study for good: no decision follows, and the key of the draws becomes public."""
    return propose(caller, OversightAct.CLOSE, {}, body.reason)
