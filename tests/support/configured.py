"""The service in this process under settings that a test chooses, with login counts of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis

from local.embedded import Embedded
from local.ports import free_port
from local.stack import environment
from tests.support.service import Service, running

COUNTS = 7  # the broker's database that these tests count logins in


@contextmanager
def configured(embedded: Embedded, database_url: str, **settings: str) -> Iterator[Service]:
    """The service under `settings`; no login has been counted yet."""
    with redis.Redis(unix_socket_path=str(embedded.valkey.path), db=COUNTS) as server:
        server.flushdb()
    told = environment(embedded.state, database_url, embedded.broker_url(COUNTS), free_port())
    with running(told | settings) as service:
        yield service


@contextmanager
def database(embedded: Embedded, migrated: str) -> Iterator[str]:
    """The address of a migrated database for the tests of one file."""
    name = f"file_{uuid4().hex}"
    embedded.postgres.create_database(name, template=migrated)
    yield embedded.database_url(name)
    embedded.postgres.drop_database(name)
