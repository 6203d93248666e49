"""The file of the recorded pilot study: it lies beside the clone, in a folder that not everybody has."""

from pathlib import Path

import pytest

PILOT = Path(__file__).resolve().parents[3] / "shared" / "reference" / "pilot_engagement.csv"
needs_pilot = pytest.mark.skipif(
    not PILOT.exists(),
    reason="the recorded pilot study is not beside this clone: shared/reference/ is absent",
)
