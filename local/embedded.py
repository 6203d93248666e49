"""PostgreSQL and Valkey as children of this process, for a machine that has neither."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from local.os_user import server_account
from local.postgres import Postgres, prepare_postgres
from local.state import State
from local.supervisor import Supervisor
from local.valkey import Valkey, prepare_valkey

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

DATABASE = "kairos"


class Embedded:
    """Real servers on Unix sockets in the private folder `state`, running within the `with` block.

    No network port is opened and no privilege needed; as root the servers run as `nobody`, who must be able
    to reach the folder. The data stay for the next time. `database=False` and `broker=False` leave a server
    out; `durable=False` does not wait for the disk, for tests. `kernel_tie=False` ties the children by the
    watched pipe alone, as on systems without PDEATHSIG.
    Enter it in the main thread. Raises StackError.
    """

    def __init__(
        self,
        state: Path,
        *,
        database: bool = True,
        broker: bool = True,
        durable: bool = True,
        kernel_tie: bool = True,
    ) -> None:
        self.state = State(state)
        self._database, self._broker = database, broker
        self._durable = durable
        self._kernel_tie = kernel_tie
        self._exit = contextlib.ExitStack()
        self.supervisor: Supervisor
        self.postgres: Postgres
        self.valkey: Valkey

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:  # whatever was started is stopped again where a later step fails
            undo.callback(self.state.close)
            self.state.open()
            self.supervisor = Supervisor(self.state, kernel_tie=self._kernel_tie)
            undo.callback(self.supervisor.stop)
            self._start()
            self._exit = undo.pop_all()
        return self

    def _start(self) -> None:
        account = server_account() if self._database or self._broker else None
        self.state.check_reach(account)
        processes = []
        if self._database:
            self.postgres, process = prepare_postgres(
                self.state, self.supervisor, account, durable=self._durable
            )
            processes.append(process)
        if self._broker:
            self.valkey, process = prepare_valkey(self.state, account)
            processes.append(process)
        self.supervisor.start(*processes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def database_url(self, name: str = DATABASE) -> str:
        """Return SQLAlchemy's address of the database `name`, which need not exist yet."""
        return self.postgres.url(name)

    def broker_url(self, number: int = 0) -> str:
        """Return Celery's address of the broker's database `number` (0 to 15)."""
        return self.valkey.url(number)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of `db` and `broker`."""
        return self.supervisor.pids

    def restart_dead(self) -> list[str]:
        """Start dead servers again, wait until they answer, and return a sentence for each that had died."""
        return self.supervisor.restart_dead()

    def stop(self) -> None:
        """Stop the servers and unlock the state folder; calling it twice does no harm."""
        self._exit.close()
