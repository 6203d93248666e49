"""The folder of a stack's data, sockets, secrets and logs, which one supervisor holds at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from local.errors import StackError
from local.os_user import succeeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.os_user import Account

CLONE = Path(__file__).resolve().parents[1]
# A socket's path has at most 103 bytes on macOS and 107 on Linux, and PostgreSQL adds a name of 14.
LONGEST_SOCKET_FOLDER = 85
SETTLING_SECONDS = 15.0


def digest(path: Path) -> str:
    """Return a short name for a folder, made of its path's hash."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def default_state() -> Path:
    """Return the folder that KAIROS_STATE names, or one of this clone's own."""
    if folder := os.environ.get("KAIROS_STATE"):
        return Path(folder)
    # root's servers run as `nobody`, who can pass through /var/lib but not through root's home
    return Path("/var/lib/kairos") / digest(CLONE) if os.geteuid() == 0 else CLONE / ".state"


def private_folder(path: Path, account: Account | None) -> Path:
    """Make the folder `path`, which only `account` (None: ours) may enter, and return it.

    Raises StackError where something else is there already: a link, a file, or a folder open to others.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()  # not stat(): somebody else may have put a link there
    if account and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        os.chown(path, account.uid, account.gid)
        status = path.lstat()
    owner = account.uid if account else os.geteuid()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
        name = account.name if account else f"user {owner}"
        raise StackError(f"{path} must be a folder of {name} with mode 0700; move it away or correct it.")
    return path


class State:
    """A state folder. `open` makes it where it is missing and locks it until `close`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (resolve() would follow links)
        self.lock = -1

    def open(self) -> None:
        """Make and lock the folder. Raises StackError where it cannot be used or is another supervisor's."""
        with self._os_errors_explained():
            missing = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                # chmod, since the umask may forbid more; root's may be passed through by `nobody`'s servers
                folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self.lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._take_lock()
            for log in private_folder(self.root / "log", None).glob("*.log"):
                log.replace(log.with_suffix(".previous"))

    def _take_lock(self) -> None:
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            holder = os.pread(self.lock, 20, 0).decode()
            if (holder.isdigit() and _runs(int(holder))) or time.monotonic() > deadline:
                raise StackError(
                    f"Another supervisor (process {holder}) is running in {self.root}: stop it, or set"
                    " KAIROS_STATE to another folder."
                )
            time.sleep(0.05)  # a killed supervisor's children are still being ended
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, str(os.getpid()).encode(), 0)

    @contextlib.contextmanager
    def _os_errors_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StackError(
                f"The state folder {self.root} cannot be used ({error.strerror}: {error.filename}):"
                " set KAIROS_STATE to a folder that can."
            ) from error

    def check_reach(self, account: Account | None) -> None:
        """Raise StackError unless `account` can enter this folder."""
        if account and not succeeds(account, ["/bin/sh", "-c", 'cd "$1"', "sh", self.root]):
            raise StackError(
                f"{account.name}, who runs the servers when you are root, cannot reach {self.root}: set"
                " KAIROS_STATE to a folder whose parents anybody may pass, such as one under /var/lib."
            )

    def log(self, name: str) -> Path:
        """Return the path of a process's log; the last run's log is beside it, ending in `.previous`."""
        return self.root / "log" / f"{name}.log"

    def folder(self, name: str, account: Account | None) -> Path:
        """Make and return a folder in this one that only `account` (None: ours) may enter."""
        with self._os_errors_explained():
            return private_folder(self.root / name, account)

    def sockets(self, account: Account | None) -> Path:
        """Make and return the folder of the servers' sockets."""
        path = self.root / "run"
        # A path that is too long for a socket, or needs quoting in an address, is replaced by one in /tmp.
        if len(os.fsencode(path)) > LONGEST_SOCKET_FOLDER or not re.fullmatch(
            r"[\w./-]+", str(path), re.ASCII
        ):
            path = Path("/tmp") / f"kairos-{os.geteuid()}-{digest(self.root)}"  # noqa: S108 (checked by private_folder)
        with self._os_errors_explained():
            return private_folder(path, account)

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """Return the secret of that name; the first time `make` makes it for a file that only we can read."""
        with self._os_errors_explained():
            path = self.folder("secret", None) / name
            if not path.exists():
                # written under another name first: a secret cut short would be used for ever
                unfinished = path.with_suffix(".new")
                unfinished.touch(mode=0o600)
                unfinished.write_text(make())
                unfinished.replace(path)
            return path.read_text()

    def close(self) -> None:
        """Unlock the folder for other supervisors."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
        return True
    return False
