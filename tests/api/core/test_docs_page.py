"""The page at /docs in a real browser that cannot reach anything but this server."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from api.app import DOMAINS
from api.core import openapi
from tests.support.service import Service

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--virtual-time-budget=20000", "--enable-logging=stderr"),
    *("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--dump-dom"),
)


@pytest.fixture
def address(shared_service: Service) -> Iterator[str]:
    """The service on a port of this machine."""
    server = make_server("127.0.0.1", 0, shared_service.app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason=f"no browser on this machine (none of {', '.join(NAMES)})")
def test_the_page_shows_every_operation_without_a_network(address: str, tmp_path: Path) -> None:
    seen = subprocess.run(
        [str(CHROMIUM), *OPTIONS, f"--user-data-dir={tmp_path}", f"{address}/docs"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    shown = set(re.findall(r'data-path="([^"]+)"', seen.stdout))
    assert shown == set(openapi.document(DOMAINS)["paths"])
    assert "Refused to" not in seen.stderr  # what a browser says of a breach of the page's policy
    assert "Content Security Policy" not in seen.stderr
    assert "Uncaught" not in seen.stderr
