"""Database roles at the command line: rights for the service's own role and for a reader's."""

import os

import click
from sqlalchemy.orm import Session

from api.core.cli import Commands, tell
from models.core import audit, grants
from models.core.session import transact

commands = Commands("database", help="Rights in the database; run these as the owner of its tables.")


@commands.command("grant")
@click.option("--app", "service", metavar="ROLE", help="The role that API, workers and beat connect as.")
@click.option("--reader", metavar="ROLE", help="A role that may read everything but secrets.")
def grant(service: str | None, reader: str | None) -> None:
    """Give roles their rights, and take all others from them. Repeat it after every migration.

    The roles must exist, but for that of --app where KAIROS_APP_PASSWORD is set: it is created where there is
    none, and gets that password.
    """
    if service is None and reader is None:
        raise click.UsageError("name a role with --app, --reader or both")
    if service == reader:
        raise click.UsageError("--app and --reader must be two roles")

    def give(session: Session) -> dict[str, int]:
        given = {}
        if service is not None:
            if password := os.environ.get("KAIROS_APP_PASSWORD"):
                grants.make(session, service, password)
            given[service] = grants.grant_service(session, service)
        if reader is not None:
            given[reader] = grants.grant_reader(session, reader)
        audit.note_everywhere(session, audit.GRANT, {"app": service, "reader": reader})
        return given

    try:
        tell(tables=transact(give))
    except grants.UnfitRole as unfit:
        raise click.ClickException(str(unfit)) from None
