"""The checks of the service's answers, and the ledger that counts how often each of them held or failed."""

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
    """The number of times each named check was made and failed, with the first examples of its failures.

    Many threads may use it at a time.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, name: str, passed: bool, example: str = "") -> None:
        """Count one check. `example` describes the checked answer, without anything personal."""
        with self._lock:
            self.counts[name] += 1
            if not passed:
                self.failed[name] += 1
                self.examples[name] = [*self.examples.get(name, []), example][:EXAMPLES]

    def equal(self, name: str, reported: object, expected: object) -> None:
        """Count one check that a reported value equals the expected one."""
        self.check(name, reported == expected, f"{reported} is reported, {expected} is expected")

    @property
    def passed(self) -> bool:
        """True where no check failed."""
        return not self.failed


@dataclass
class Played:
    """One person's rehearsal so far: surveys, brushing, decisions and ingest jobs by decision index.

    `going` is False once the service refused a call for this person; the other people go on.
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
        """Return the number of learning rows: decisions that have a state and whose outcome was reported."""
        if isinstance(self.person, Brusher):
            reported = set(self.jobs)  # brushing is recorded for the window of the decision itself
        else:
            reported = {index - 1 for index in self.decisions}  # a survey reports on the decision before it
        return sum(
            index in reported and decision.state is not None for index, decision in self.decisions.items()
        )

    def expected_state(self, point: Point) -> tuple[float, ...]:
        """Return the state that follows from the answers so far at `point`, the next one."""
        if isinstance(self.person, Brusher):
            actions = {index: decision.action for index, decision in self.decisions.items()}
            return oralytics_people.expected_state(self.brushing, actions, point)
        return expected_state(self.surveys, point)


class Distinct:
    """Numbers that must all differ. Many threads may use it at a time."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._lock = threading.Lock()

    def new(self, number: int) -> bool:
        """Add `number` and return whether it was not there before."""
        with self._lock:
            is_new = number not in self._numbers
            self._numbers.add(number)
        return is_new


def check_decision(ledger: Ledger, rids: Distinct, played: Played, point: Point, decision: Decision) -> None:
    """Check the first answer of /actions to `point`.

    `played` has the surveys up to this point and the decisions before it.
    """
    drawn = int(decision.seed / SEEDS < decision.act_prob)
    before = max((d.policy_id for d in played.decisions.values() if d.policy_id is not None), default=0)
    state = played.expected_state(point)
    ledger.check("rid is new", rids.new(decision.rid), f"rid {decision.rid}")
    ledger.check("seed is an integer of 53 bits", 0 <= decision.seed < SEEDS, f"seed {decision.seed}")
    ledger.check(
        "action is 1 exactly where seed / 2**53 < act_prob",
        decision.action == drawn,
        f"action {decision.action}, seed {decision.seed}, act_prob {decision.act_prob!r}",
    )
    ledger.check(
        "act_prob is within 0.2 and 0.8",
        LOWEST <= decision.act_prob <= HIGHEST,
        f"{decision.act_prob!r}",
    )
    ledger.equal("decision_index is the one asked for", decision.decision_index, point.decision_index)
    ledger.check(
        "policy_id never falls",
        (decision.policy_id or 0) >= before,
        f"{decision.policy_id} after {before}",
    )
    # the service may add in another order, so the last digits of the two states may differ
    is_near = (
        decision.state is not None
        and len(decision.state) == len(state)
        and all(abs(a - b) < ROUNDING for a, b in zip(decision.state, state, strict=True))
    )
    ledger.equal("state follows from the answers", state if is_near else decision.state, state)
    ledger.equal("the active policy answered (F0)", decision.fallback_level, "F0")


def expected_state(surveys: Mapping[int, Survey], point: Point) -> tuple[int, int, int]:
    """Return the state of a MiWaves study.

    S1: mean of the last three rewards at least 2; S2: evening; S3: survey finished without cannabis use.
    """
    index = point.decision_index
    rewards = [reward(surveys[i]) for i in range(index - 2, index + 1) if i in surveys]
    clean = surveys[index].finished_ema and surveys[index].cannabis_use == ()
    return int(sum(rewards) >= 2 * len(rewards)), int(point.evening), int(clean)


def reward(survey: Survey) -> int:
    """Return the reward of a survey: 3 suggestion used, 2 survey finished, 1 app used, 0 none of them."""
    if survey.finished_ema:
        return 3 if survey.activity_question_response else 2
    return int(survey.app_use_flag)


def check_prior(ledger: Ledger, decisions: Iterable[Decision], first: Policy) -> None:
    """Check that each decision under policy 0 has the probability that policy 0 gives to its state."""
    for decision in decisions:
        if decision.policy_id == 0 and decision.state is not None:
            expected = first.act_prob.get("".join(f"{value:g}" for value in decision.state))
            if expected is None:  # the table has binary states only, an Oralytics state is not binary
                continue
            ledger.check(
                "policy 0 gives the prior's act_prob",
                abs(decision.act_prob - expected) < 1e-12,
                f"{decision.act_prob!r} for {expected!r}",
            )


def z_score(decisions: Iterable[Decision]) -> float:
    """Return the distance of the number of messages from the sum of act_prob, in standard deviations."""
    pairs = [(decision.action, decision.act_prob) for decision in decisions]
    spread = sqrt(sum(p * (1 - p) for _, p in pairs))
    return sum(a - p for a, p in pairs) / spread if spread else 0.0
