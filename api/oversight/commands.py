"""The commands of oversight: conduct of a trial, changes of its protocol, proposals and the audit.

A person who can run them has the service's database and could do anything there: an account is named, not
proven, and the audit calls the role `operator`. Jobs that an act queues are sent by the sweep.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

import audit_chain
from api.core.cli import Commands, named_study, print_json
from api.core.fields import Sentence, instant
from api.oversight.proposals import shown
from api.trial.commands import from_file, protocol_commands, study_commands
from audit_chain import Anchor
from models.core import accounts, audit, studies
from models.core.audit import OPERATOR, Act, Actor
from models.core.session import transact
from models.oversight import proposals
from models.oversight.acts import OversightAct
from models.oversight.proposals import Proposal
from models.trial.participants import WITHDRAWN
from services.oversight import approval, conduct, protocol_change
from services.trial import refits

P = ParamSpec("P")
T = TypeVar("T")
REASON: TypeAdapter[str] = TypeAdapter(Sentence)
proposal_commands = Commands("proposal", help="Dangerous acts that wait for another admin.")
audit_commands = Commands("audit", help="The record of who did what to a study.")


def _reason(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Check a reason as the API does."""
    try:
        return REASON.validate_python(value)
    except ValidationError:
        raise click.BadParameter("must be 1 to 1000 printable characters") from None


def in_the_name_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument STUDY and the options --account and --reason."""
    for option in (
        click.option("--reason", required=True, callback=_reason, help="Why; the audit keeps it for good."),
        click.option("--account", required=True, help="The admin in whose name this is done."),
        click.argument("study"),
    ):
        command = option(command)
    return command


def operator(session: Session, study: str, account: str) -> Actor:
    """Return the admin `account` of a study as the actor of a command. Raises ClickException."""
    study_id, client = named_study(session, study).id, accounts.by_name(session, account)
    if client is None or client.study_id != study_id or client.role != "admin" or client.disabled:
        raise click.ClickException(f"there is no account {account!r} of an admin in {study!r}")
    return Actor(study_id, client.id, OPERATOR)


def _act(
    study: str,
    account: str,
    work: Callable[Concatenate[Session, Actor, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `work(session, actor, ...)` in one transaction, in the name of an admin. Raises ClickException."""

    def run(session: Session) -> T:
        return work(session, operator(session, study, account), *args, **kwargs)

    return transact(run)


def _propose(study: str, account: str, act: Act, arguments: Mapping[str, Any], reason: str) -> None:
    """Propose a dangerous act, and print its state."""
    outcome = _act(study, account, approval.propose, act, arguments, reason, datetime.now(UTC))
    proposal = outcome.proposal
    print_json(study=study, act=act, proposal_id=proposal.id, state=proposal.state)


@study_commands.command("pause")
@in_the_name_of
def pause(study: str, account: str, reason: str) -> None:
    """Make no new decisions in STUDY."""
    _act(study, account, conduct.set_paused, True, reason)
    print_json(study=study, paused=True)


@study_commands.command("resume")
@in_the_name_of
def resume(study: str, account: str, reason: str) -> None:
    """Make decisions in STUDY again."""
    _act(study, account, conduct.set_paused, False, reason)
    print_json(study=study, paused=False)


@study_commands.command("freeze-learning")
@in_the_name_of
def freeze_learning(study: str, account: str, reason: str) -> None:
    """Let the policy that serves in STUDY go on serving."""
    _act(study, account, conduct.set_frozen, True, reason, datetime.now(UTC))
    print_json(study=study, learning_frozen=True)


@study_commands.command("resume-learning")
@in_the_name_of
def resume_learning(study: str, account: str, reason: str) -> None:
    """Learn in STUDY again, beginning with a refit."""
    (refit,) = _act(study, account, conduct.set_frozen, False, reason, datetime.now(UTC))
    print_json(study=study, learning_frozen=False, refit_job_id=refit.job_id)


@study_commands.command("rebuild-statistics")
@in_the_name_of
def rebuild_statistics(study: str, account: str, reason: str) -> None:
    """Throw the statistics of STUDY away, and have them and a policy made anew from its rows."""
    refit = _act(study, account, refits.rebuild_statistics, reason, datetime.now(UTC))
    print_json(study=study, refit_job_id=refit.job_id)


@study_commands.command("withdraw")
@in_the_name_of
@click.argument("participant_id", type=int)
def withdraw(study: str, participant_id: int, account: str, reason: str) -> None:
    """Take the participant of this id out of STUDY."""
    _act(study, account, conduct.withdraw, participant_id, reason, datetime.now(UTC))
    print_json(study=study, participant_id=participant_id, phase=WITHDRAWN)


@study_commands.command("remove-from-learning")
@in_the_name_of
@click.argument("participant_id", type=int)
def remove_from_learning(study: str, participant_id: int, account: str, reason: str) -> None:
    """Propose that no later policy is fitted from a participant's data."""
    _propose(study, account, OversightAct.REMOVE, {"participant_id": participant_id}, reason)


@study_commands.command("activate-policy")
@in_the_name_of
@click.argument("policy_id", type=int)
def activate_policy(study: str, policy_id: int, account: str, reason: str) -> None:
    """Propose that policy POLICY_ID serves in STUDY, and learning is frozen."""
    _propose(study, account, OversightAct.ROLLBACK, {"policy_id": policy_id}, reason)


@study_commands.command("close")
@in_the_name_of
def close(study: str, account: str, reason: str) -> None:
    """Propose to end STUDY for good and to reveal the key of its draws."""
    _propose(study, account, OversightAct.CLOSE, {}, reason)


def _instant(_context: click.Context, _option: click.Parameter, value: datetime | None) -> datetime | None:
    """Check a time as the API does."""
    try:
        return value and instant(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@protocol_commands.command("change")
@in_the_name_of
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--effective-at",
    type=click.DateTime(("%Y-%m-%dT%H:%M:%S%z",)),
    callback=_instant,
    help="With its UTC offset.",
)
@click.option("--amendment", is_flag=True, help="It may change what the analysis hangs on.")
def change(
    study: str, file: Path, account: str, reason: str, effective_at: datetime | None, amendment: bool
) -> None:
    """Propose the protocol in FILE as STUDY's next version.

    One that only makes the safety envelope tighter is stored at once, without a second person.
    """
    document = from_file(file).document

    def read(session: Session) -> dict[str, Any]:
        study_id = named_study(session, study).id
        return protocol_change.arguments(session, study_id, document, effective_at, amendment)

    _propose(study, account, OversightAct.PROTOCOL_VERSION, transact(read), reason)


@proposal_commands.command("list")
@click.argument("study")
def list_command(study: str) -> None:
    """List the proposals of STUDY."""

    def read(session: Session) -> list[Proposal]:
        return proposals.listed(session, named_study(session, study).id, 0, 10_000)

    now = datetime.now(UTC)
    page = transact(read)
    print_json(proposals=[shown(proposal, now).model_dump(mode="json") for proposal in page])


@proposal_commands.command("approve")
@in_the_name_of
@click.argument("proposal_id", type=int)
def approve_command(study: str, proposal_id: int, account: str, reason: str) -> None:
    """Let a proposed act happen, now."""
    now = datetime.now(UTC)
    outcome = _act(study, account, approval.approve, proposal_id, reason, now)
    print_json(proposal=shown(outcome.proposal, now).model_dump(mode="json"))


@proposal_commands.command("reject")
@in_the_name_of
@click.argument("proposal_id", type=int)
def reject_command(study: str, proposal_id: int, account: str, reason: str) -> None:
    """Let a proposed act never happen."""
    now = datetime.now(UTC)
    proposal = _act(study, account, approval.reject, proposal_id, reason, now)
    print_json(proposal=shown(proposal, now).model_dump(mode="json"))


@audit_commands.command("head")
@click.argument("study")
def head(study: str) -> None:
    """Print number and hash of the last row of STUDY's audit: an anchor for `audit verify`."""

    def read(session: Session) -> audit.Head:
        return audit.head(session, named_study(session, study).id)

    print_json(study=study, **transact(read)._asdict())


def _anchor(_context: click.Context, _option: click.Parameter, value: str | None) -> Anchor | None:
    """Read an anchor from a file of this name, or from the value itself."""
    if value is None:
        return None
    path = Path(value)
    try:
        return audit_chain.read_anchor(path.read_text(encoding="utf-8") if path.is_file() else value)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value!r} {error}") from None


@audit_commands.command("verify")
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

    def read(session: Session) -> tuple[dict[str, str], list[str]]:
        heads, faults = dict[str, str](), list[str]()
        for row in studies.everyone(session) if study is None else [named_study(session, study)]:
            last = audit.head(session, row.id)
            heads[row.name] = f"{last.seq}:{last.hash}"
            faults += [f"  {row.name}: {fault}" for fault in audit.faults(session, row.id, anchor)]
        return heads, faults

    heads, faults = transact(read)
    if faults:
        raise click.ClickException("\n".join(["the audit is not whole:", *faults]))
    print_json(whole=True, heads=heads)
