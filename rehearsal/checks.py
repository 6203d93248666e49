"""What must hold of every answer of the service, and the ledger that counts where it did and where not."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import sqrt

from rehearsal import oralytics_people
from rehearsal.contract import Brushing, Decision, Policy, Survey
from rehearsal.people import Brusher, Person, Point

LOWEST, HIGHEST = 0.2, 0.8  # bounds of the randomisation probability in the protocol that is played
SEEDS = 2**53
FARTHEST_Z = 5.0
EXAMPLES = 3
ROUNDING = 1e-9


@dataclass
class Ledger:
    """Named checks: how often each was made, and for those that failed how often and the first examples."""

    made: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, name: str, held: bool, example: str = "") -> None:
        """Count one check. `example` says what was seen, without anything personal."""
        with self._lock:
            self.made[name] += 1
            if not held:
                self.failed[name] += 1
                self.examples[name] = [*self.examples.get(name, []), example][:EXAMPLES]

    def equal(self, name: str, reported: object, expected: object) -> None:
        """Count one check that a reported value is the expected one."""
        self.check(name, reported == expected, f"{reported} is reported, {expected} is expected")

    @property
    def held(self) -> bool:
        """Whether no check failed."""
        return not self.failed


@dataclass
class Played:
    """One person's rehearsal so far: what was answered, or recorded, and what was decided, by decision index.

    `going` turns false where the service refused a call: the others go on.
    """

    person: Person | Brusher
    surveys: dict[int, Survey] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    jobs: dict[int, int] = field(default_factory=dict)
    going: bool = True
    brushing: dict[int, Brushing] = field(default_factory=dict)

    @property
    def actions(self) -> list[int]:
        """The actions drawn so far, oldest first."""
        return [self.decisions[index].action for index in sorted(self.decisions)]

    def rows(self) -> int:
        """How many learning rows these decisions make: the state of t computable, and its outcome told with
        decision t + 1, or recorded for the window of t."""
        told = {index - 1 for index in self.decisions}
        if isinstance(self.person, Brusher):
            told = set(self.jobs)
        return sum(index in told and decision.state is not None for index, decision in self.decisions.items())

    def expected_state(self, point: Point) -> tuple[float, ...]:
        """The state of the next point."""
        if isinstance(self.person, Brusher):
            actions = {index: decision.action for index, decision in self.decisions.items()}
            return oralytics_people.expected_state(self.brushing, actions, point)
        return expected_state(self.surveys, point)


class Distinct:
    """Numbers that must all differ, over all threads."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._lock = threading.Lock()

    def new(self, number: int) -> bool:
        """Whether `number` was never seen before; it is from now on."""
        with self._lock:
            known = number in self._seen
            self._seen.add(number)
        return not known


def check_decision(ledger: Ledger, rids: Distinct, played: Played, point: Point, got: Decision) -> None:
    """Check a first answer of /actions; `played` has surveys up to this point, decisions up to the last."""
    drawn = int(got.seed / SEEDS < got.act_prob)
    before = max((d.policy_id for d in played.decisions.values() if d.policy_id is not None), default=0)
    state = played.expected_state(point)
    ledger.check("rid is new", rids.new(got.rid), f"rid {got.rid}")
    ledger.check("seed is an integer of 53 bits", 0 <= got.seed < SEEDS, f"seed {got.seed}")
    ledger.check(
        "action is 1 exactly where seed / 2**53 < act_prob",
        got.action == drawn,
        f"action {got.action}, seed {got.seed}, act_prob {got.act_prob!r}",
    )
    ledger.check("act_prob is within 0.2 and 0.8", LOWEST <= got.act_prob <= HIGHEST, f"{got.act_prob!r}")
    ledger.equal("decision_index is the one asked for", got.decision_index, point.decision_index)
    ledger.check("policy_id never falls", (got.policy_id or 0) >= before, f"{got.policy_id} after {before}")
    ledger.equal("state follows from the answers", state if _near(got.state, state) else got.state, state)
    ledger.equal("the active policy answered (F0)", got.fallback_level, "F0")


def _near(found: tuple[float, ...] | None, expected: tuple[float, ...]) -> bool:
    """Equal but for the order of additions."""
    return (
        found is not None
        and len(found) == len(expected)
        and all(abs(one - other) < ROUNDING for one, other in zip(found, expected, strict=True))
    )


def expected_state(surveys: Mapping[int, Survey], point: Point) -> tuple[int, int, int]:
    """S1: mean of the last three rewards at least 2; S2: evening; S3: finished, no cannabis use."""
    index = point.decision_index
    rewards = [reward(surveys[i]) for i in range(index - 2, index + 1) if i in surveys]
    clean = surveys[index].finished_ema and surveys[index].cannabis_use == ()
    return int(sum(rewards) >= 2 * len(rewards)), int(point.evening), int(clean)


def reward(survey: Survey) -> int:
    """3 suggestion used, 2 survey finished, 1 app used, 0 neither."""
    if survey.finished_ema:
        return 3 if survey.activity_question_response else 2
    return int(survey.app_use_flag)


def check_prior(ledger: Ledger, decisions: Iterable[Decision], first: Policy) -> None:
    """Whoever was decided under policy 0 got the probability which that policy gives to the state, where its
    table has the state."""
    for decision in decisions:
        if decision.policy_id == 0 and decision.state is not None:
            expected = first.act_prob.get("".join(f"{value:g}" for value in decision.state))
            if expected is None:
                continue
            ledger.check(
                "policy 0 gives the prior's act_prob",
                abs(decision.act_prob - expected) < 1e-12,
                f"{decision.act_prob!r} for {expected!r}",
            )


def z_score(decisions: Iterable[Decision]) -> float:
    """How far the number of messages lies from the sum of act_prob, in standard deviations."""
    pairs = [(decision.action, decision.act_prob) for decision in decisions]
    spread = sqrt(sum(p * (1 - p) for _, p in pairs))
    return sum(a - p for a, p in pairs) / spread if spread else 0.0
