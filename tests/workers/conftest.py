"""Studies whose back end answers as the test says, or whose incidents are told."""

from collections.abc import Iterator

import pytest

from local.embedded import Embedded
from tests.service import Service
from tests.workers.backend import BackEnd, serving
from tests.workers.watched import Place, watched


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    """A study's back end."""
    with serving() as served:
        yield served


@pytest.fixture
def studied(bare_service: Service, back_end: BackEnd) -> Service:
    """The service with a study that asks this back end, and refits as often as there is something new."""
    bare_service.study("trial", "refit.min_interval_minutes=0", ema_url=back_end.url)
    return bare_service


@pytest.fixture
def place(embedded: Embedded, fresh_database: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A study whose incidents are told. A test that is marked `provokes(Kind...)` must have provoked it."""
    with watched(embedded, fresh_database) as made:
        yield made
        for mark in request.node.iter_markers("provokes"):
            assert set(mark.args) <= {kind for kind, _ in made.told()}
