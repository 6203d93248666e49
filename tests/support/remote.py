"""A study in a running stack, called over HTTP."""

import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from local.state import CLONE
from tests.support.study import NOBODY, NOT_FINISHED, REGISTRATION


def command(environment: Mapping[str, str], *words: str) -> dict[str, Any]:
    """Run a command of the service's CLI and return the object it prints."""
    run = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "api.app", *words],
        cwd=CLONE,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    printed: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return printed


@dataclass(frozen=True)
class Remote:
    """One account of one study at the API under `url`."""

    url: str
    token: str

    def post(self, path: str, body: Mapping[str, Any], seconds: float = 60.0) -> requests.Response:
        """One POST, on a connection of its own. Raises requests.RequestException."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.post(self.url + path, json=body, headers=headers, timeout=seconds)

    def get(self, path: str) -> Any:
        """The body of a GET that must succeed."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.get(self.url + path, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def enrol(self, user_id: str) -> None:
        """Register a participant."""
        assert self.post("/register", {"user_id": user_id, **REGISTRATION}).status_code == 201

    def post_actions(self, user_id: str, seconds: float = 60.0, **more: Any) -> requests.Response:
        """POST /actions."""
        return self.post("/actions", {"user_id": user_id, **NOT_FINISHED, **more}, seconds)

    def post_end(self, user_id: str, seconds: float = 60.0, **more: Any) -> requests.Response:
        """POST /end_decision_window."""
        return self.post("/end_decision_window", {"user_id": user_id, **more}, seconds)


def begin(
    environment: Mapping[str, str], url: str, *settings: str, ema_url: str = NOBODY, role: str = "client"
) -> Remote:
    """A new study of the stack with this environment, and an account in it."""
    study = f"study-{secrets.token_hex(4)}"
    assigned = [word for setting in settings for word in ("--set", setting)]
    command(environment, "study", "create", study, "--ema-url", ema_url, *assigned)
    made = command(environment, "client", "create", f"{role}@{study}", "--study", study, "--role", role)
    account = {"api_user": made["name"], "api_pass": made["password"]}
    answer = requests.post(f"{url}/auth/login", json=account, timeout=60)
    assert answer.status_code == 200, answer.text
    return Remote(url, answer.json()["auth_token"])
