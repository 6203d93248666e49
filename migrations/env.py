"""The runner of the migrations, one process at a time.

Migrations never import models: each one names its own tables and columns, whatever the models are by now.
"""

import os

from alembic import context
from sqlalchemy import NullPool, create_engine, text

LOCK = 727_400  # any number, the same in every runner


def run() -> None:
    url = context.config.attributes.get("url") or os.environ["DATABASE_URL"]
    # other programs write postgres:// or postgresql://; SQLAlchemy wants the driver's name in it
    engine = create_engine("postgresql+psycopg2://" + url.partition("://")[2], poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        # append-only tables let the owner's migrations through, and nobody else
        connection.execute(text("SET kairos.migration = 'on'"))
        connection.commit()  # ends the transaction; lock and setting are the session's and stay
        context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
