"""The dsjson lines: their schema, and what Vowpal Wabbit makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import vowpalwabbit  # type: ignore[import-untyped]

from analysis import long_table, vw
from analysis.export_reader import Export


@pytest.fixture(scope="module")
def found(trial_export: Export) -> long_table.Trial:
    return long_table.load(trial_export)


def test_each_line_gives_back_its_row(found: long_table.Trial) -> None:
    events = [json.loads(line) for line in vw.lines(found)]
    assert len(events) == found.complete.sum()
    rows = np.flatnonzero(found.complete)
    for row, event in zip(rows, events, strict=True):
        action, probability = found.column("action")[row], found.column("act_prob")[row]
        assert event["_label_cost"] == -found.column("outcome")[row]
        assert event["_label_Action"] == event["a"][0] == event["_labelIndex"] + 1 == action + 1
        assert event["_label_probability"] == event["p"][0] == (probability if action else 1 - probability)
        assert sorted(event["a"]) == [1, 2]
        assert sum(event["p"]) == pytest.approx(1)
        assert len(event["c"]["_multi"]) == 2
        assert set(event["c"]["state"]) == {*found.state_names, "day"}
        assert event["Timestamp"].endswith("Z")
    assert len({event["EventId"] for event in events}) == len(events)


def test_vowpal_wabbit_reads_every_line_as_a_labelled_decision(
    found: long_table.Trial, tmp_path: Path
) -> None:
    """Its loss is its own estimate by inverse probabilities; for even odds that can be computed here too."""
    path = tmp_path / "decisions.dsjson"
    path.write_text("\n".join(vw.lines(found)) + "\n", encoding="utf-8")
    arguments = f"--dsjson --cb_explore_adf --cb_type ips --epsilon 1.0 --learning_rate 0 -d {path} --quiet"
    workspace = vowpalwabbit.Workspace(arguments)
    examples, loss = workspace.get_weighted_examples(), workspace.get_sum_loss()
    workspace.finish()
    assert examples == found.complete.sum()
    action, p = found.column("action")[found.complete], found.column("act_prob")[found.complete]
    w = 0.5 / np.where(action == 1, p, 1 - p)
    assert loss / examples == pytest.approx(-(w * found.column("outcome")[found.complete]).mean(), rel=1e-3)
