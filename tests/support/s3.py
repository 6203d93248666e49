"""A real S3 service for the tests: OpenStack Swift with its S3 interface, as a process of its own."""

import fcntl
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from local.ports import HOST, free_port
from local.state import CLONE
from models.core.objects_s3 import S3, Account, presigned

STAMP = CLONE / ".venv-swift" / "installed"
ACCESS_KEY = "test:tester"
REGION = "us-east-1"
START_SECONDS = 60


@dataclass
class Swift:
    """The running service: its address and its account's secret."""

    endpoint: str
    secret: str
    process: "subprocess.Popen[str]"

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"tests-{secrets.token_hex(8)}"
        account = Account(ACCESS_KEY, self.secret, REGION)
        link = presigned("PUT", f"{self.endpoint}/{name}", account, datetime.now(UTC), 60, {})
        assert requests.put(link, timeout=30).status_code == 200
        return name

    def store(self, bucket: str | None = None, prefix: str = "some/prefix") -> S3:
        """A store in a bucket, by itself a new one."""
        return S3(bucket or self.bucket(), prefix, self.endpoint, ACCESS_KEY, self.secret, REGION)

    def settings(self, bucket: str | None = None) -> dict[str, str]:
        """The environment of a service whose objects lie here."""
        return {
            "KAIROS_STORE": f"s3://{bucket or self.bucket()}/some/prefix",
            "KAIROS_STORE_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
        }


@contextmanager
def serving() -> Iterator[Swift]:
    """The service, in a folder that is deleted afterwards. Skips the test where it cannot be installed."""
    python = _python()
    secret, port = secrets.token_hex(16), free_port()
    with tempfile.TemporaryDirectory(prefix="kairos-swift-") as folder:
        script = CLONE / "tests" / "support" / "swift_server.py"
        command = [str(python), "-W", "ignore", str(script), folder, str(port)]
        with subprocess.Popen(
            command, env={"SWIFT_SECRET": secret}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                swift = Swift(f"http://{HOST}:{port}", secret, process)
                _wait(swift)
                yield swift
            finally:
                process.kill()


def _wait(swift: Swift) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and swift.process.poll() is None:
        try:
            if requests.get(f"{swift.endpoint}/healthcheck", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("Swift does not answer")


def _python() -> Path:
    """The Python of Swift's own environment, which is made where it is missing."""
    with (CLONE / "requirements-swift.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes would make it at once
        if not STAMP.exists():
            ended = subprocess.run(
                ["make", ".venv-swift/installed"], cwd=CLONE, capture_output=True, text=True
            )
            if not STAMP.exists() and (sys.platform, platform.machine()) != ("linux", "x86_64"):
                pytest.skip(
                    f"Swift, the S3 server of these tests, cannot be installed: {ended.stderr[-300:]}"
                )
            assert STAMP.exists(), ended.stderr
    return STAMP.parent / "bin" / "python"
