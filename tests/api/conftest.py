"""One application and database for each file of tests, and a study of its own for each test."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pytest

from local.embedded import Embedded
from local.ports import free_port
from local.stack import environment
from settings import settings
from tests.api.trial import Trial, begin
from tests.service import Service, running


class Deployment(NamedTuple):
    """The application in this process and the address of its database."""

    service: Service
    database_url: str


@pytest.fixture(scope="module")
def deployment(embedded: Embedded, migrated: str, broker_url: str) -> Iterator[Deployment]:
    """The service in this process, on a database that the tests of one file share."""
    name = f"file_{uuid4().hex}"
    embedded.postgres.create_database(name, template=migrated)
    url = embedded.database_url(name)
    with running(environment(embedded.state, url, broker_url, free_port())) as service:
        yield Deployment(service, url)
    embedded.postgres.drop_database(name)


@pytest.fixture
def two_persons(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rule of production: a dangerous act needs a second admin."""
    monkeypatch.setenv("KAIROS_TWO_PERSON", "true")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def new_trial(deployment: Deployment) -> Callable[..., Trial]:
    """Begins a study; its arguments are protocol settings (schedule.study_length=2) and `timezone`."""
    return partial(begin, *deployment)


@pytest.fixture
def trial(new_trial: Callable[..., Trial]) -> Trial:
    """A study of the test's own."""
    return new_trial()
