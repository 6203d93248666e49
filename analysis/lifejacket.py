"""What the package lifejacket (PyPI, version 1.3) takes. It computes standard errors that hold although the
policies were learnt from all participants together (Zhang, Janson, Murphy, arXiv 2202.07098).

A policy is the vector beta = [tp ; upper triangle of S^-1 / m] of the population's posterior, which solves

    sum_i g_i - J_i tp + Sigma^-1 (mu - tp) = 0        Sigma^-1 + sum_i J_i - S^-1 = 0

(`algorithm/trial/posterior.py`), and a participant's probability of a message follows from beta and that
participant's own rows. Sigma_u and the noise variance are taken as they stood in each policy, without the
uncertainty of their own estimation, and so are the probabilities within a participant's own rows. Each policy
has the prior, and each decision the allocation, of its own version of the protocol. The inference is
`analysis.wcls` without its small-sample correction."""

import pickle
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats, Ints
from algorithm.trial.designs.design import Design
from algorithm.trial.posterior import factor
from algorithm.trial.protocol import Protocol
from analysis import policies, slots
from analysis.export_reader import BadExport, Export
from analysis.learning_rows import OwnRows, own_rows
from analysis.long_table import Trial, design_matrix, independent, load
from analysis.results import controls_matrix

FUNCTIONS = Path(__file__).parent / "bundle"
SETTINGS = {
    "action_prob_func_args_beta_index": 0,
    "alg_update_func_type": "estimating",
    "alg_update_func_args_beta_index": 0,
    "alg_update_func_args_action_prob_index": 3,
    "alg_update_func_args_action_prob_times_index": 4,
    "inference_func_type": "loss",
    "inference_func_args_theta_index": 0,
    "active_col_name": "in_study",
    "action_col_name": "action",
    "policy_num_col_name": "policy",
    "calendar_t_col_name": "slot",
    "subject_id_col_name": "participant",
    "action_prob_col_name": "act_prob",
    "reward_col_name": "outcome",
}
"""What lifejacket is told besides the files."""
NOTHING: tuple[Any, ...] = ()
Arguments = dict[int, dict[int, tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The parts of a bundle: the columns of the table of decisions, the arguments of the probability by slot
    and participant, those of the update by policy number and participant, and the names of the control and
    moderator columns. `constant` decisions enter with a probability that no policy's beta explains."""

    columns: dict[str, Any]
    probability_arguments: Arguments
    update_arguments: Arguments
    controls: list[str]
    moderators: list[str]
    constant: int


def bundle(export: Export, moderators: list[str]) -> Bundle:
    """The bundle of an export, for the effect of a message moderated by `moderators`.

    Raises BadExport where nothing was learnt, so that ordinary standard errors hold, and where a version of
    the protocol began anew, so that no equation leads from one policy to the next."""
    trial, versions = load(export), policies.versions(export)
    decided = np.flatnonzero(trial.column("decided") == 1)
    used = slots.arrange(
        trial.participant[decided],
        trial.column("policy_id")[decided],
        trial.randomised[decided],
        [trial.table.list("fallback_level")[row] for row in decided],
    )
    if used.number.max() < 1 or any(one.probability is not None for one in versions.values()):
        raise BadExport("no policy that was learnt has decided yet: the standard errors of wcls hold")
    maker = _Maker(export, trial, versions, decided, used)
    columns, controls = maker.columns(moderators)
    names = ["moderator_0", *(f"moderator_{place + 1}" for place in range(len(moderators)))]
    return Bundle(
        columns,
        maker.probability_arguments(),
        maker.update_arguments(),
        controls,
        names,
        int((~used.decided).sum()),
    )


class _Maker:
    """Everything that the parts of one bundle share."""

    def __init__(
        self, export: Export, trial: Trial, versions: dict[int, Protocol], decided: Ints, used: slots.Slots
    ) -> None:
        self.trial, self.versions, self.decided, self.used = trial, versions, decided, used
        self.design = _one_design(versions)
        self.people = np.unique(trial.participant[decided])
        self.policies = {int(one): policies.policy(export, int(one)) for one in np.unique(used.policy)}
        _no_second_prior(self.policies, int(used.policy[0]))
        self.rows = own_rows(export, trial, self.design)
        self.place = {
            (int(trial.participant[row]), int(slot)): int(place)
            for place, (row, slot) in enumerate(zip(decided, used.slot, strict=True))
        }
        keys = zip(trial.participant[decided], trial.column("decision_index")[decided], strict=True)
        self.slot_of = {(int(i), int(t)): int(s) for (i, t), s in zip(keys, used.slot, strict=True)}
        spans = ((int(one), used.slot[trial.participant[decided] == one]) for one in self.people)
        self.span = {one: (int(found.min()), int(found.max())) for one, found in spans}

    def columns(self, moderators: list[str]) -> tuple[dict[str, Any], list[str]]:
        """The table of decisions, one row for each slot and participant, and the control columns."""
        rows = self.trial.known
        f = design_matrix(self.trial, moderators)
        g = controls_matrix(self.trial, moderators, None)
        g = g[:, independent(g[rows])]
        numerator = float(self.trial.column("act_prob")[rows].mean())
        filled = {"control": np.where(rows[:, None], g, 0), "moderator": np.where(rows[:, None], f, 0)}
        grid = sorted(
            ((slot, int(one)) for slot in range(len(self.used.policy)) for one in self.people),
            key=lambda key: (key[0], not self._active(key[1], key[0]), key[1]),
        )
        table = [self._row(slot, one, numerator, filled) for slot, one in grid]
        return {name: np.array([row[name] for row in table]) for name in table[0]}, [
            f"control_{place}" for place in range(g.shape[1])
        ]

    def _active(self, one: int, slot: int) -> bool:
        first, last = self.span[one]
        return first <= slot <= last

    def _row(
        self, slot: int, one: int, numerator: float, filled: dict[str, Floats]
    ) -> dict[str, float | int]:
        place = self.place.get((one, slot))
        row = -1 if place is None else int(self.decided[place])
        counted = row >= 0 and bool(self.trial.known[row])
        found: dict[str, float | int] = {
            "slot": slot,
            "participant": one,
            "in_study": int(self._active(one, slot)),
            "policy": int(self.used.number[slot]),
            "action": int(self.trial.column("action")[row]) if row >= 0 else 0,
            "act_prob": float(self.trial.column("act_prob")[row]) if row >= 0 else 0.0,
            "outcome": float(self.trial.column("outcome")[row]) if counted else 0.0,
            "counted": int(counted),
            "numerator": numerator,
        }
        for kind, values in filled.items():
            line = values[row] if row >= 0 else np.zeros(values.shape[1])
            found |= {f"{kind}_{place}": float(value) for place, value in enumerate(line)}
        return found

    def probability_arguments(self) -> Arguments:
        """By slot and participant; empty where the participant is not in the study."""
        return {
            slot: {
                int(one): self._probability(slot, int(one)) if self._active(int(one), slot) else NOTHING
                for one in self.people
            }
            for slot in range(len(self.used.policy))
        }

    def _probability(self, slot: int, one: int) -> tuple[Any, ...]:
        found = self.policies[int(self.used.policy[slot])]
        place = self.place.get((one, slot))
        constants = (factor(found.sigma_u), np.array([found.noise_variance]))
        size = np.array([float(len(self.people))])
        p, q = len(found.mean), len(found.advantage_mean)
        if place is None or not self.used.decided[place]:
            used = 0.0 if place is None else float(self.trial.column("act_prob")[self.decided[place]])
            curve = np.array([used, used, 1.0, 1.0])
            return self._beta(found), np.zeros(q), np.zeros((p, p)), np.zeros(p), *constants, curve, size
        row = int(self.decided[place])
        allocation = self.versions[int(self.trial.column("protocol_id")[row])].allocation
        curve = np.array([allocation.lower, allocation.upper, allocation.B, allocation.C])
        member = one in found.participants and self.trial.table.list("fallback_level")[row] == "F0"
        A, b = self.rows.sums(one, found.row_seq) if member else (np.zeros((p, p)), np.zeros(p))
        features = self.design.features(self.trial.states()[row])
        return self._beta(found), features, A, b, *constants, curve, size

    def _beta(self, found: policies.Policy) -> Floats:
        precision = np.linalg.inv(found.covariance)
        upper = np.triu_indices(len(found.mean))
        return np.concatenate([found.mean, ((precision + precision.T) / 2)[upper] / len(self.people)])

    def update_arguments(self) -> Arguments:
        """By policy number, from 1, and participant; empty for who has no row in the fit."""
        used = dict(zip(self.used.number.tolist(), self.used.policy.tolist(), strict=True))
        return {
            number: self._updates(self.policies[policy])
            for number, policy in sorted(used.items())
            if number > 0
        }

    def _updates(self, found: policies.Policy) -> dict[int, tuple[Any, ...]]:
        fitted = {
            one: self.rows.of(one, found.row_seq) for one in self.people.tolist() if one in found.participants
        }
        fitted = {one: own for one, own in fitted.items() if len(own.index)}
        return {
            one: self._update(found, one, fitted[one], len(fitted)) if one in fitted else NOTHING
            for one in self.people.tolist()
        }

    def _update(self, found: policies.Policy, one: int, own: OwnRows, fitted: int) -> tuple[Any, ...]:
        times = np.array([self.slot_of[one, index] for index in own.index.tolist()])
        rows = (own.action[:, None], own.act_prob[:, None], times[:, None], own.outcome[:, None])
        protocol = self.versions[found.protocol_id]
        prior = (np.array(protocol.prior.mean), protocol.prior.sd**-2.0)
        scalars = np.array([found.noise_variance, fitted, len(self.people)], dtype=np.float64)
        return self._beta(found), own.features, *rows, *prior, factor(found.sigma_u), scalars


def _one_design(versions: dict[int, Protocol]) -> Design:
    designs = {one.design.feature_version: one.design for one in versions.values()}
    if len(designs) > 1:
        told = ", ".join(designs)
        raise BadExport(f"the protocol changed its features ({told}): no such bundle exists")
    return designs.popitem()[1]


def _no_second_prior(found: dict[int, policies.Policy], first: int) -> None:
    """Refuse a prior that came after policies: no update leads to what was learnt from nothing."""
    again = [number for number, one in found.items() if number != first and not one.participants]
    if again:
        raise BadExport(f"policy {again[0]} is a prior that came during the trial: no such bundle exists")


def frame(found: Bundle) -> Any:
    """The table of decisions as a pandas data frame. Raises BadExport where pandas is not installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise BadExport("lifejacket takes pandas data frames: install pandas") from error
    return pandas.DataFrame(found.columns)


def write(found: Bundle, folder: Path) -> list[str]:
    """Write the bundle into `folder`: pickles, functions, and `analyze.sh` that runs lifejacket on them.
    Returns lines that say what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "analysis_df": frame(found),
        "action_prob_func_args": found.probability_arguments,
        "alg_update_func_args": found.update_arguments,
    }
    for name, part in parts.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(part))
    for name, source in functions(found).items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "analyze.sh").write_text(_command(list(parts)), encoding="utf-8")
    active = int(found.columns["in_study"].sum())
    return [
        f"bundle in {folder}: run analyze.sh there",
        f"{int(found.columns['counted'].sum())} decisions count, in {active} slots of participants",
        f"{len(found.update_arguments)} policy updates",
        f"{found.constant} decisions enter with a constant probability",
    ]


def functions(found: Bundle) -> dict[str, str]:
    """The four functions by name, as source. The last two name the columns that they take."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in FUNCTIONS.glob("[!_]*.py")}
    fixed = ["outcome", "action", "act_prob", "counted", "numerator"]
    names = ", ".join(["theta", *fixed, *found.controls, *found.moderators])
    given = ", ".join(["theta", *fixed])
    stacks = ", ".join(f"jnp.hstack([{', '.join(part)}])" for part in (found.controls, found.moderators))
    sources["effect_loss"] += f"\n\ndef effect_loss({names}):\n    return weighted_loss({given}, {stacks})\n"
    lists = f"{found.controls!r}, {found.moderators!r}"
    sources["effect"] += f"\n\ndef effect(df):\n    return weighted_estimate(df, {lists})\n"
    return sources


def _command(pickles: list[str]) -> str:
    functions = {
        "action_prob_func": "message_probability",
        "alg_update_func": "policy_update",
        "inference_func": "effect_loss",
        "theta_calculation_func": "effect",
    }
    options = [f"--{name}_pickle={name}.pkl" for name in pickles]
    options += [f"--{role}_filename={name}.py" for role, name in functions.items()]
    options += [f"--{name}={shlex.quote(str(value))}" for name, value in SETTINGS.items()]
    return " \\\n  ".join(['#!/bin/sh\ncd "$(dirname "$0")" && exec lifejacket analyze', *options]) + "\n"
