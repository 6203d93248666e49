"""What commands that act on a study share: in whose name they act, and why.

Whoever can run them has the service's database and could do anything there: an account is named, not proven,
and the audit calls the role `operator`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from api.core.cli import tell
from api.core.fields import Sentence
from api.oversight import approval
from api.oversight.approval import Settled, Who
from models.core import accounts, audit, studies
from models.core.session import transact
from models.core.studies import Study

REASON: TypeAdapter[str] = TypeAdapter(Sentence)


def reason(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Check a reason as the API does."""
    try:
        return REASON.validate_python(value)
    except ValidationError:
        raise click.BadParameter("must be 1 to 1000 printable characters") from None


def in_the_name_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument STUDY and the options --account and --reason."""
    for option in (
        click.option("--reason", required=True, callback=reason, help="Why; the audit keeps it for good."),
        click.option("--account", required=True, help="The admin in whose name this is done."),
        click.argument("study"),
    ):
        command = option(command)
    return command


def study(session: Session, name: str) -> Study:
    """The study of this name. Raises ClickException."""
    found = studies.by_name(session, name)
    if found is None:
        raise click.ClickException(f"there is no study {name!r}")
    return found


def who(session: Session, name: str, account: str) -> Who:
    """The admin `account` of study `name`, at the command line. Raises ClickException."""
    found, client = study(session, name), accounts.by_name(session, account)
    if client is None or client.study_id != found.id or client.role != "admin" or client.disabled:
        raise click.ClickException(f"there is no account {account!r} of an admin in {name!r}")
    return Who(found.id, client.id, audit.OPERATOR)


def propose(study: str, account: str, act: str, arguments: Mapping[str, Any], reason: str) -> None:
    """Propose a dangerous act, and print what became of it. Jobs that come of it are sent by the sweep."""
    now = datetime.now(UTC)

    def work(session: Session) -> Settled:
        return approval.propose(session, who(session, study, account), act, arguments, reason, now)

    proposal = transact(work).proposal
    tell(study=study, act=act, proposal_id=proposal.id, state=proposal.state)
