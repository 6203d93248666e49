"""Real servers for the tests: PostgreSQL, the broker and, where a test asks for it, the whole stack."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest

from local.embedded import Embedded
from local.ports import free_port
from local.process import Process
from local.stack import MIGRATE, Stack, environment, python
from local.state import CLONE
from settings import settings as service_settings
from tests.support.backend import BackEnd, serving
from tests.support.s3 import Swift
from tests.support.s3 import serving as serving_s3
from tests.support.service import Service, running
from tests.support.study import Study, begin
from tests.support.watched import Place, watched

MIGRATED = "migrated"  # nobody connects to it, so that it can be copied
SHARED = "shared"
STACK = "stack"
STACK_BROKER = 1
hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no error
hypothesis.settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the running stack first: they take longest, and something should run beside them."""
    items.sort(key=lambda item: "stack" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def passable() -> Iterator[Path]:
    """A temporary folder that the servers' account can reach where we are root (pytest's own it cannot)."""
    folder = Path(tempfile.mkdtemp(prefix="kairos-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded(passable: Path) -> Iterator[Embedded]:
    """PostgreSQL and the broker, of this test process alone."""
    with Embedded(passable / "state", durable=False) as servers:
        yield servers


@pytest.fixture(scope="session")
def migrated(embedded: Embedded) -> str:
    """The name of a migrated, empty database, for copying only."""
    embedded.postgres.create_database(MIGRATED)
    env = environment(embedded.state, embedded.database_url(MIGRATED), embedded.broker_url(), free_port())
    embedded.supervisor.run(Process("migrate", python(MIGRATE), env, folder=CLONE))
    return MIGRATED


@pytest.fixture(scope="session")
def database_url(embedded: Embedded, migrated: str) -> str:
    """A migrated database shared by the tests of this process; roll back what you write."""
    embedded.postgres.create_database(SHARED, template=migrated)
    return embedded.database_url(SHARED)


@pytest.fixture(scope="session")
def broker_url(embedded: Embedded) -> str:
    """The broker, on a database that the stack does not use."""
    return embedded.broker_url()


@pytest.fixture
def fresh_database(embedded: Embedded, migrated: str) -> Iterator[str]:
    """The address of a migrated, empty database of the test's own."""
    name = f"test_{uuid4().hex}"
    embedded.postgres.create_database(name, template=migrated)
    yield embedded.database_url(name)
    embedded.postgres.drop_database(name)


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """An S3 service, of this test process alone."""
    with serving_s3() as running_swift:
        yield running_swift


@pytest.fixture(scope="session")
def stack(embedded: Embedded, migrated: str, passable: Path) -> Iterator[Stack]:
    """API, worker and beat as processes of their own, with a database and a broker database of their own.

    `.api_url` is where the API listens, `.env` the environment for commands of the service, `.pids` the
    process ids by name. A test that kills one calls `.restart_dead()` afterwards. Beat looks after lost work
    every second.
    """
    embedded.postgres.create_database(STACK, template=migrated)
    urls = embedded.database_url(STACK), embedded.broker_url(STACK_BROKER)
    with Embedded(passable / "stack", database=False, broker=False) as home:
        settings = environment(home.state, *urls, free_port()) | {"KAIROS_SWEEP_SECONDS": "1"}
        stack = Stack(home.state, home.supervisor, settings)
        stack.start()
        yield stack


@pytest.fixture
def service(embedded: Embedded, fresh_database: str, broker_url: str) -> Iterator[Service]:
    """The service in this process, on a database of the test's own, with no study yet."""
    with running(environment(embedded.state, fresh_database, broker_url, free_port())) as started:
        yield started


@pytest.fixture
def only_study(service: Service) -> Study:
    """The only study in a database of the test's own, for tests that look at a whole database."""
    return begin(service, name="trial")


@pytest.fixture(scope="module")
def shared_service(embedded: Embedded, migrated: str, broker_url: str) -> Iterator[Service]:
    """The service in this process, on a database that the tests of one file share."""
    name = f"file_{uuid4().hex}"
    embedded.postgres.create_database(name, template=migrated)
    url = embedded.database_url(name)
    with running(environment(embedded.state, url, broker_url, free_port())) as started:
        yield started
    embedded.postgres.drop_database(name)


@pytest.fixture
def two_persons(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rule of production: a dangerous act needs a second admin."""
    monkeypatch.setenv("KAIROS_TWO_PERSON", "true")
    service_settings.cache_clear()
    yield
    service_settings.cache_clear()


@pytest.fixture
def new_study(shared_service: Service) -> Callable[..., Study]:
    """Begins a study; its arguments are protocol settings (schedule.study_length=2) and `timezone`."""
    return partial(begin, shared_service)


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """A study of the test's own, in a database that the tests of one file share."""
    return new_study()


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    """A study's back end."""
    with serving() as served:
        yield served


@pytest.fixture
def ema_study(service: Service, back_end: BackEnd) -> Study:
    """The only study of its database; it asks `back_end`, and refits as often as there is something new."""
    return begin(service, "refit.min_interval_minutes=0", name="trial", ema_url=back_end.url)


@pytest.fixture
def place(embedded: Embedded, fresh_database: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A study whose incidents are told. A test that is marked `provokes(Kind...)` must have provoked it."""
    with watched(embedded, fresh_database) as made:
        yield made
        for mark in request.node.iter_markers("provokes"):
            assert set(mark.args) <= {kind for kind, _ in made.told()}
