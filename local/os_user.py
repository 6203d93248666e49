"""The user that the two servers run as: PostgreSQL refuses to run as root, so root runs them as `nobody`."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Account:
    """A user of this machine that a child is run as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the servers' account where this process is root's, None (its own account) otherwise."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError("PostgreSQL cannot run as root, and this machine has no user `nobody`.") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def succeeds(account: Account, command: Sequence[str | Path]) -> bool:
    """Return whether `account` can run `command` and it exits with 0."""
    try:
        process = subprocess.run(
            command,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return process.returncode == 0
