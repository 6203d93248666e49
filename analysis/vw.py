"""Decisions as Vowpal Wabbit reads them: one JSON line each, in the format dsjson.

A line holds the cost (minus the outcome) of the action taken, its probability, and both actions. Action 1
of VW is "no message", action 2 "message". `a` has the action taken first, `p` the probabilities in the
same order; `c` holds the shared features and, in `_multi`, the features of each action. Read the lines with
`vw --dsjson --cb_explore_adf -d FILE`."""

import json
from collections.abc import Iterator

import numpy as np

from analysis.long_table import Trial

ACTIONS = ("no_message", "message")


def lines(trial: Trial) -> Iterator[str]:
    """Yield a line for each randomised decision whose state and outcome are known, in the table's order."""
    names = trial.state_names
    states = trial.states()
    stamps = trial.table.list("act_gen_timestamp")
    numbers = {name: trial.column(name) for name in ("action", "act_prob", "outcome", "rid", "policy_id")}
    for row in np.flatnonzero(trial.complete):
        shared = {name: float(value) for name, value in zip(names, states[row], strict=True)}
        shared["day"] = float(trial.variable("day")[row])
        values = {name: float(column[row]) for name, column in numbers.items()}
        action = int(values["action"])
        chances = (1 - values["act_prob"], values["act_prob"])
        order = (action, 1 - action)
        event = {
            "_label_cost": -values["outcome"],  # VW minimises
            "_label_probability": chances[action],
            "_label_Action": action + 1,
            "_labelIndex": action,
            "Version": "1",
            "EventId": f"{values['rid']:.0f}",
            "Timestamp": stamps[row].replace("+00:00", "Z"),
            "a": [place + 1 for place in order],
            "c": {"state": shared, "_multi": [{"action": {name: 1}} for name in ACTIONS]},
            "p": [chances[place] for place in order],
            "VWState": {"m": f"{values['policy_id']:.0f}"},
        }
        yield json.dumps(event, separators=(",", ":"))
