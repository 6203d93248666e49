"""The object store: the same promises by a folder and by a real S3 service."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.core import objects
from models.core.objects import NoObject, Store, StoreAway, new_key
from models.core.objects_folder import PART, Folder
from models.core.objects_s3 import S3

if TYPE_CHECKING:
    from tests.support.s3 import Swift

ROOT = Path(__file__).parents[3]
NOW = datetime.now(UTC)
NO_KEYS = {
    "parent": "exports/1/../../../etc/passwd",
    "parent alone": "..",
    "absolute": "/etc/passwd",
    "NUL": f"exports/1/{'0' * 31}\0",
    "backslash": "exports\\1\\" + "0" * 32,
    "part": f"exports/1/{PART}{'0' * 26}",
    "short": "exports/1/abc",
    "four steps": f"exports/1/2/{'0' * 32}",
    "a line after it": f"exports/1/{'0' * 32}\n",
    "nothing": "",
}


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return Folder(tmp_path / "objects")
    swift: Swift = request.getfixturevalue("swift")
    return swift.store()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "objects")


def content(store: Store, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.read(key, start, end))


def files(folder: Folder) -> list[str]:
    return [path.name for path in folder.root.rglob("*") if path.is_file()]


def test_what_is_put_is_read_whole_and_in_parts(store: Store) -> None:
    key, whole = new_key("exports", 7), random.Random(1).randbytes(9_000_000)
    written = store.put(key, (whole[start : start + 1_000_000] for start in range(0, len(whole), 1_000_000)))
    assert written == (len(whole), hashlib.sha256(whole).hexdigest())
    assert store.size(key) == len(whole)
    assert content(store, key) == whole
    for start, end in ((0, 1), (4_194_303, 4_194_305), (8_999_990, None), (8_999_999, 10**9), (5, 5)):
        assert content(store, key, start, end) == whole[start:end]
    assert content(store, key, 9_000_000) == b""


def test_nothing_is_an_object_too(store: Store) -> None:
    key = new_key("exports", 7)
    assert store.put(key, []) == (0, hashlib.sha256(b"").hexdigest())
    assert (store.size(key), content(store, key)) == (0, b"")


def test_a_missing_object_is_said_to_be_missing(store: Store) -> None:
    key = new_key("exports", 7)
    with pytest.raises(NoObject):
        store.size(key)
    with pytest.raises(NoObject):
        store.read(key)
    store.delete(key)
    assert list(store.listed("exports")) == []


def test_what_is_deleted_is_gone_and_nothing_else(store: Store) -> None:
    keys = [new_key("exports", 7) for _ in range(2)]
    for key in keys:
        store.put(key, [b"some"])
    store.delete(keys[0])
    with pytest.raises(NoObject):
        store.size(keys[0])
    assert content(store, keys[1]) == b"some"


def test_lists_are_of_an_area_or_of_one_study_in_it(store: Store) -> None:
    keys = sorted(new_key(area, study) for area in ("exports", "files") for study in (1, 12) for _ in "ab")
    for key in keys:
        store.put(key, [key.encode()])
    assert [each.key for each in store.listed("exports")] == keys[:4]
    (first, second) = store.listed("files/1")
    assert [first.key, second.key] == [key for key in keys if key.startswith("files/1/")]
    assert first.size == len(first.key)
    assert abs(first.modified - datetime.now(UTC)) < timedelta(minutes=1)
    for prefix in ("", "..", "exports/", "/exports", "exports/1/2"):
        with pytest.raises(ValueError, match="not the beginning of keys"):
            list(store.listed(prefix))


@pytest.mark.parametrize("key", NO_KEYS.values(), ids=NO_KEYS)
def test_no_other_text_is_taken_for_a_key(store: Store, key: str) -> None:
    for act in (
        lambda: store.put(key, [b"x"]),
        lambda: store.size(key),
        lambda: store.read(key),
        lambda: store.delete(key),
        lambda: store.link("GET", key, NOW, 60),
    ):
        with pytest.raises(ValueError, match="not the key of an object"):
            act()


def test_a_put_that_fails_leaves_nothing(store: Store) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"x" * 20_000_000
        raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"):
        store.put(new_key("exports", 7), breaking())
    assert list(store.listed("exports")) == []
    if isinstance(store, Folder):
        assert files(store) == []


def test_writers_who_race_for_a_key_leave_one_whole_object(store: Store) -> None:
    key = new_key("exports", 7)
    versions = [bytes([number]) * 3_000_000 for number in range(8)]

    def put(version: bytes) -> objects.Written:
        return store.put(key, (version[start : start + 100_000] for start in range(0, len(version), 100_000)))

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(put, versions))
    assert {each.size for each in written} == {3_000_000}
    assert content(store, key) in versions
    assert len(list(store.listed("exports"))) == 1


MEMORY = """
import resource, sys
from pathlib import Path
from models.core.objects import new_key
kind, *place = sys.argv[1:]
if kind == "folder":
    from models.core.objects_folder import Folder
    store = Folder(Path(place[0]))
else:
    from models.core.objects_s3 import S3
    store = S3(*place)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
key = new_key("exports", 1)
store.put(key, [b"x"]); list(store.read(key))
before = peak()
written = store.put(key, (bytes([number % 256]) * 2**20 for number in range(200)))
assert written.size == sum(len(chunk) for chunk in store.read(key)) == 200 * 2**20
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_object(store: Store) -> None:
    """200 MiB through a process of its own, whose peak of resident memory may grow by 64 MiB."""
    if isinstance(store, S3):
        place = [
            "s3",
            store.bucket,
            store.prefix,
            store.endpoint,
            store.access_key,
            store.secret,
            store.region,
        ]
    else:
        assert isinstance(store, Folder)
        place = ["folder", str(store.root)]
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, *place], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < (64 if isinstance(store, S3) else 8)


PUTTING = """
import sys
from pathlib import Path
from models.core.objects import new_key
from models.core.objects_folder import Folder
store = Folder(Path(sys.argv[1]))
for number in range(1_000_000):
    written = store.put(new_key("exports", number % 5), (bytes([number % 256]) * 2**16 for _ in range(32)))
    print(written.sha256, flush=True)
"""


def test_a_put_that_is_killed_shows_no_half_object(folder: Folder) -> None:
    acknowledged, whole = list[str](), [bytes([number]) * 2**21 for number in range(256)]
    for pause in (0.05, 0.1, 0.2, 0.15):
        with subprocess.Popen(
            [sys.executable, "-c", PUTTING, folder.root], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    digests = {hashlib.sha256(each).hexdigest() for each in whole}
    there = [hashlib.sha256(content(folder, each.key)).hexdigest() for each in folder.listed("exports")]
    assert set(there) <= digests
    assert len(acknowledged) <= len(there) <= len(acknowledged) + 4
    assert set(acknowledged) <= set(there)


def test_files_and_folders_are_for_the_service_alone(folder: Folder) -> None:
    previous = os.umask(0)
    try:
        folder.put(new_key("exports", 7), [b"x"])
    finally:
        os.umask(previous)
    for path in (folder.root, *folder.root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_links_in_the_folder_are_no_objects(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    key = new_key("exports", 7)
    folder.put(new_key("exports", 7), [b"x"])
    (folder.root / key).symlink_to(tmp_path / "secret")
    with pytest.raises(NoObject):
        folder.size(key)
    with pytest.raises(StoreAway):
        folder.read(key)
    assert key not in [each.key for each in folder.listed("exports")]


def test_orphans_and_left_parts_go_after_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "store", lambda: store)
    keys = [new_key("exports", 7) for _ in range(3)]
    other = new_key("files", 7)
    for key in (*keys, other):
        store.put(key, [b"x"])
    part = tmp_path / "objects" / "exports" / "7" / f"{PART}0123"
    if isinstance(store, Folder):
        part.touch()
    named = {keys[1]}
    assert objects.sweep("exports", named.intersection, datetime.now(UTC)) == []
    assert part.exists() == isinstance(store, Folder)
    later = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert set(objects.sweep("exports", named.intersection, later)) == {keys[0], keys[2]}
    assert [each.key for each in store.listed("exports")] == [keys[1]]
    assert [each.key for each in store.listed("files")] == [other]
    assert not part.exists()


@pytest.mark.parametrize(
    ("method", "seconds", "length"),
    [("GET", 0, None), ("GET", 604_801, None), ("GET", 60, 1), ("PUT", 60, None), ("PUT", 60, -1)],
)
def test_links_that_cannot_be_made(
    store: Store, method: objects.Method, seconds: int, length: int | None
) -> None:
    with pytest.raises(ValueError, match="link"):
        store.link(method, new_key("exports", 7), NOW, seconds, length)
