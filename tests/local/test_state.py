"""The state folder: its permissions, its contents and its lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.errors import StackError
from local.state import CLONE, State, default_state


def opened(folder: Path) -> State:
    """Open and return a state folder."""
    state = State(folder)
    state.open()
    return state


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    state = opened(tmp_path / "state")
    secrets = iter(["one", "two"])
    assert [state.secret("key", lambda: next(secrets)) for _ in range(2)] == ["one", "one"]
    path = tmp_path / "state" / "secret" / "key"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    state.close()
    again = opened(tmp_path / "state")
    assert again.secret("key", lambda: next(secrets)) == "one"
    again.close()


def test_new_folders_can_be_used_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        opened(tmp_path / "a" / "state").close()
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


def test_the_lock_lasts_as_long_as_its_holder(tmp_path: Path) -> None:
    state = opened(tmp_path)
    with pytest.raises(StackError, match=f"process {os.getpid()}"):
        opened(tmp_path)
    state.close()
    opened(tmp_path).close()


def test_the_last_run_s_log_is_set_aside(tmp_path: Path) -> None:
    state = opened(tmp_path)
    state.log("api").write_text("old")
    state.close()
    opened(tmp_path).close()
    assert state.log("api").with_suffix(".previous").read_text() == "old"
    assert not state.log("api").exists()


def test_the_default_folder_is_the_clone_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAIROS_STATE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state() == CLONE / ".state"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state().parent == Path("/var/lib/kairos")
    monkeypatch.setenv("KAIROS_STATE", "/elsewhere")
    assert default_state() == Path("/elsewhere")
