"""The command line: a command prints a JSON object where it succeeds and a sentence where it does not."""

import json
from typing import Any

import click
from cryptography.fernet import InvalidToken
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from api.core.fields import LONGEST_NAME
from models.core import studies
from models.core.studies import Study
from services.core.refusals import Refusal


class Command(click.Command):
    """A command whose foreseeable failures are printed as sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ClickException in place of errors of the database or the encryption."""
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            keys = ", ".join(error.field for error in refusal.errors or ())
            raise click.ClickException(f"{refusal.message} {keys}".strip()) from None
        except ProgrammingError as error:
            raise click.ClickException(f"{_first_line(error)} (is the database migrated?)") from None
        except SQLAlchemyError as error:
            raise click.ClickException(f"the database cannot be used: {_first_line(error)}") from None
        except InvalidToken:
            raise click.ClickException("a stored secret is under none of the KAIROS_SECRETS_KEYS") from None


def _first_line(error: SQLAlchemyError) -> str:
    """Return the driver's message, without the statement and its values."""
    message = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
    return message.strip().partition("\n")[0]


class Commands(AppGroup):
    """A group of commands whose foreseeable failures are printed as sentences."""

    command_class = Command


def print_json(**answer: Any) -> None:
    """Print the answer of a command."""
    click.echo(json.dumps(answer))


def named_study(session: Session, name: str) -> Study:
    """Return the study of this name. Raises ClickException."""
    study = studies.by_name(session, name)
    if study is None:
        raise click.ClickException(f"there is no study {name!r}")
    return study


def name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Check a name as the API does, so that whatever is created here can be used there."""
    if not value.isprintable() or not 1 <= len(value) <= LONGEST_NAME:
        raise click.BadParameter(f"must be 1 to {LONGEST_NAME} printable characters")
    return value
