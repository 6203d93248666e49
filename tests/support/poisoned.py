"""What a worker includes (celery --include) so that one part of a fit kills whoever does it.

It is the smallest part of the first study; each death leaves a byte in the file DEATHS.
"""

import os
import signal
from functools import partial
from pathlib import Path

from models.core.session import transact
from models.trial import fit_parts as rows
from workers.trial import fit_parts

STUDY = 1
FULL = 256
_do = fit_parts._do


def deadly(part_id: int) -> bool:
    """Do the part, or die of it."""
    part = transact(partial(rows.open_part, part_id=part_id))
    if part is not None and part.study_id == STUDY and part.size < FULL:
        with Path(os.environ["DEATHS"]).open("ab", buffering=0) as file:
            file.write(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    return _do(part_id)


fit_parts._do = deadly
