"""One synthetic export for all tests that only read it."""

from pathlib import Path

import pytest

from analysis.export_reader import Export
from tests.analysis import synthetic


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export's folder."""
    return synthetic.export(tmp_path_factory.mktemp("trial") / "export")


@pytest.fixture(scope="session")
def trial_export(folder: Path) -> Export:
    """The export, opened."""
    return Export(folder)
