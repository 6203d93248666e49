"""Runs the migrations, one runner at a time. Migrations never import models: they say what they do."""

import os

from alembic import context
from sqlalchemy import NullPool, create_engine, text

LOCK = 727_400  # any number, the same in every runner


def _url() -> str:
    given = context.config.attributes.get("url") or os.environ["DATABASE_URL"]
    return "postgresql+psycopg2://" + given.partition("://")[2]


def run() -> None:
    engine = create_engine(_url(), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        # append-only tables let the owner's migrations through, and nobody else
        connection.execute(text("SET kairos.migration = 'on'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
