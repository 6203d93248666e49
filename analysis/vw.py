"""Decisions as Vowpal Wabbit reads them: one JSON line each, in the format dsjson.

A line holds the cost (minus the outcome) of the action taken, its probability, and both actions. Action 1
of VW is "no message", action 2 "message". `a` has the action taken first, `p` the probabilities in the
same order; `c` holds the shared features and, in `_multi`, those of each action. Read it with
`vw --dsjson --cb_explore_adf -d FILE`."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.long_table import Trial

ACTIONS = ("no_message", "message")


def lines(trial: Trial) -> Iterator[str]:
    """One line for each randomised decision whose state and outcome are known, in the table's order."""
    names = trial.state_names
    states = trial.states()
    stamps = trial.table.list("act_gen_timestamp")
    numbers = {name: trial.column(name) for name in ("action", "act_prob", "outcome", "rid", "policy_id")}
    for row in np.flatnonzero(trial.known):
        shared = {name: float(value) for name, value in zip(names, states[row], strict=True)}
        shared["day"] = float(trial.variable("day")[row])
        values = {name: float(column[row]) for name, column in numbers.items()}
        yield json.dumps(_event(values, shared, stamps[row]), separators=(",", ":"))


def _event(values: dict[str, float], shared: dict[str, float], stamp: str) -> dict[str, Any]:
    taken = int(values["action"])
    chances = (1 - values["act_prob"], values["act_prob"])
    order = (taken, 1 - taken)
    return {
        "_label_cost": -values["outcome"],
        "_label_probability": chances[taken],
        "_label_Action": taken + 1,
        "_labelIndex": taken,
        "Version": "1",
        "EventId": f"{values['rid']:.0f}",
        "Timestamp": stamp.replace("+00:00", "Z"),
        "a": [action + 1 for action in order],
        "c": {"state": shared, "_multi": [{"action": {name: 1}} for name in ACTIONS]},
        "p": [chances[action] for action in order],
        "VWState": {"m": f"{values['policy_id']:.0f}"},
    }
