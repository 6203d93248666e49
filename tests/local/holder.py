"""A supervisor in a process of its own, to be killed: `python -m tests.local.holder STATE [WORD ...]`.

It prints one line of JSON, its children's process ids by name, and tends them. Words: `servers` starts
PostgreSQL and the broker, `family` a child that ignores SIGTERM and has a child of its own, `pipe` leaves out
PDEATHSIG.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from local.embedded import Embedded
from local.errors import StackError
from local.process import Process
from tests.local.families import FAMILY


def main() -> None:
    folder, words = Path(sys.argv[1]), set(sys.argv[2:])
    servers = "servers" in words
    try:
        with Embedded(folder, database=servers, broker=servers, kernel_tie="pipe" not in words) as embedded:
            if "family" in words:
                embedded.supervisor.start(Process("family", FAMILY, dict(os.environ)))
            print(json.dumps(embedded.pids), flush=True)
            embedded.supervisor.watch(lambda: False, print)
    except StackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
