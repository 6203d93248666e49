"""Every table as a CSV file, for eyes and spreadsheets. Secrets stay in the database."""

import csv
import json
from pathlib import Path

import click
from flask.cli import with_appcontext
from sqlalchemy import Table, select
from sqlalchemy.orm import Session

import models
from api.core.cli import Command, tell
from models.core.grants import is_secret
from models.core.session import transact


@click.command("dump", cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@with_appcontext
def command(folder: Path) -> None:
    """Write every table to FOLDER/<table>.csv as one consistent snapshot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        counts = transact(lambda session: _write(session, folder))
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    tell(folder=str(folder), rows=counts)


def _write(session: Session, folder: Path) -> dict[str, int]:
    return {table.name: _table(session, table, folder) for table in models.metadata.sorted_tables}


def _table(session: Session, table: Table, folder: Path) -> int:
    columns = [column for column in table.columns if not is_secret(column)]
    found = session.execute(select(*columns).order_by(*table.primary_key.columns))
    with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(column.name for column in columns)
        count = 0
        for row in found.yield_per(1000):
            writer.writerow(_cell(value) for value in row)
            count += 1
    return count


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value
