"""Every decision again: reward and state from the answers, the rung and its probability, the draw."""

from collections.abc import Iterable, Iterator
from itertools import combinations, islice, product
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
from replay.known_when import CLOCKS, Known, possible
from replay.tables import BLOCK, POPULATION, Source, Study, population

DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError)
"""What the computation of a state meets in stored points that are not as they were written."""
MOST = 4096  # of states that what was known then may have given
TOLERANCE = 1e-9


def check(study: Study, report: Report, key: bytes | None) -> None:
    """Replay every decision; without the key, seeds are taken as they are."""
    for decision in study.checked:
        protocol = study.protocol(decision)
        if protocol is None:
            continue  # a divergence of the protocols, told there
        _reward(study, decision, protocol, report)
        _draw(decision, report, key)
        _available(study, decision, protocol, report)
        if decision["available"] or decision["state"] is not None:
            _state(study, decision, protocol, report)
        if decision["available"]:
            _probability(study, decision, protocol, report)


def name(decision: Row) -> str:
    """How the report names a decision."""
    return (
        f"rid {decision['id']} (participant {decision['participant_id']}, point {decision['decision_index']})"
    )


def _reward(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    stored = decision["reward"]
    if stored is not None and not np.isfinite(stored) and _blinded(study, decision, protocol):
        report.faults.append(f"{name(decision)}: its reward is {stored}; a decision fell back to F4 from it")
        return
    try:
        found = protocol.design.reward(decision["answers"], protocol.state)
    except DAMAGE:
        found = None
    report.compare("reward", name(decision), stored, found)


def _blinded(study: Study, decision: Row, protocol: Protocol) -> bool:
    """Whether a later decision found no state, with this one among the points that it looks back on."""
    person, index = decision["participant_id"], decision["decision_index"]
    later = (study.points.get((person, index + lag)) for lag in range(1, protocol.design.history + 1))
    return any(point is not None and point["fallback_level"] == "F4" for point in later)


def _draw(decision: Row, report: Report, key: bytes | None) -> None:
    where = name(decision)
    person, index = decision["participant_id"], decision["decision_index"]
    if key is not None:
        report.compare("seed", where, decision["seed"], draw.seed(key, person, index))
    available = decision["available"]
    found = draw.action(decision["seed"], decision["act_prob"]) if available else 0
    report.compare("action", where, decision["action"], found)


def _available(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    """Whether the safety envelope let the point be randomised, and nothing of a draw where it did not."""
    where = name(decision)
    found = forbids(
        protocol.envelope,
        decision["answers"].get("available") is not False,
        decision["act_gen_timestamp"],
        local_time(decision["decision_time"], decision["utc_offset_minutes"]),
        _messages(study, decision),
    )
    stored = [decision["available"], decision["unavailable_rule"]]
    report.compare("availability", where, stored, [found is None, found])
    if decision["available"]:
        return
    told = [decision[one] for one in ("fallback_level", "policy_id", "act_prob")]
    nothing = ladder.UNAVAILABLE
    report.compare("probability", where, told, [nothing.level, nothing.policy_id, nothing.probability])
    report.compare(
        "probability",
        f"{where}, the advantage",
        [decision["advantage_mean"], decision["advantage_variance"]],
        [nothing.mean, nothing.variance],
    )


def _messages(study: Study, decision: Row) -> Iterator[Sent]:
    """The messages to the participant before a decision."""
    person, index = decision["participant_id"], decision["decision_index"]
    for earlier in study.theirs.get(person, ()):
        if earlier["decision_index"] < index and earlier["action"] == 1:
            day = local_time(earlier["decision_time"], earlier["utc_offset_minutes"]).date()
            yield Sent(earlier["act_gen_timestamp"], day)


def _state(study: Study, decision: Row, protocol: Protocol, report: Report) -> None:
    found = islice(_states(study, decision, protocol), MOST)
    likeliest = next(found)
    stored = None if decision["state"] is None else tuple(decision["state"])
    if stored == likeliest or stored in found:
        report.held["state"] += 1
    else:
        first = None if likeliest is None else list(likeliest)
        report.compare("state", name(decision), decision["state"], first)


def _states(study: Study, decision: Row, protocol: Protocol) -> Iterator[State | None]:
    """Every state that what may have been known gives; None where it gives none."""
    index, design = decision["decision_index"], protocol.design
    looked_at = range(index - design.history, index)
    points = [study.points.get((decision["participant_id"], one)) for one in looked_at]
    version = design.feature_version
    earlier = [point for point in points if point is not None and point["feature_version"] == version]
    known = [possible(study, point, decision["act_gen_timestamp"]) for point in earlier]
    for told in product(*known):
        if not all(one.reward is None or np.isfinite(one.reward) for one in told):
            yield None  # the JSON that serving reads them from has no such numbers
            continue
        try:
            asked = Point(
                index,
                decision["evening"],
                decision["answers"],
                design.reward(decision["answers"], protocol.state),
                None,
            )
            pairs = zip(earlier, told, strict=True)
            state = design.state(asked, [_point(row, one) for row, one in pairs], protocol.state)
            yield state if np.isfinite(design.features(state)).all() else None
        except DAMAGE:
            yield None


def _point(row: Row, known: Known) -> Point:
    return Point(row["decision_index"], row["evening"], known.answers, known.reward, row["action"])


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
    choice = _chosen(study, decision, protocol, features)
    found = (choice.level, choice.policy_id)
    if not report.compare("fallback", where, (level, decision["policy_id"]), found):
        return
    stored_numbers = [decision[name] for name in ("advantage_mean", "advantage_variance", "act_prob")]
    for column, one, other in zip(
        ("advantage_mean", "advantage_variance", "act_prob"),
        stored_numbers,
        (choice.mean, choice.variance, choice.probability),
        strict=True,
    ):
        if one is None or other is None:
            report.compare("probability", f"{where}, {column}", one, other)
        else:
            report.close("probability", f"{where}, {column}", one, other, TOLERANCE)


def _chosen(study: Study, decision: Row, protocol: Protocol, features: Floats) -> Choice:
    """The choice under the policy that served then. Where several may have served, and where a block that is
    unusable now may have been sound then, it is the one that fits."""
    stored = (decision["fallback_level"], decision["policy_id"], decision["act_prob"])
    found = []
    for active in _may_have_served(study, decision):
        for sound in _subsets(study, active, decision):
            tried: list[Source] = []
            rungs = _rungs(study, active, decision, sound, tried)
            choice = ladder.choose(features, rungs, protocol)
            found.append(choice)
            if _fits(choice, stored):
                study.damaged.update(tried if choice.level == "F3" else tried[:-1])
                return choice
    same_rung = [choice for choice in found if (choice.level, choice.policy_id) == stored[:2]]
    return (same_rung or found or [ladder.choose(features, (), protocol)])[0]


def _fits(choice: Choice, stored: tuple[Any, ...]) -> bool:
    same_rung = (choice.level, choice.policy_id) == stored[:2]
    return same_rung and abs(choice.probability - stored[2]) <= TOLERANCE


def _subsets(study: Study, active: int, decision: Row) -> Iterator[set[Source]]:
    """Every set of the blocks that serving looks at and that are unusable now: those that were sound then."""
    person, numbers = decision["participant_id"], (active, study.below(active, decision["feature_version"]))
    looked_at = [(kind, number, person) for number in numbers for kind in (BLOCK, POPULATION)]
    unusable = [source for source in map(_source, looked_at) if source in study.sound]
    for count in range(len(unusable) + 1):
        yield from map(set, combinations(unusable, count))


def _source(looked_at: tuple[str, int | None, int]) -> Source:
    kind, number, person = looked_at
    return (kind, number or 0, person if kind == BLOCK else 0)


def _may_have_served(study: Study, decision: Row) -> Iterable[int]:
    """F0 and F2 name the active policy; under F1 it is the next one; under F3 it may have been any, the
    latest first, and one that is not there. None served before it was made."""
    latest = decision["act_gen_timestamp"] + CLOCKS
    gone = {"created_at": latest}
    return [one for one in _named(study, decision) if study.policies.get(one, gone)["created_at"] <= latest]


def _named(study: Study, decision: Row) -> Iterable[int]:
    """The policies that a decision's rung may stand for."""
    level, policy_id = decision["fallback_level"], decision["policy_id"]
    if level == "F1":
        features = decision["feature_version"]
        numbers = (*study.policies, _next(study))
        return [number for number in numbers if study.below(number, features) == policy_id]
    if level == "F3":
        return [*sorted(study.policies, reverse=True), _next(study)]
    return [] if policy_id is None else [policy_id]


def _next(study: Study) -> int:
    """A policy whose row is gone: one above the highest."""
    return max(study.policies, default=-1) + 1


def _rungs(
    study: Study, active: int, decision: Row, sound: set[Source], tried: list[Source]
) -> Iterator[Rung]:
    """F0, F2 and F1 in the order in which serving tries them. `sound` are blocks that are taken as they were
    computed; `tried` gathers the others that were looked at."""

    def rung(level: Level, source: Source, stored: Block | None) -> Iterator[Rung]:
        block = study.sound[source] if source in sound else stored
        tried.append(source)
        if block is not None:
            yield Rung(level, source[1], block)

    person, features = decision["participant_id"], decision["feature_version"]
    policy, number = study.policies.get(active), study.below(active, features)
    if policy is not None and study.is_of(active, features):
        member = person in policy["participants"]
        if member:
            yield from rung("F0", (BLOCK, active, person), study.own(active, person))
        yield from rung("F2" if member else "F0", (POPULATION, active, 0), population(policy))
    if number is not None:
        if (number, person) in study.blocks or (BLOCK, number, person) in sound:
            yield from rung("F1", (BLOCK, number, person), study.own(number, person))
        yield from rung("F1", (POPULATION, number, 0), population(study.policies[number]))
