"""The demo: a stack, a fresh study, and the rehearsal that plays the study's mobile back end."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local.errors import StackError
from local.ports import HOST, free_port
from local.process import Process
from local.stack import python
from local.state import CLONE
from local.up import running, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from local.stack import Stack
    from local.supervisor import Supervisor

RECORDED_STUDY_LENGTH = 90


@dataclass(frozen=True)
class Rehearsal:
    """What to play: a file of recorded participants, or synthetic ones, and how many decision points."""

    recorded: Path | None = None
    participants: int | None = None
    points: int | None = None

    def options(self) -> list[str]:
        """The choices that were made, as the rehearsal takes them."""
        given = {"--recorded": self.recorded, "--participants": self.participants, "--points": self.points}
        return [str(word) for name, value in given.items() if value is not None for word in (name, value)]


def demo(rehearsal: Rehearsal) -> int:
    """Play `rehearsal` against a stack started for it; the exit code of the rehearsal."""
    with running(usual_ports=False) as (stack, supervisor):
        study = f"rehearsal-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        port = free_port()
        env = {**stack.env, "KAIROS_EMA_TOKEN": secrets.token_urlsafe(24)}
        _create_study(supervisor, env, study, port, recorded=rehearsal.recorded is not None)
        env["REHEARSAL_RESEARCHER"] = _create_researcher(supervisor, env, study)
        return supervisor.foreground(_play(stack, env, study, port, rehearsal), say)


def _create_study(
    supervisor: Supervisor, env: Mapping[str, str], study: str, port: int, *, recorded: bool
) -> None:
    settings = ["refit.min_interval_minutes=0"]
    if recorded:
        settings.append(f"schedule.study_length={RECORDED_STUDY_LENGTH}")
    options = [word for setting in settings for word in ("--set", setting)]
    _command(
        supervisor, env, "study", "create", study, "--ema-url", f"http://{HOST}:{port}/ema_study", *options
    )


def _create_researcher(supervisor: Supervisor, env: Mapping[str, str], study: str) -> str:
    """The researcher's name and password, as `name:password`; a name is used once in a deployment."""
    name = f"{study}-researcher"
    made = _command(supervisor, env, "client", "create", name, "--study", study, "--role", "researcher")
    return f"{name}:{made['password']}"


def _command(supervisor: Supervisor, env: Mapping[str, str], *words: str) -> dict[str, object]:
    """The JSON object that a command of the service prints, as the last line of its output."""
    command = python(("flask", "--app", "api.app", *words))
    text = supervisor.output(Process(" ".join(words[:2]), command, env, folder=CLONE))
    try:
        answer: dict[str, object] = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise StackError(f"`{' '.join(words[:2])}` did not print a JSON object.") from None
    return answer


def _play(stack: Stack, env: Mapping[str, str], study: str, port: int, rehearsal: Rehearsal) -> Process:
    fixed = ("rehearsal", "--api", stack.api_url, "--study", study, "--listen", str(port))
    return Process("rehearsal", python((*fixed, *rehearsal.options())), env, folder=CLONE)
