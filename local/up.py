"""The running stack, with servers of its own or with those that the environment names."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from local.embedded import DATABASE, Embedded
from local.external import check_broker, check_database
from local.ports import HOST, chosen_port
from local.stack import FLOWER_USER, Stack, environment
from local.state import default_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.supervisor import Supervisor

API_PORT, FLOWER_PORT = 8000, 5555


def say(sentence: str) -> None:
    """Print a sentence for the person at the terminal, at once."""
    with contextlib.suppress(OSError):  # the terminal may be closed by now, and the children still be stopped
        print(f"kairos: {sentence}", flush=True)


@contextlib.contextmanager
def running(*, usual_ports: bool) -> Iterator[tuple[Stack, Supervisor]]:
    """Start the stack for the `with` block, which gets it and its supervisor, and stop it at the block's end.

    `usual_ports` asks for 8000 and 5555 where they are free. The environment's KAIROS_API_PORT,
    KAIROS_FLOWER_PORT, KAIROS_STATE, DATABASE_URL and BROKER_URL take precedence. Raises StackError.
    """
    api_port = chosen_port("KAIROS_API_PORT", API_PORT if usual_ports else None)
    flower_port = chosen_port("KAIROS_FLOWER_PORT", FLOWER_PORT if usual_ports else None)
    database_url, broker_url = os.environ.get("DATABASE_URL"), os.environ.get("BROKER_URL")
    say("starting the database, the broker, the API, the worker, beat and Flower ...")
    with Embedded(default_state(), database=not database_url, broker=not broker_url) as servers:
        if database_url:
            database_url = check_database(database_url)
        else:
            if not servers.postgres.has_database(DATABASE):
                servers.postgres.create_database(DATABASE)
            database_url = servers.database_url()
        broker_url = check_broker(broker_url) if broker_url else servers.broker_url()
        settings = environment(servers.state, database_url, broker_url, api_port)
        stack = Stack(servers.state, servers.supervisor, settings, flower_port)
        stack.start()
        try:
            yield stack, servers.supervisor
        finally:
            say("stopping ...")


def up() -> int:
    """Run the stack until it is interrupted; the exit code if it ends otherwise."""
    with running(usual_ports=True) as (stack, supervisor):
        print(f"""
  API     {stack.api_url}
  docs    {stack.api_url}/docs
  Flower  http://{HOST}:{stack.flower_port}  (user {FLOWER_USER}, password {stack.flower_password})
  logs    {supervisor.logs}

Ctrl-C stops everything.
""", flush=True)  # fmt: skip
        supervisor.watch(lambda: False, say)
    return 0
