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

    from local.supervisor import Supervisor

RECORDED_STUDY_LENGTH = 90


@dataclass(frozen=True)
class Rehearsal:
    """The people and decision points to play: a file of recorded participants, or numbers of synthetic ones.

    None leaves a choice to the rehearsal.
    """

    recorded: Path | None = None
    participants: int | None = None
    points: int | None = None

    def options(self) -> list[str]:
        """Return the choices that are not None as words of the rehearsal's command line."""
        choices = {"--recorded": self.recorded, "--participants": self.participants, "--points": self.points}
        return [str(word) for name, value in choices.items() if value is not None for word in (name, value)]


def demo(rehearsal: Rehearsal) -> int:
    """Play `rehearsal` on a stack that is started for it and return the rehearsal's exit code.

    1. Start the stack on free ports. 2. Create a study whose back end is the rehearsal, and a researcher of
    it. 3. Run the rehearsal in the foreground. 4. Stop the stack.
    """
    with running(usual_ports=False) as (stack, supervisor):
        study = f"rehearsal-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        port = free_port()
        env = {**stack.env, "KAIROS_EMA_TOKEN": secrets.token_urlsafe(24)}
        # A demo plays weeks in a minute: the study refits as soon as there are new rows.
        settings = ["refit.min_interval_minutes=0"]
        if rehearsal.recorded:
            settings.append(f"schedule.study_length={RECORDED_STUDY_LENGTH}")
        options = [word for setting in settings for word in ("--set", setting)]
        ema_url = f"http://{HOST}:{port}/ema_study"
        _command(supervisor, env, "study", "create", study, "--ema-url", ema_url, *options)
        # an account's name is used once in a deployment, so the study's name is part of it
        name = f"{study}-researcher"
        account = _command(
            supervisor, env, "client", "create", name, "--study", study, "--role", "researcher"
        )
        env["REHEARSAL_RESEARCHER"] = f"{name}:{account['password']}"
        words = ("rehearsal", "--api", stack.api_url, "--study", study, "--listen", str(port))
        command = python((*words, *rehearsal.options()))
        return supervisor.foreground(Process("rehearsal", command, env, folder=CLONE), say)


def _command(supervisor: Supervisor, env: Mapping[str, str], *words: str) -> dict[str, object]:
    """Run a command of the service and return the JSON object in the last line of its output."""
    command = python(("flask", "--app", "api.app", *words))
    text = supervisor.output(Process(" ".join(words[:2]), command, env, folder=CLONE))
    try:
        answer: dict[str, object] = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise StackError(f"`{' '.join(words[:2])}` did not print a JSON object.") from None
    return answer
