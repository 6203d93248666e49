"""A pretended service behind the client's methods; it answers correctly unless a test overrides one."""

from datetime import UTC, datetime
from itertools import count

from rehearsal.checks import Played, expected_state
from rehearsal.client import ApiError, Client
from rehearsal.contract import Accepted, Decision, EndedWindow, Enrolment, Job, Policy, StudyReport, Survey
from rehearsal.people import Person, Point

STATES = [f"{s1}{s2}{s3}" for s1 in "01" for s2 in "01" for s3 in "01"]
SEED = 2**51  # / 2**53 = 0.25


class Pretended(Client):
    """A client that answers from memory: act_prob 0.5 under policy 0, and every window ingested at once."""

    def __init__(self, people: list[Person]) -> None:
        super().__init__("http://127.0.0.1:9", "pretended", "app", "password")
        self.played = {person.enrolment.user_id: Played(person) for person in people}
        self.enrolled: set[str] = set()
        self.numbers = count(1)

    def register(self, enrolment: Enrolment) -> None:
        self.enrolled.add(enrolment.user_id)

    def actions(self, user_id: str, index: int, time: datetime, survey: Survey) -> Decision:
        played = self.played[user_id]
        if index not in played.decisions:
            played.surveys[index] = survey
            played.decisions[index] = self.decide(played, index, time)
        return played.decisions[index]

    def decide(self, played: Played, index: int, time: datetime) -> Decision:
        state = expected_state(played.surveys, Point(index, time, evening=time.hour >= 15))
        now = datetime.now(UTC)
        return Decision(next(self.numbers), 1, SEED, 0.5, 0, index, now, tuple(map(float, state)), "F0")

    def end_decision_window(self, user_id: str, index: int) -> EndedWindow:
        jobs = self.played[user_id].jobs
        jobs.setdefault(index, next(self.numbers))
        return EndedWindow(index, jobs[index], f"/jobs/{jobs[index]}")

    def update_parameters(self) -> Accepted:
        return Accepted(1, "/jobs/1")

    def job(self, job_id: int) -> Job:
        return Job(job_id, "ingest", "done", 1, None, None)

    def study(self) -> StudyReport:
        everybody = list(self.played.values())
        rows = sum(played.rows() for played in everybody)
        return StudyReport(
            study="pretended",
            participants=len(self.enrolled),
            decisions=sum(len(played.decisions) for played in everybody),
            windows={"ingested": sum(len(played.jobs) for played in everybody), "missed": 0},
            discrepancies=0,
            fallbacks={"F0": sum(len(played.decisions) for played in everybody)},
            policies=2,
            policy_id=1,
            rows=rows,
            policy_rows=rows,
            jobs={"queued": 0, "running": 0, "failed": 0},
            study_length=60,
        )

    def policies(self) -> list[Policy]:
        return [Policy(number, self.study().rows, dict.fromkeys(STATES, 0.5)) for number in (0, 1)]


def refusal() -> ApiError:
    """Return a refusal as the service words it."""
    return ApiError("POST /actions", 409, 212, "no")
