"""Signed links to objects in a folder: what they are good for, and what they are not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from werkzeug.test import TestResponse

from models.core import objects
from models.core.objects import Store, new_key
from settings import settings
from tests.support.service import Service

WHOLE = bytes(range(256)) * 3000
OTHER_KEY = "another-signing-key-of-48-characters-0123456789-"


@pytest.fixture(autouse=True)
def store(shared_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A folder of the test's own."""
    monkeypatch.setenv("KAIROS_STORE", (tmp_path / "objects").as_uri())
    monkeypatch.setenv("KAIROS_STORAGE_URL", "https://files.example.org/kairos/")
    settings.cache_clear()
    yield objects.store()
    settings.cache_clear()


@pytest.fixture
def key(store: Store) -> str:
    """The key of an object that holds WHOLE."""
    name = new_key("exports", 7)
    store.put(name, [WHOLE])
    return name


def follow(
    service: Service, link: str, method: str = "GET", data: bytes = b"", **headers: str
) -> TestResponse:
    """What this service answers at a link."""
    url = urlsplit(link)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    path = url.path.removeprefix("/kairos")
    client = service.app.test_client()
    return client.open(path, query_string=url.query, method=method, data=data, headers=sent)


def refused(answer: TestResponse) -> tuple[int, int]:
    return answer.status_code, answer.get_json()["error_code"]


def test_a_link_gives_its_object_whole_and_in_parts(shared_service: Service, store: Store, key: str) -> None:
    link = store.link("GET", key, datetime.now(UTC), 60)
    assert link.startswith(f"https://files.example.org/kairos/storage/{key}?expires=")
    whole = follow(shared_service, link)
    assert (whole.status_code, whole.data, whole.mimetype) == (200, WHOLE, "application/octet-stream")
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Disposition"].startswith("attachment")
    part = follow(shared_service, link, Range="bytes=300000-300009")
    assert (part.status_code, part.data) == (206, WHOLE[300000:300010])
    assert part.headers["Content-Range"] == f"bytes 300000-300009/{len(WHOLE)}"
    rest = follow(shared_service, link, Range="bytes=-5", If_Range=whole.headers["ETag"])
    assert (rest.status_code, rest.data) == (206, WHOLE[-5:])
    assert refused(follow(shared_service, link, Range=f"bytes={len(WHOLE)}-")) == (416, 913)
    assert follow(shared_service, link, If_None_Match=whole.headers["ETag"]).status_code == 304
    head = follow(shared_service, link, method="HEAD")
    assert (head.status_code, head.content_length, head.data) == (200, len(WHOLE), b"")


def test_a_link_is_good_for_nothing_else(shared_service: Service, store: Store, key: str) -> None:
    now = datetime.now(UTC)
    link, other = store.link("GET", key, now, 60), new_key("exports", 7)
    store.put(other, [b"somebody else's"])
    upload = store.link("PUT", new_key("files", 7), now, 60, 3)
    wrong = {
        "another object": link.replace(key, other),
        "a key that is none": link.replace(key, "../../etc/passwd"),
        "a later end": link.replace("expires=", "expires=1"),
        "another signature": link[:-1] + ("0" if link[-1] != "0" else "1"),
        "no ASCII": link[:-1] + "%C3%A9",
        "a length": f"{link}&length=5",
        "to put": upload,
    }
    for name, changed in wrong.items():
        assert (name, refused(follow(shared_service, changed))) == (name, (403, 917))
    assert refused(follow(shared_service, link, method="PUT", data=b"x")) == (403, 917)
    expired = store.link("GET", key, now - timedelta(seconds=61), 60)
    assert refused(follow(shared_service, expired)) == (403, 918)
    unsigned = follow(shared_service, link.partition("?")[0])
    assert refused(unsigned) == (422, 905)
    assert [error["field"] for error in unsigned.get_json()["errors"]] == ["expires", "signature"]
    store.delete(key)
    assert refused(follow(shared_service, link)) == (404, 919)


def test_a_link_outlives_the_rotation_of_its_key_but_not_the_key(
    shared_service: Service, store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = store.link("GET", key, datetime.now(UTC), 60)
    (own,) = settings().signing_keys
    assert own not in link
    for keys, status in ((f"{OTHER_KEY},{own}", 200), (OTHER_KEY, 403)):
        monkeypatch.setenv("KAIROS_SIGNING_KEYS", keys)
        settings.cache_clear()
        assert follow(shared_service, link).status_code == status


def test_a_link_to_put_takes_its_bytes_once(shared_service: Service, store: Store) -> None:
    key = new_key("files", 7)
    link = store.link("PUT", key, datetime.now(UTC), 60, len(WHOLE))
    assert refused(follow(shared_service, link)) == (403, 917)
    assert refused(follow(shared_service, link, "PUT", WHOLE + b"x")) == (413, 903)
    for body in (WHOLE[:-1], b""):
        assert refused(follow(shared_service, link, "PUT", body)) == (403, 917)
    stored = follow(shared_service, link, "PUT", WHOLE)
    assert (stored.status_code, stored.get_json()["bytes"]) == (200, len(WHOLE))
    assert b"".join(store.read(key)) == WHOLE
    assert refused(follow(shared_service, link, "PUT", bytes(len(WHOLE)))) == (409, 920)
    assert b"".join(store.read(key)) == WHOLE


def test_an_upload_that_breaks_off_leaves_nothing(shared_service: Service, store: Store) -> None:
    link = store.link("PUT", new_key("files", 7), datetime.now(UTC), 60, len(WHOLE))
    url = urlsplit(link)
    broken = shared_service.app.test_client().open(
        url.path.removeprefix("/kairos"),
        query_string=url.query,
        method="PUT",
        data=WHOLE[:70_000],
        environ_overrides={"CONTENT_LENGTH": str(len(WHOLE))},
    )
    assert broken.status_code == 400
    assert list(store.listed("files")) == []
