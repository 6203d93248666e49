"""The S3 side of the object store and its links, against a real S3-compatible server."""

import os
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from models.core import objects_s3
from models.core.objects import Store, StoreAway, new_key
from models.core.objects_folder import Folder
from models.core.objects_s3 import S3, Account, presigned
from tests.models.core.test_objects import content
from tests.support.s3 import Swift

NOW = datetime.now(UTC)


def test_a_signature_is_the_published_one() -> None:
    """The example of the Amazon S3 API reference, "Authenticating requests: using query parameters"."""
    account = Account("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    then = datetime(2013, 5, 24, tzinfo=UTC)
    link = presigned("GET", "https://examplebucket.s3.amazonaws.com/test.txt", account, then, 86400, {})
    assert parse_qs(urlsplit(link).query)["X-Amz-Signature"] == [
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    ]


def test_a_signed_link_to_s3_is_good_for_one_act_on_one_object(swift: Swift) -> None:
    store = swift.store()
    key, other = new_key("exports", 7), new_key("exports", 7)
    for each in (key, other):
        store.put(each, [b"abc", b"def"])
    now = datetime.now(UTC)
    link = store.link("GET", key, now, 60)
    assert requests.get(link, timeout=10).content == b"abcdef"
    part = requests.get(link, headers={"Range": "bytes=2-3"}, timeout=10)
    assert (part.status_code, part.content) == (206, b"cd")
    assert requests.put(link, data=b"x", timeout=10).status_code == 403
    assert requests.get(link.replace(key, other), timeout=10).status_code == 403
    assert (
        requests.get(store.link("GET", key, now - timedelta(seconds=61), 60), timeout=10).status_code == 403
    )
    assert swift.secret not in link
    assert content(store, key) == b"abcdef"


def test_a_signed_link_to_put_takes_so_many_bytes_and_no_more(swift: Swift) -> None:
    store, key = swift.store(), new_key("exports", 7)
    link = store.link("PUT", key, datetime.now(UTC), 60, length=6)
    assert requests.put(link, data=b"abcdefg", timeout=10).status_code == 403
    assert requests.get(link, timeout=10).status_code == 403
    assert requests.put(link, data=b"abcdef", timeout=10).status_code == 200
    assert content(store, key) == b"abcdef"


def everything_of(store: Store) -> None:
    """Each method says that the store is away."""
    key = new_key("exports", 7)
    for act in (
        lambda: store.put(key, [b"x"]),
        lambda: store.size(key),
        lambda: store.read(key),
        lambda: store.delete(key),
        lambda: list(store.listed("exports")),
    ):
        with pytest.raises(StoreAway, match="the object store cannot be used"):
            act()


def test_a_bucket_that_is_missing_and_a_wrong_secret_are_no_missing_object(swift: Swift) -> None:
    everything_of(swift.store("no-such-bucket"))
    store = swift.store()
    store.secret = "another"
    everything_of(store)


def test_a_service_that_is_down_is_said_to_be(swift: Swift) -> None:
    began = time.monotonic()
    everything_of(S3("bucket", "", "http://127.0.0.1:9", "test:tester", swift.secret, "us-east-1"))
    assert time.monotonic() - began < 20


def test_a_service_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_s3, "TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(objects_s3, "RETRY_TIMEOUT", timedelta(seconds=0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        everything_of(S3("bucket", "", endpoint, "somebody", "secret", "us-east-1"))
        assert time.monotonic() - began < 30


def test_a_folder_that_cannot_be_used_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folder, key = Folder(tmp_path / "file"), new_key("exports", 7)
    for act in (lambda: folder.size(key), lambda: folder.read(key), lambda: folder.delete(key)):
        with pytest.raises(StoreAway):
            act()
    with pytest.raises(FileExistsError):
        folder.put(key, [b"x"])


def test_the_child_of_a_process_that_used_s3_is_told_so(swift: Swift) -> None:
    store = swift.store()
    store.put(new_key("exports", 7), [b"x"])
    child = os.fork()
    if not child:
        try:
            list(store.listed("exports"))
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
