"""Refits: requests for a new policy."""

from datetime import UTC, datetime

from api.core import broker
from api.core.endpoint import Domain, Reply
from api.trial.examples import EXAMPLES
from models.core.session import transact
from services.core.callers import Caller
from services.trial import refits

domain = Domain("refits", __doc__, EXAMPLES)


class RefitRequested(Reply):
    """The job that does what was asked for; requests join it while it is queued."""

    job_id: int
    status_url: str


@domain.operation(
    "POST", "/update_parameters", roles={"client", "admin"}, status=202, standing_is_read_by_view=True
)
def update_parameters(caller: Caller) -> RefitRequested:
    """Ask for a refit of the posterior over all participants.

    One that the study's back end (role client) asks for begins as long after the last one as the protocol
    says (`refit.min_interval_minutes`), an admin's at once; one that failed is tried again in its own time.
    """
    return _request(caller, hyperparameters=False)


@domain.operation(
    "POST", "/update_hyperparameters", roles={"client", "admin"}, status=202, standing_is_read_by_view=True
)
def update_hyperparameters(caller: Caller) -> RefitRequested:
    """Ask for new hyper-parameters and a refit with them, which begins when any other one would."""
    return _request(caller, hyperparameters=True)


def _request(caller: Caller, hyperparameters: bool) -> RefitRequested:
    job = transact(refits.request, caller, datetime.now(UTC), hyperparameters)
    broker.send(job)
    return RefitRequested(job_id=job.job_id, status_url=f"/jobs/{job.job_id}")
