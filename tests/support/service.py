"""The service inside the test's own process: the real application on a database of its own."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from werkzeug.test import TestResponse

from api.app import create_app
from api.core import auth, broker, health, login_limits, metrics
from models.core import connections, encryption, locks
from services.trial import decide, protocols, rungs, studies
from settings import settings
from workers.app import TASKS

for tasks in TASKS:
    importlib.import_module(tasks)  # the sweep knows the kinds of jobs whose tasks are imported
REGISTRATION: dict[str, Any] = {
    "rl_start_date": "2020-01-01",
    "rl_end_date": "2099-12-31",
    "consent_start_date": "2020-01-01",
    "consent_end_date": "2099-12-31",
    "morning_notification_time_start": [800] * 7,
    "evening_notification_time_start": [1900] * 7,
}
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # the real one would take most of a test
NOT_FINISHED: dict[str, Any] = {"finished_ema": False, "app_use_flag": False}


@dataclass
class Service:
    """The application and who calls it; `call` returns the test client's response."""

    app: Flask
    tokens: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the service's CLI and return the object it prints."""
        result = self.app.test_cli_runner().invoke(args=list(arguments))
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.output)
        return answer

    def study(
        self, name: str = "trial", *settings: str, ema_url: str = "http://127.0.0.1:9/ema_study"
    ) -> None:
        """Create a study with one account of each role; the caller is known as its role, or role@name."""
        assigned = [argument for setting in settings for argument in ("--set", setting)]
        self.command("study", "create", name, "--ema-url", ema_url, *assigned)
        for role in ("client", "researcher", "admin"):
            made = self.command("client", "create", f"{role}@{name}", "--study", name, "--role", role)
            token = self.login(made["name"], made["password"])
            self.tokens[made["name"]] = token
            self.tokens.setdefault(role, token)

    def login(self, name: str, password: str) -> str:
        """A fresh token."""
        answer = self.call("POST", "/auth/login", {"api_user": name, "api_pass": password}, caller=None)
        return str(answer.get_json()["auth_token"])

    def call(
        self, method: str, path: str, body: Any = None, caller: str | None = "client", **headers: str
    ) -> TestResponse:
        """One request as `caller` (None: without a token)."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if caller is not None:
            sent["Authorization"] = f"Bearer {self.tokens[caller]}"
        return self.app.test_client().open(path, method=method, json=body, headers=sent)

    def enrol(self, user_id: str, **changes: Any) -> TestResponse:
        """Register a participant."""
        return self.call("POST", "/register", {"user_id": user_id, **REGISTRATION, **changes})

    def decide(self, user_id: str, answers: dict[str, Any] = NOT_FINISHED, **more: Any) -> TestResponse:
        """Ask for a decision."""
        return self.call("POST", "/actions", {"user_id": user_id, **answers, **more})

    def end(self, user_id: str, **more: Any) -> TestResponse:
        """End the participant's window."""
        return self.call("POST", "/end_decision_window", {"user_id": user_id, **more})


def _forget() -> None:
    """Drop what the process keeps of another database."""
    connections.forget()
    for cached in (settings, connections.engine, broker.producer):
        cached.cache_clear()
    for kept in (
        auth._verified,
        auth._nobody,
        encryption._keys,
        encryption.decrypt,
        login_limits._shared,
        login_limits._own,
    ):
        kept.cache_clear()
    for cache in (protocols._loaded, studies._keys, decide._looks_back, rungs._populations):
        cache.clear()
    locks.close()
    login_limits._away_until = 0.0
    health.forget()
    metrics.forget()


@contextmanager
def running(environment: dict[str, str]) -> Iterator[Service]:
    """The service under `environment`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(auth, "_hasher", CHEAP)
        _forget()
        yield Service(create_app())
        _forget()
