"""The service inside the test's own process: the real application on a database of its own."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # the real one would take most of a test


@dataclass
class Service:
    """The application in this process and the address of its database."""

    app: Flask
    database_url: str

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the service's CLI and return the object it prints."""
        result = self.app.test_cli_runner().invoke(args=list(arguments))
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.output)
        return answer

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> TestResponse:
        """Send one request, with a bearer's `token` if there is one, and return the response."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return self.app.test_client().open(path, method=method, json=body, headers=sent)

    def login(self, name: str, password: str) -> str:
        """Log an account in and return its new token."""
        answer = self.call("POST", "/auth/login", {"api_user": name, "api_pass": password})
        return str(answer.get_json()["auth_token"])


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
        yield Service(create_app(), environment["DATABASE_URL"])
        _forget()
