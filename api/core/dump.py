"""The dump: every table as a CSV file, for eyes and spreadsheets. Secrets stay in the database."""

import csv
import json
from pathlib import Path

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from models.core.base import Base
from models.core.grants import is_secret


def write(session: Session, folder: Path) -> dict[str, int]:
    """Write every table to a CSV file in the folder; return the rows of each. Raises OSError."""
    return {table.name: _write_table(session, table, folder) for table in Base.metadata.sorted_tables}


def _write_table(session: Session, table: Table, folder: Path) -> int:
    columns = [column for column in table.columns if not is_secret(column)]
    rows = session.execute(select(*columns).order_by(*table.primary_key.columns))
    with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(column.name for column in columns)
        count = 0
        for row in rows.yield_per(1000):
            writer.writerow(_cell(value) for value in row)
            count += 1
    return count


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value
