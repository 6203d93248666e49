"""Reading exports, and what stored policies would have done."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import long_table, policies, results
from analysis.export_reader import BadExport, Export


def test_a_folder_and_its_zip_read_alike(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "export.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"export/{path.name}")
    one, other = (long_table.load(Export(path)) for path in (folder, packed))
    np.testing.assert_array_equal(one.column("act_prob"), other.column("act_prob"))
    assert one.missing() == other.missing()


def test_nulls_and_kinds(trial_export: Export) -> None:
    found = long_table.load(trial_export)
    undecided = found.column("decided") == 0
    assert undecided.any()
    assert np.isnan(found.column("available")[undecided]).all()
    assert not found.randomised[undecided].any()
    assert found.state_names == ("recent_engagement", "evening", "no_cannabis_use")
    assert sum(found.missing().values()) == found.table.rows


def test_what_the_active_policy_would_do_is_what_it_did(trial_export: Export) -> None:
    found = long_table.load(trial_export)
    for number in (0, 1, 3):
        rows = found.randomised & (found.column("policy_id") == number)
        would = policies.alternative(trial_export, found, f"policy:{number}")
        np.testing.assert_allclose(would[rows], found.column("act_prob")[rows], atol=1e-12)


def test_a_policy_without_its_blocks_is_refused(folder: Path, tmp_path: Path) -> None:
    """Else its members would be taken for newcomers."""
    shutil.copytree(folder, tmp_path / "other")
    lines = (folder / "policy_blocks.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("2,")]
    assert len(kept) < len(lines)
    (tmp_path / "other" / "policy_blocks.csv").write_text("".join(kept), encoding="utf-8")
    other = Export(tmp_path / "other")
    assert np.isnan(policies.alternative(other, long_table.load(other), "policy:2")).any()
    with pytest.raises(BadExport, match="blocks are not kept"):
        results.other_value(other, long_table.load(other), "policy:2")
    assert policies.policy(other, 2).participants


def test_an_unusable_block_gives_no_probability(trial_export: Export) -> None:
    """Other participants' are as they were."""
    found, protocol = policies.policy(trial_export, 2), policies.protocol(trial_export)
    one = min(found.blocks)
    broken = replace(found, blocks=found.blocks | {one: (np.full(8, np.nan), np.eye(8))})
    who, states = np.array([one, one + 1]), np.zeros((2, 3))
    before, after = (policies.decides(each, protocol, who, states) for each in (found, broken))
    assert np.isnan(after[0])
    assert after[1] == before[1]


@pytest.mark.parametrize("name", ["policy:99", "often", "1.2", "policy:x"])
def test_a_policy_that_does_not_exist_is_named(trial_export: Export, name: str) -> None:
    with pytest.raises(BadExport):
        policies.alternative(trial_export, long_table.load(trial_export), name)


def test_what_is_no_export_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadExport, match=r"no file manifest\.json"):
        Export(tmp_path).table("trial")
    shutil.copytree(folder, tmp_path / "other")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest | {"format": "other-2"}))
    with pytest.raises(BadExport, match="other-2"):
        long_table.load(Export(tmp_path / "other"))


def test_an_unknown_variable_is_named(trial_export: Export) -> None:
    with pytest.raises(BadExport, match="no numeric column mood"):
        long_table.load(trial_export).variable("mood")
