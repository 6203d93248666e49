"""Every decision again: reward and state from the answers, the rung and its probability, the draw."""

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, islice, product
from typing import Any

import numpy as np

from algorithm.core.arrays import Floats
from algorithm.trial import draw, ladder
from algorithm.trial.designs.design import Point, State
from algorithm.trial.envelope import Sent, forbids, local_time
from algorithm.trial.ladder import Block, Choice, Level, Rung
from algorithm.trial.protocol import Protocol
from replay.findings import Report
from replay.format.long_table import Row
from replay.known_when import CLOCKS, possible
from replay.tables import BLOCK, POPULATION, Source, Study, population

DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError)
"""The errors of the computation of a state from stored points that are not as they were written."""
MOST = 4096
"""The number of states, among those that the answers known then may have given, that are tried at most."""
TOLERANCE = 1e-9
ADVANTAGE = ("advantage_mean", "advantage_variance")


def check(study: Study, report: Report, key: bytes | None) -> None:
    """Replay every decision. Without the study's key, seeds are not checked and taken as they are."""
    for decision in study.checked:
        protocol = study.protocol(decision)
        if protocol is None:
            continue  # `integrity` reports it
        _reward(study, decision, protocol, report)
        where, seed = name(decision), decision["seed"]
        if key is not None:
            keyed_seed = draw.seed(key, decision["participant_id"], decision["decision_index"])
            report.compare("seed", where, seed, keyed_seed)
        action = draw.action(seed, decision["act_prob"]) if decision["available"] else 0
        report.compare("action", where, decision["action"], action)
        _availability(study, decision, protocol, report)
        if decision["available"] or decision["state"] is not None:
            states = islice(_states(study, decision, protocol), MOST)
            likeliest = next(states)
            stored = None if decision["state"] is None else tuple(decision["state"])
            # the other states are only computed where the likeliest does not agree
            if stored == likeliest or stored in states:
                report.held["state"] += 1
            else:
                recomputed = None if likeliest is None else list(likeliest)
                report.compare("state", where, decision["state"], recomputed)
        if decision["available"]:
            _probability(study, decision, protocol, report)


def name(decision: Row) -> str:
    """Return the name of a decision in the report."""
    return (
        f"rid {decision['id']} (participant {decision['participant_id']}, point {decision['decision_index']})"
    )


def _reward(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    stored = decision["reward"]
    if stored is not None and not np.isfinite(stored):
        # a fault and no divergence, if a later decision that looks back on this one found no state
        person, index = decision["participant_id"], decision["decision_index"]
        later = (study.points.get((person, index + lag)) for lag in range(1, protocol.design.history + 1))
        if any(point is not None and point["fallback_level"] == "F4" for point in later):
            report.faults.append(
                f"{name(decision)}: its reward is {stored}; a decision fell back to F4 from it"
            )
            return
    try:
        reward = protocol.design.reward(decision["answers"], protocol.state)
    except DAMAGE:
        reward = None
    report.compare("reward", name(decision), stored, reward)


def _availability(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    """Check that the safety envelope let the point be randomised, or that nothing of a draw is stored."""
    where = name(decision)
    earlier_messages = [
        Sent(
            earlier["act_gen_timestamp"],
            local_time(earlier["decision_time"], earlier["utc_offset_minutes"]).date(),
        )
        for earlier in study.decisions_of.get(decision["participant_id"], ())
        if earlier["decision_index"] < decision["decision_index"] and earlier["action"] == 1
    ]
    rule = forbids(
        protocol.envelope,
        decision["answers"].get("available") is not False,  # an app that says nothing is available
        decision["act_gen_timestamp"],
        local_time(decision["decision_time"], decision["utc_offset_minutes"]),
        earlier_messages,
    )
    stored = [decision["available"], decision["unavailable_rule"]]
    report.compare("availability", where, stored, [rule is None, rule])
    if decision["available"]:
        return
    stored_rung = [decision[column] for column in ("fallback_level", "policy_id", "act_prob")]
    nothing = ladder.UNAVAILABLE
    no_rung = [nothing.level, nothing.policy_id, nothing.probability]
    report.compare("probability", where, stored_rung, no_rung)
    stored_advantage = [decision[column] for column in ADVANTAGE]
    report.compare(
        "probability", f"{where}, the advantage", stored_advantage, [nothing.mean, nothing.variance]
    )


def _states(study: Study, decision: Row, protocol: Protocol) -> Iterator[State | None]:
    """Yield every state that the answers which may have been known then give, None where they give none."""
    index, design = decision["decision_index"], protocol.design
    indices = range(index - design.history, index)
    points = [study.points.get((decision["participant_id"], earlier_index)) for earlier_index in indices]
    version = design.feature_version
    earlier = [point for point in points if point is not None and point["feature_version"] == version]
    possibilities = [possible(study, point, decision["act_gen_timestamp"]) for point in earlier]
    for known_points in product(*possibilities):
        if not all(known.reward is None or np.isfinite(known.reward) for known in known_points):
            yield None  # the JSON that serving reads them from has no such numbers
            continue
        try:
            point = Point(
                index,
                decision["evening"],
                decision["answers"],
                design.reward(decision["answers"], protocol.state),
                None,
            )
            history = [
                Point(row["decision_index"], row["evening"], known.answers, known.reward, row["action"])
                for row, known in zip(earlier, known_points, strict=True)
            ]
            state = design.state(point, history, protocol.state)
            yield state if np.isfinite(design.features(state)).all() else None
        except DAMAGE:
            yield None


def _probability(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    where, level = name(decision), decision["fallback_level"]
    if decision["state"] is None:
        stored = (level, decision["policy_id"], decision["act_prob"])
        blind = ladder.UNKNOWN_STATE
        report.compare("fallback", where, stored, (blind.level, blind.policy_id, blind.probability))
        return
    try:
        features = protocol.design.features(decision["state"])
    except ValueError as error:
        report.diverge("state", where, decision["state"], str(error))
        return
    choice = _choice(study, decision, protocol, features)
    rung = (choice.level, choice.policy_id)
    if not report.compare("fallback", where, (level, decision["policy_id"]), rung):
        return
    numbers = zip((*ADVANTAGE, "act_prob"), (choice.mean, choice.variance, choice.probability), strict=True)
    for column, recomputed in numbers:
        stored_number = decision[column]
        if stored_number is None or recomputed is None:
            report.compare("probability", f"{where}, {column}", stored_number, recomputed)
        else:
            report.close("probability", f"{where}, {column}", stored_number, recomputed, TOLERANCE)


def _choice(study: Study, decision: Row, protocol: Protocol, features: Floats) -> Choice:
    """Return the choice under the policy that served then. Several policies may have served, and a block that
    is unusable now may have been sound then: of all these choices it is the one that fits what is stored."""
    stored_rung, person = (decision["fallback_level"], decision["policy_id"]), decision["participant_id"]
    choices = []
    for active in _may_have_served(study, decision):
        numbers = (active, study.below(active, decision["feature_version"]) or 0)
        places = [((BLOCK, number, person), (POPULATION, number, 0)) for number in numbers]
        unusable = [source for source in chain(*places) if source in study.recomputed]
        subsets = chain(*(combinations(unusable, count) for count in range(len(unusable) + 1)))
        for sound in map(set, subsets):
            tried: list[Source] = []
            choice = ladder.choose(features, _rungs(study, active, decision, sound, tried), protocol)
            choices.append(choice)
            same_rung = (choice.level, choice.policy_id) == stored_rung
            if same_rung and abs(choice.probability - decision["act_prob"]) <= TOLERANCE:
                # the last block tried decided, unless the prior did: the decision fell back from the others
                study.fallen_from.update(tried if choice.level == "F3" else tried[:-1])
                return choice
    # none fits: the divergence is reported against the choice that comes closest
    on_same_rung = [choice for choice in choices if (choice.level, choice.policy_id) == stored_rung]
    return (on_same_rung or choices or [ladder.choose(features, (), protocol)])[0]


def _may_have_served(study: Study, decision: Row) -> Iterable[int]:
    """Return the policies that may have been active at a decision. F0 and F2 name the active policy. Under F1
    it is the next one above the named policy; under F3 it may have been any, the latest first. A policy whose
    row is gone counts as one above the highest."""
    level, policy_id = decision["fallback_level"], decision["policy_id"]
    gone = max(study.policies, default=-1) + 1
    numbers: Iterable[Any] = [] if policy_id is None else [policy_id]
    if level == "F1":
        features = decision["feature_version"]
        numbers = [n for n in (*study.policies, gone) if study.below(n, features) == policy_id]
    elif level == "F3":
        numbers = [*sorted(study.policies, reverse=True), gone]
    # no policy served before it was made
    latest = decision["act_gen_timestamp"] + CLOCKS
    absent = {"created_at": latest}
    return [number for number in numbers if study.policies.get(number, absent)["created_at"] <= latest]


def _rungs(
    study: Study, active: int, decision: Row, sound: set[Source], tried: list[Source]
) -> Iterator[Rung]:
    """Yield the rungs F0, F2 and F1 in the order in which serving tries them. The blocks in `sound` are taken
    as they were computed again; `tried` gathers the sources of all blocks that were looked at."""

    def rung(level: Level, source: Source, stored: Block | None) -> Iterator[Rung]:
        block = study.recomputed[source] if source in sound else stored
        tried.append(source)
        if block is not None:
            yield Rung(level, source[1], block)

    person, features = decision["participant_id"], decision["feature_version"]
    policy, number = study.policies.get(active), study.below(active, features)
    if policy is not None and study.has_features(active, features):
        member = person in policy["participants"]
        if member:
            yield from rung("F0", (BLOCK, active, person), study.own_block(active, person))
        yield from rung("F2" if member else "F0", (POPULATION, active, 0), population(policy))
    if number is not None:
        if (number, person) in study.blocks or (BLOCK, number, person) in sound:
            yield from rung("F1", (BLOCK, number, person), study.own_block(number, person))
        yield from rung("F1", (POPULATION, number, 0), population(study.policies[number]))
