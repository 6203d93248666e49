"""A bundle of files for the package lifejacket (PyPI, version 1.3), which computes standard errors that hold
although the policies were learnt from all participants together (Zhang, Janson, Murphy, arXiv 2202.07098).

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
"""The options of lifejacket besides the files."""
ROLES = {
    "action_prob_func": "message_probability",
    "alg_update_func": "policy_update",
    "inference_func": "effect_loss",
    "theta_calculation_func": "effect",
}
"""The functions of the bundle, by the part that they play in lifejacket."""
NOTHING: tuple[Any, ...] = ()
"""The arguments of a participant who is not in the study or not in the fit."""
Arguments = dict[int, dict[int, tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The parts of a bundle: the columns of the table of decisions, the arguments of the probability by slot
    and participant, the arguments of the update by policy number and participant, and the names of the
    control and moderator columns. `constant` is the number of decisions that enter with a probability which
    no policy's beta explains."""

    columns: dict[str, Any]
    probability_arguments: Arguments
    update_arguments: Arguments
    controls: list[str]
    moderators: list[str]
    constant: int


def bundle(export: Export, moderators: list[str]) -> Bundle:
    """Make the bundle of an export, for the effect of a message moderated by `moderators`.

    Raises BadExport where nothing was learnt, so that ordinary standard errors hold, and where a version of
    the protocol began anew, so that no equation leads from one policy to the next."""
    trial, versions = load(export), policies.versions(export)
    decided = np.flatnonzero(trial.column("decided") == 1)
    in_slots = slots.arrange(
        trial.participant[decided],
        trial.column("policy_id")[decided],
        trial.randomised[decided],
        [trial.table.list("fallback_level")[row] for row in decided],
    )
    constant = any(protocol.probability is not None for protocol in versions.values())
    if in_slots.number.max() < 1 or constant:
        raise BadExport("no policy that was learnt has decided yet: the standard errors of wcls hold")
    maker = _Maker(export, trial, versions, decided, in_slots)
    columns, controls = maker.columns(moderators)
    names = [f"moderator_{place}" for place in range(len(moderators) + 1)]
    return Bundle(
        columns,
        maker.probability_arguments(),
        maker.update_arguments(),
        controls,
        names,
        int((~in_slots.decided).sum()),
    )


class _Maker:
    """The tables and indices that the parts of a bundle share.

    `decided` are the rows of the long table with a decision, sorted by participant and index; a place is a
    position in it. `place` is the place of the decision of a (participant, slot), `slot_of` the slot of a
    (participant, decision index), `span` the first and the last slot of a participant."""

    def __init__(
        self,
        export: Export,
        trial: Trial,
        versions: dict[int, Protocol],
        decided: Ints,
        in_slots: slots.Slots,
    ) -> None:
        self.trial, self.versions, self.decided, self.slots = trial, versions, decided, in_slots
        designs = {protocol.design.feature_version: protocol.design for protocol in versions.values()}
        if len(designs) > 1:
            names = ", ".join(designs)
            raise BadExport(f"the protocol changed its features ({names}): no such bundle exists")
        self.design = designs.popitem()[1]
        numbers = np.unique(in_slots.policy).tolist()
        self.policies = {number: policies.policy(export, number) for number in numbers}
        # no update leads from a policy to a prior that came after it
        for number in numbers:
            if number != int(in_slots.policy[0]) and not self.policies[number].participants:
                problem = f"policy {number} is a prior that came during the trial"
                raise BadExport(f"{problem}: no such bundle exists")
        self.rows = own_rows(export, trial, self.design)
        participant, slot = trial.participant[decided], in_slots.slot
        index = trial.column("decision_index")[decided].astype(np.int64)
        keys = list(zip(participant.tolist(), slot.tolist(), index.tolist(), strict=True))
        self.people = np.unique(participant)
        self.place = {(i, s): place for place, (i, s, _) in enumerate(keys)}
        self.slot_of = {(i, t): s for i, s, t in keys}
        own_slots = {person: slot[participant == person] for person in self.people.tolist()}
        self.span = {person: (int(own.min()), int(own.max())) for person, own in own_slots.items()}

    def columns(self, moderators: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the table of decisions, one row for each slot and participant, and the controls' names."""
        rows = self.trial.complete
        f = design_matrix(self.trial, moderators)
        g = controls_matrix(self.trial, moderators, None)
        g = g[:, independent(g[rows])]
        numerator = float(self.trial.column("act_prob")[rows].mean())
        variables = {"control": np.where(rows[:, None], g, 0), "moderator": np.where(rows[:, None], f, 0)}
        # lifejacket's checks look up row 0 among the rows in the study, so those come first in each slot
        grid = sorted(
            ((slot, person) for slot in range(len(self.slots.policy)) for person in self.people.tolist()),
            key=lambda key: (key[0], not self._active(key[1], key[0]), key[1]),
        )
        table = [self._row(slot, person, numerator, variables) for slot, person in grid]
        names = [f"control_{place}" for place in range(g.shape[1])]
        return {name: np.array([row[name] for row in table]) for name in table[0]}, names

    def _active(self, person: int, slot: int) -> bool:
        first, last = self.span[person]
        return first <= slot <= last

    def _row(
        self, slot: int, person: int, numerator: float, variables: dict[str, Floats]
    ) -> dict[str, float | int]:
        place = self.place.get((person, slot))
        row = -1 if place is None else int(self.decided[place])
        counted = row >= 0 and bool(self.trial.complete[row])
        cells: dict[str, float | int] = {
            "slot": slot,
            "participant": person,
            "in_study": int(self._active(person, slot)),
            "policy": int(self.slots.number[slot]),
            "action": int(self.trial.column("action")[row]) if row >= 0 else 0,
            "act_prob": float(self.trial.column("act_prob")[row]) if row >= 0 else 0.0,
            "outcome": float(self.trial.column("outcome")[row]) if counted else 0.0,
            "counted": int(counted),
            "numerator": numerator,
        }
        for kind, values in variables.items():
            line = values[row] if row >= 0 else np.zeros(values.shape[1])
            cells |= {f"{kind}_{place}": float(value) for place, value in enumerate(line)}
        return cells

    def probability_arguments(self) -> Arguments:
        """Return the arguments of `message_probability` by slot and participant. They are empty where the
        participant is not in the study."""
        return {
            slot: {
                person: self._probability(slot, person) if self._active(person, slot) else NOTHING
                for person in self.people.tolist()
            }
            for slot in range(len(self.slots.policy))
        }

    def _probability(self, slot: int, person: int) -> tuple[Any, ...]:
        policy = self.policies[int(self.slots.policy[slot])]
        place = self.place.get((person, slot))
        constants = (factor(policy.sigma_u), np.array([policy.noise_variance]))
        size = np.array([float(len(self.people))])
        p, q = len(policy.mean), len(policy.advantage_mean)
        if place is None or not self.slots.decided[place]:
            # bounds that are equal make the probability a constant, whatever beta is
            act_prob = 0.0 if place is None else float(self.trial.column("act_prob")[self.decided[place]])
            curve = np.array([act_prob, act_prob, 1.0, 1.0])
            return self._beta(policy), np.zeros(q), np.zeros((p, p)), np.zeros(p), *constants, curve, size
        row = int(self.decided[place])
        allocation = self.versions[int(self.trial.column("protocol_id")[row])].allocation
        curve = np.array([allocation.lower, allocation.upper, allocation.B, allocation.C])
        member = person in policy.participants and self.trial.table.list("fallback_level")[row] == "F0"
        A, b = self.rows.sums(person, policy.row_seq) if member else (np.zeros((p, p)), np.zeros(p))
        features = self.design.features(self.trial.states()[row])
        return self._beta(policy), features, A, b, *constants, curve, size

    def _beta(self, policy: policies.Policy) -> Floats:
        precision = np.linalg.inv(policy.covariance)
        upper = np.triu_indices(len(policy.mean))
        return np.concatenate([policy.mean, ((precision + precision.T) / 2)[upper] / len(self.people)])

    def update_arguments(self) -> Arguments:
        """Return the arguments of `policy_update` by policy number, from 1, and participant. They are empty
        for a participant without a row in the fit."""
        pairs = sorted(set(zip(self.slots.number.tolist(), self.slots.policy.tolist(), strict=True)))
        return {number: self._updates(self.policies[policy_id]) for number, policy_id in pairs if number > 0}

    def _updates(self, policy: policies.Policy) -> dict[int, tuple[Any, ...]]:
        people = self.people.tolist()
        members = [person for person in people if person in policy.participants]
        rows = {person: self.rows.of(person, policy.row_seq) for person in members}
        fitted = {person: own for person, own in rows.items() if len(own.index)}
        return {
            person: self._update(policy, person, fitted[person], len(fitted)) if person in fitted else NOTHING
            for person in people
        }

    def _update(self, policy: policies.Policy, person: int, own: OwnRows, fitted: int) -> tuple[Any, ...]:
        times = np.array([self.slot_of[person, index] for index in own.index.tolist()])
        rows = (own.action[:, None], own.act_prob[:, None], times[:, None], own.outcome[:, None])
        protocol = self.versions[policy.protocol_id]
        prior = (np.array(protocol.prior.mean), protocol.prior.sd**-2.0)
        scalars = np.array([policy.noise_variance, fitted, len(self.people)], dtype=np.float64)
        return self._beta(policy), own.features, *rows, *prior, factor(policy.sigma_u), scalars


def frame(bundle: Bundle) -> Any:
    """Return the table of decisions as a pandas data frame. Raises BadExport where pandas is not
    installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise BadExport("lifejacket takes pandas data frames: install pandas") from error
    return pandas.DataFrame(bundle.columns)


def write(bundle: Bundle, folder: Path) -> list[str]:
    """Write the bundle into `folder`: pickles, functions, and `analyze.sh`, which runs lifejacket on them.
    Return lines that describe its contents."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "analysis_df": frame(bundle),
        "action_prob_func_args": bundle.probability_arguments,
        "alg_update_func_args": bundle.update_arguments,
    }
    for name, part in parts.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(part))
    for name, source in functions(bundle).items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    options = [f"--{name}_pickle={name}.pkl" for name in parts]
    options += [f"--{role}_filename={name}.py" for role, name in ROLES.items()]
    options += [f"--{name}={shlex.quote(str(value))}" for name, value in SETTINGS.items()]
    command = 'cd "$(dirname "$0")" && exec lifejacket analyze'
    script = "#!/bin/sh\n" + " \\\n  ".join([command, *options]) + "\n"
    (folder / "analyze.sh").write_text(script, encoding="utf-8")
    active = int(bundle.columns["in_study"].sum())
    return [
        f"bundle in {folder}: run analyze.sh there",
        f"{int(bundle.columns['counted'].sum())} decisions count, in {active} slots of participants",
        f"{len(bundle.update_arguments)} policy updates",
        f"{bundle.constant} decisions enter with a constant probability",
    ]


def functions(bundle: Bundle) -> dict[str, str]:
    """Return the four functions by name, as source. The effect's two functions name the columns that they
    take."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in FUNCTIONS.glob("[!_]*.py")}
    fixed = ["outcome", "action", "act_prob", "counted", "numerator"]
    parameters = ", ".join(["theta", *fixed, *bundle.controls, *bundle.moderators])
    arguments = ", ".join(["theta", *fixed])
    # lifejacket passes columns one by one, and differentiates a function of arrays
    groups = (bundle.controls, bundle.moderators)
    stacks = ", ".join(f"jnp.hstack([{', '.join(names)}])" for names in groups)
    call = f"weighted_loss({arguments}, {stacks})"
    sources["effect_loss"] += f"\n\ndef effect_loss({parameters}):\n    return {call}\n"
    lists = f"{bundle.controls!r}, {bundle.moderators!r}"
    sources["effect"] += f"\n\ndef effect(df):\n    return weighted_estimate(df, {lists})\n"
    return sources
