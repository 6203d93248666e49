"""The analyses on the export of the rehearsed trial, which has everything that happens to a real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import lifejacket, long_table, policies, results
from analysis.__main__ import main
from analysis.export_reader import Export
from tests.analysis.apart import told_by
from tests.analysis.browser import Drawn, drawn, needs_browser
from tests.replay.conftest import Rehearsed


@pytest.fixture(scope="module")
def checked(rehearsed: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lifejacket's input checks say."""
    return told_by("checked_by_lifejacket", rehearsed.folder, out=tmp_path_factory.mktemp("bundle"))


def test_lifejackets_input_checks_pass(rehearsed: Rehearsed, checked: dict[str, Any]) -> None:
    """With decisions before and after a removal, a rollback and another allocation; one wrong probability is
    refused."""
    found = long_table.load(Export(rehearsed.folder))
    assert checked["estimates"] > 4
    assert len(checked["equations"]) == len({1, 2, 3, 4, 5, 6, 7} & set(found.column("policy_id").tolist()))
    assert max(checked["equations"]) < 1e-6
    assert checked["refused"]


def test_what_no_policys_parameter_explains_is_a_constant(rehearsed: Rehearsed) -> None:
    """Unavailable points, the rungs F1, F3, F4, and what an older policy decided after a rollback."""
    export = Export(rehearsed.folder)
    bundle = lifejacket.bundle(export, ["evening"])
    found = long_table.load(export)
    explained = found.randomised & np.isin(found.table.list("fallback_level"), ["F0", "F2"])
    returned = rehearsed.study.rows(
        "SELECT count(*) AS n FROM decisions d WHERE available AND policy_id < (SELECT max(policy_id)"
        " FROM decisions b WHERE (b.participant_id, b.fallback_level) = (d.participant_id, 'F0')"
        " AND b.decision_index < d.decision_index) AND fallback_level IN ('F0', 'F2')"
    )[0]["n"]
    assert returned > 0
    decided = int((found.column("decided") == 1).sum())
    assert bundle.constant == decided - int(explained.sum()) + returned
    assert bundle.columns["counted"].sum() == found.complete.sum()


def test_who_was_removed_is_in_the_effect_and_in_no_later_policy(rehearsed: Rehearsed) -> None:
    (act,) = rehearsed.study.rows("SELECT * FROM audit WHERE act = 'remove_from_learning'")
    export, gone = Export(rehearsed.folder), act["participant_id"]
    bundle = lifejacket.bundle(export, [])
    updates = {number: bool(people[gone]) for number, people in bundle.update_arguments.items()}
    used = sorted({int(one) for one in long_table.load(export).column("policy_id") if one > 0})
    assert updates == {number: used[number - 1] < 5 for number in range(1, len(used) + 1)}
    mine = bundle.columns["participant"] == gone
    assert bundle.columns["counted"][mine].sum() > 5


def test_every_probability_follows_from_the_policy_that_decided(rehearsed: Rehearsed) -> None:
    """Under the last version of the protocol, whose allocation is another."""
    export = Export(rehearsed.folder)
    found, (*_, latest) = long_table.load(export), policies.versions(export)
    own = np.isin(found.table.list("fallback_level"), ["F0"]) & (found.column("protocol_id") == latest)
    for number in (5, 6, 7):
        rows = own & (found.column("policy_id") == number)
        would = policies.alternative(export, found, f"policy:{number}")
        assert rows.any() or number == 6
        np.testing.assert_allclose(would[rows], found.column("act_prob")[rows], atol=1e-12)


@needs_browser
def test_a_browser_draws_the_report(rehearsed: Rehearsed, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(rehearsed.folder), str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert drawn(out, tmp_path) == Drawn(text.count("<circle"), 4)
    found = long_table.load(Export(rehearsed.folder))
    assert f"<td>{results.effects(found).estimates[0].value:.4g}</td>" in text
    for kind, count in found.missing().items():
        assert f"<td>{kind}</td><td>{count}</td>" in text
    assert len(found.missing()) > 4


@pytest.mark.parametrize("command", ["wcls", "randomisation", "vw", "offpolicy"])
def test_the_other_commands_run(rehearsed: Rehearsed, tmp_path: Path, command: str) -> None:
    more = {"vw": [str(tmp_path / "out")], "offpolicy": ["0.5", "policy:7"]}
    assert main([command, str(rehearsed.folder), *more.get(command, [])]) == 0


def test_a_policy_whose_blocks_are_spoilt_has_no_value(
    rehearsed: Rehearsed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offpolicy", str(rehearsed.folder), "policy:4"]) == 1
    assert "blocks are not kept or unusable" in capsys.readouterr().err
