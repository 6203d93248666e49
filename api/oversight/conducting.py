"""The conduct of a trial at the command line: commands of the group `study`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy.orm import Session

from api.core.cli import Command, tell
from api.oversight import acts, operating
from api.oversight.approval import Told, Who
from models.core import audit
from models.core.session import transact
from models.trial.participants import WITHDRAWN

COMMANDS: list[Command] = []


def _command(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        COMMANDS.append(click.command(name, cls=Command)(operating.in_the_name_of(function)))
        return function

    return register


def _act(study: str, account: str, work: Callable[[Session, Who, datetime], Any]) -> Any:
    """Jobs that come of it are sent by the sweep."""
    now = datetime.now(UTC)
    return transact(lambda session: work(session, operating.who(session, study, account), now))


@_command("pause")
def pause(study: str, account: str, reason: str) -> None:
    """Make no new decisions in STUDY."""
    _act(study, account, lambda session, who, _: acts.set_paused(session, who, True, reason))
    tell(study=study, paused=True)


@_command("resume")
def resume(study: str, account: str, reason: str) -> None:
    """Make decisions in STUDY again."""
    _act(study, account, lambda session, who, _: acts.set_paused(session, who, False, reason))
    tell(study=study, paused=False)


@_command("freeze-learning")
def freeze_learning(study: str, account: str, reason: str) -> None:
    """Let the policy that serves in STUDY go on serving."""
    _act(study, account, lambda session, who, now: acts.set_frozen(session, who, True, reason, now))
    tell(study=study, learning_frozen=True)


@_command("resume-learning")
def resume_learning(study: str, account: str, reason: str) -> None:
    """Learn in STUDY again, beginning with a refit."""

    def work(session: Session, who: Who, now: datetime) -> list[Told]:
        return acts.set_frozen(session, who, False, reason, now)

    tell(study=study, learning_frozen=False, refit_job_id=_act(study, account, work)[0].job_id)


@_command("rebuild-statistics")
def rebuild_statistics(study: str, account: str, reason: str) -> None:
    """Throw the statistics of STUDY away, and have them and a policy made anew from its rows."""

    def work(session: Session, who: Who, now: datetime) -> list[Told]:
        return acts.rebuild_statistics(session, who, reason, now)

    tell(study=study, refit_job_id=_act(study, account, work)[0].job_id)


@_command("withdraw")
@click.argument("participant_id", type=int)
def withdraw(study: str, participant_id: int, account: str, reason: str) -> None:
    """Take the participant of this id out of STUDY."""
    _act(study, account, lambda session, who, now: acts.withdraw(session, who, participant_id, reason, now))
    tell(study=study, participant_id=participant_id, phase=WITHDRAWN)


@_command("remove-from-learning")
@click.argument("participant_id", type=int)
def remove_from_learning(study: str, participant_id: int, account: str, reason: str) -> None:
    """Propose that no later policy is fitted from a participant's data."""
    operating.propose(study, account, audit.REMOVE, {"participant_id": participant_id}, reason)


@_command("activate-policy")
@click.argument("policy_id", type=int)
def activate_policy(study: str, policy_id: int, account: str, reason: str) -> None:
    """Propose that policy POLICY_ID serves in STUDY, and learning is frozen."""
    operating.propose(study, account, audit.ROLLBACK, {"policy_id": policy_id}, reason)


@_command("close")
def close(study: str, account: str, reason: str) -> None:
    """Propose to end STUDY for good and to reveal the key of its draws."""
    operating.propose(study, account, audit.CLOSE, {}, reason)
