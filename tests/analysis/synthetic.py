"""A whole synthetic trial, played with the real learner, as an export folder: the tables that analyses read.

Points are decided one decision index after the other, by everybody; a refit comes after each `every` points.
A share of the points is missed, unavailable or without an outcome."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.trial import learner, testbed
from algorithm.trial.ladder import Block, randomise
from algorithm.trial.learning_rows import Rows
from algorithm.trial.protocol import Protocol, load

MIWAVES = {"protocol": "miwaves", "hyperparameters": {"rule": "fixed"}}
TRIAL_KINDS = {
    **dict.fromkeys(("participant_id", "decision_index", "study_day", "action", "seed"), "integer"),
    **dict.fromkeys(("policy_id", "protocol_id", "rid", "row_seq"), "integer"),
    **dict.fromkeys(("evening", "decided", "available", "learning_row"), "boolean"),
    **dict.fromkeys(("act_prob", "reward", "outcome", "learnt_outcome"), "number"),
    **dict.fromkeys(("decision_time", "act_gen_timestamp"), "instant"),
    **dict.fromkeys(("unavailable_rule", "fallback_level", "outcome_missing"), "text"),
}
KINDS: dict[str, dict[str, str]] = {
    "policies": {
        **dict.fromkeys(("policy_id", "protocol_id", "row_seq"), "integer"),
        **dict.fromkeys(("mean", "covariance", "sigma_u"), "numbers"),
        **dict.fromkeys(("advantage_mean", "advantage_covariance"), "numbers"),
        "noise_variance": "number",
        "participants": "integers",
    },
    "policy_blocks": {
        **dict.fromkeys(("policy_id", "participant_id"), "integer"),
        **dict.fromkeys(("mean", "covariance"), "numbers"),
    },
    "learning_rows": {
        **dict.fromkeys(("row_seq", "participant_id", "decision_id", "decision_index"), "integer"),
        "outcome": "number",
    },
    "protocols": {"id": "integer", "document": "json"},
}


@dataclass
class Played:
    """What came of the trial: rows by table."""

    protocol: Protocol
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"trial": []})

    def add(self, table: str, **row: Any) -> None:
        self.tables.setdefault(table, []).append(row)


def export(
    folder: Path,
    participants: int = 20,
    points: int = 16,
    every: int = 4,
    document: dict[str, Any] | None = None,
    faults: float = 0.06,
) -> Path:
    """Play a trial and write it into `folder`."""
    return write(folder, play(load(document or MIWAVES), participants, points, every, faults))


def play(protocol: Protocol, m: int, T: int, every: int, faults: float) -> Played:
    generator = np.random.default_rng(7)
    cohort = testbed.draw_cohort(generator, m, "high")
    course = testbed.draw_course(generator, cohort, T)
    played, policy = Played(protocol), learner.prior_policy(protocol)
    _store_policy(played, 0, policy, 0)
    played.add("protocols", id=1, document=protocol.document)
    history = np.zeros((m, 0), dtype=np.int64)
    rewards = np.zeros((m, 0), dtype=np.int64)
    number = 0
    for t in range(T):
        states = _states(generator, protocol, rewards, t, m)
        actions = np.zeros(m, dtype=np.int64)
        for i in range(m):
            row = _decide(generator, played, policy, number, i, t, states[i], faults)
            actions[i] = row["action"] or 0
        drawn = testbed.rewards(cohort, course, t, history, actions)
        _observe(generator, played, drawn, m, faults)
        history, rewards = np.column_stack([history, actions]), np.column_stack([rewards, drawn])
        if (t + 1) % every == 0 and t + 1 < T:
            number += 1
            policy = _refit(played, m, number)
    played.tables["trial"].sort(key=lambda row: (row["participant_id"], row["decision_index"]))
    return played


def _states(generator: np.random.Generator, protocol: Protocol, rewards: Any, t: int, m: int) -> Floats:
    """States that depend on what came before where the protocol is miwaves, else any within its table's."""
    if protocol.design.name == "miwaves":
        engaged = rewards[:, -3:].mean(axis=1) >= 2 if t else np.zeros(m)
        return np.column_stack([engaged, np.full(m, t % 2), generator.random(m) < 0.5]).astype(np.float64)
    table = np.array(protocol.design.states())
    return np.asarray(table[generator.integers(len(table), size=m)], dtype=np.float64)


def _decide(
    generator: np.random.Generator,
    played: Played,
    policy: learner.Fit,
    number: int,
    i: int,
    t: int,
    state: Floats,
    faults: float,
) -> dict[str, Any]:
    """One row of the trial, without its outcome."""
    protocol = played.protocol
    row: dict[str, Any] = dict.fromkeys(TRIAL_KINDS)
    names = protocol.design.state_names
    row |= {f"state_{name}": None for name in names}
    row |= {
        "participant_id": 100 + i,
        "decision_index": t + 1,
        "study_day": t // 2 + 1,
        "evening": t % 2 == 1,
    }
    row |= {"decided": generator.random() >= faults, "learning_row": False}
    played.tables["trial"].append(row)
    if not row["decided"]:
        return row
    available = generator.random() >= faults
    row |= {f"state_{name}": value for name, value in zip(names, state.tolist(), strict=True)}
    stamp = f"2026-03-{t // 2 + 1:02d}T{8 + 10 * (t % 2):02d}:00:00.000001+00:00"
    row |= {"available": available, "act_gen_timestamp": stamp, "decision_time": stamp, "protocol_id": 1}
    row |= {"rid": len(played.tables["trial"]), "seed": int(generator.integers(1 << 53)), "policy_id": number}
    member = len(policy.counts) and policy.counts[i] > 0
    block = Block(policy.beta[i], policy.V[i]) if member else policy.block
    row["fallback_level"] = "F0"
    row["act_prob"] = (
        randomise(protocol.design.features(state), block, protocol).probability if available else 0
    )
    row["unavailable_rule"] = None if available else "quiet_hours"
    row["action"] = int(available and row["seed"] / 2**53 < row["act_prob"])
    return row


def _observe(generator: np.random.Generator, played: Played, drawn: Any, m: int, faults: float) -> None:
    for i, row in enumerate(played.tables["trial"][-m:]):
        seen = row["decided"] and generator.random() >= faults
        row["outcome"] = int(drawn[i]) if seen else None
        row["outcome_missing"] = None if seen else "survey_not_given" if row["decided"] else "not_decided"
        if seen and row["available"]:
            seq = len(played.tables.get("learning_rows", [])) + 1
            row |= {"learning_row": True, "row_seq": seq, "learnt_outcome": row["outcome"]}
            keys = ("participant_id", "decision_index", "row_seq", "outcome")
            played.add("learning_rows", **{key: row[key] for key in keys}, decision_id=row["rid"])


def _refit(played: Played, m: int, number: int) -> learner.Fit:
    rows = sorted(
        (row for row in played.tables["trial"] if row["learning_row"]),
        key=lambda row: (row["participant_id"], row["decision_index"]),
    )
    names = [f"state_{name}" for name in played.protocol.design.state_names]
    people, states = (
        [row["participant_id"] - 100 for row in rows],
        [[row[name] for name in names] for row in rows],
    )
    rest = ([row[name] for row in rows] for name in ("act_prob", "action", "outcome"))
    given = Rows(np.array(people), np.array(states), *map(np.array, rest))
    policy = learner.fit(played.protocol, given, m)
    _store_policy(played, number, policy, len(rows))
    return policy


def _store_policy(played: Played, number: int, policy: learner.Fit, row_seq: int) -> None:
    members = np.flatnonzero(policy.counts)
    played.add(
        "policies",
        policy_id=number,
        protocol_id=1,
        row_seq=row_seq,
        mean=policy.population_mean.tolist(),
        covariance=policy.population_covariance.ravel().tolist(),
        sigma_u=policy.sigma_u.ravel().tolist(),
        noise_variance=policy.noise_variance,
        advantage_mean=policy.block.mean.tolist(),
        advantage_covariance=policy.block.covariance.ravel().tolist(),
        participants=(100 + members).tolist(),
    )
    upper = np.triu_indices(len(policy.block.mean))
    for i in members:
        block = {"mean": policy.beta[i].tolist(), "covariance": policy.V[i][upper].tolist()}
        played.add("policy_blocks", policy_id=number, participant_id=int(100 + i), **block)


def write(folder: Path, played: Played) -> Path:
    """The export folder of `played`."""
    folder.mkdir(parents=True, exist_ok=True)
    states = {f"state_{name}": "number" for name in played.protocol.design.state_names}
    kinds = {"trial": TRIAL_KINDS | states, **KINDS}
    tables = {}
    for name, columns in kinds.items():
        rows = played.tables.get(name, [])
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_text(row[column]) for column in columns] for row in rows)
        tables[name] = {"rows": len(rows), "columns": list(columns.items())}
    manifest = {"format": "kairos-export-1", "study": {"name": "pilot"}, "tables": tables}
    manifest |= {"as_of": "2026-04-01T00:00:00+00:00", "code_version": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
