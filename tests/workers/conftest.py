"""A study whose back end answers as the test says."""

from collections.abc import Iterator

import pytest

from tests.service import Service
from tests.workers.backend import BackEnd, serving


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
