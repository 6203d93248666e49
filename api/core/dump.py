"""The dump: every table as a CSV file, for eyes and spreadsheets. Secrets stay in the database."""

import csv
import json
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.core.base import Base
from models.core.grants import is_secret


def write(session: Session, folder: Path) -> dict[str, int]:
    """Write every table to a CSV file in the folder; return the number of rows by table. Raises OSError."""
    counts: dict[str, int] = {}
    for table in Base.metadata.sorted_tables:
        columns = [column for column in table.columns if not is_secret(column)]
        rows = session.execute(select(*columns).order_by(*table.primary_key.columns))
        counts[table.name] = 0
        with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in columns)
            for row in rows.yield_per(1000):  # a table may be larger than the memory
                writer.writerow(
                    json.dumps(value) if isinstance(value, dict | list) else value for value in row
                )
                counts[table.name] += 1
    return counts
