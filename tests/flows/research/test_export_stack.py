"""An export by the running stack: asked for, written by the worker, fetched in two parts, replayed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack, environment
from replay.checks import replay
from tests.support import remote
from tests.support.s3 import Swift

OWN_BROKER = 9  # the broker's database of the stack that these tests start


def test_the_worker_writes_what_the_api_hands_out(stack: Stack, tmp_path: Path) -> None:
    caller = remote.begin(stack.env, stack.api_url, role="admin")
    caller.enrol("ann")
    for index in range(1, 4):
        assert caller.post_actions("ann", decision_index=index).status_code == 200
    _wait(caller, caller.post("/update_parameters", {}).json()["status_url"], "job")
    asked = caller.post("/exports", {}).json()
    done = _wait(caller, asked["status_url"], "export")
    parts = [_part(caller, asked["status_url"], span) for span in ("bytes=0-4999", "bytes=5000-")]
    (tmp_path / "export.zip").write_bytes(b"".join(parts))
    report = replay(tmp_path / "export.zip", anchor=done["manifest_sha256"])
    assert not report.first, "\n".join(report.lines())
    assert done["rows"]["decisions"] == report.held["action"] == 3


@pytest.fixture(scope="module")
def stack_on_s3(embedded: Embedded, migrated: str, passable: Path, swift: Swift) -> Iterator[Stack]:
    """API, worker and beat that share an S3 bucket and no folder."""
    embedded.postgres.create_database("stack_s3", template=migrated)
    urls = embedded.database_url("stack_s3"), embedded.broker_url(OWN_BROKER)
    with Embedded(passable / "stack-s3", database=False, broker=False) as home:
        started = Stack(
            home.state, home.supervisor, environment(home.state, *urls, free_port()) | swift.settings()
        )
        started.start()
        yield started


def test_the_same_with_a_bucket_in_place_of_a_folder(stack_on_s3: Stack, tmp_path: Path) -> None:
    """obstore works in gunicorn's children and the worker's, whose parents must not have used it."""
    test_the_worker_writes_what_the_api_hands_out(stack_on_s3, tmp_path)
    printed = remote.command(stack_on_s3.env, "backup")
    listed = remote.command(stack_on_s3.env, "backup", "--list")["backups"]
    assert [(each["key"], each["bytes"]) for each in listed] == [(printed["key"], printed["bytes"])]


def _wait(caller: remote.Remote, path: str, key: str) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found: dict[str, Any] = caller.get(path)[key]
        if found["state"] in {"done", "failed"}:
            break
        time.sleep(0.1)
    assert found["state"] == "done", found
    return found


def _part(caller: remote.Remote, path: str, span: str) -> bytes:
    headers = {"Authorization": f"Bearer {caller.token}", "Range": span}
    answer = requests.get(f"{caller.url}{path}/file", headers=headers, timeout=60)
    assert answer.status_code == 206, answer.text
    return answer.content
