"""The daily look at the audit: heads are told where a deployment wants it, and a broken chain is an incident."""

from collections.abc import Iterator

import pytest

from settings import settings
from tests.service import Service
from tests.workers.receivers import Webhook, webhook


@pytest.fixture
def hook(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """Where the deployment posts."""
    with webhook() as served:
        monkeypatch.setenv("KAIROS_WEBHOOK_URL", served.url)
        monkeypatch.setenv("KAIROS_WEBHOOK_SECRET", "a secret of a test")
        monkeypatch.setenv("KAIROS_OUTGOING_HOSTS", "127.0.0.1")
        settings.cache_clear()
        yield served
    settings.cache_clear()
