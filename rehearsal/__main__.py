"""The rehearsal's command: `python -m rehearsal --api URL --study NAME --listen PORT`.

It plays the back end of a study that has no participants yet, and checks every answer of the service.

Environment: KAIROS_EMA_TOKEN (the bearer token that the service sends to /ema_study; without it everybody is
let in), REHEARSAL_CLIENT and REHEARSAL_RESEARCHER (name:password; without the first the rehearsal makes an
account of its own), REHEARSAL_REGISTRATION_TOKEN (the study's, where registering needs one).

Exit status: 0 every check held; 1 at least one did not; 2 the rehearsal could not start.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from rehearsal import miwaves_people, oralytics_people, recorded_people, summary
from rehearsal.backend import Backend, EmaServer, Faults
from rehearsal.checks import FARTHEST_Z, check_prior, z_score
from rehearsal.client import ApiError, Client, Unreachable
from rehearsal.options import CannotStart, account, arguments
from rehearsal.people import Brusher, Person
from rehearsal.play import Rehearsal, check_report
from rehearsal.progress import progress

START_SECONDS = 10.0
PARTICIPANTS = 16
SYNTHETIC: dict[str, Callable[[int, int, int], Sequence[Person | Brusher]]] = {
    "miwaves": miwaves_people.people,
    "oralytics": oralytics_people.people,
}
MAY_EXIST = {403, 409}  # registering is over, or an account of this name is there


def main(words: Sequence[str] | None = None) -> int:
    """Run the rehearsal that `words`, or the command line, describe, and return the exit status."""
    try:
        return _rehearse(arguments(words))
    except (CannotStart, recorded_people.FileError) as refusal:
        print(f"rehearsal: {refusal}", file=sys.stderr)
        return 2
    except (Unreachable, ApiError) as error:
        print(f"rehearsal: broken off: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rehearsal: interrupted", file=sys.stderr)
        return 130


def _rehearse(options: argparse.Namespace) -> int:
    """Play the whole rehearsal and return the exit status. Raises CannotStart or FileError before it begins.

    1. Serve the back end. 2. Log in at the service. 3. Enrol everybody. 4. Walk them through their decision
    points. 5. Wait for the service to finish, check its counts and print the summary.
    """
    backend = Backend(os.environ.get("KAIROS_EMA_TOKEN"), Faults(options.ema_faults, seed=options.seed))
    everybody = recorded_people.people(options.recorded) if options.recorded else None
    try:
        server = EmaServer(backend, options.listen)
    except OSError as error:
        raise CannotStart(f"port {options.listen} cannot be listened on: {error.strerror}") from None
    with server:
        client = researcher = _client(options)
        if login := account("REHEARSAL_RESEARCHER"):
            researcher = Client(options.api, options.study, *login, options.patience)
            try:
                researcher.login()
            except (Unreachable, ApiError) as error:
                raise CannotStart(f"REHEARSAL_RESEARCHER: {error}") from None
        play = Rehearsal(client, backend, _people(options, client, everybody), options.threads, options.seed)
        play.enrol()
        total = sum(len(played.person.points) for played in play.played)
        with progress(total, "decision points") as step:
            play.walk(step)
        print("waiting until every window is ingested and learnt from", file=sys.stderr, flush=True)
        return _conclude(play, researcher, options.patience)


def _client(options: argparse.Namespace) -> Client:
    """Return a client that is logged in: with the account of REHEARSAL_CLIENT, or with a new account."""
    new_account = (f"rehearsal-of-{options.study}", secrets.token_urlsafe(24))
    login = account("REHEARSAL_CLIENT") or new_account
    client = Client(options.api, options.study, *login, options.patience)
    try:
        client.running(START_SECONDS)
        client.register_client(os.environ.get("REHEARSAL_REGISTRATION_TOKEN"))
    except (Unreachable, ApiError) as refusal:
        # an account that exists cannot be registered again, but may log in
        if not isinstance(refusal, ApiError) or refusal.status not in MAY_EXIST:
            raise CannotStart(str(refusal)) from None
        try:
            client.login()
        except ApiError as error:
            hint = "REHEARSAL_CLIENT=name:password names an account of the study"
            raise CannotStart(f"{refusal}; {error}; {hint}") from None
        except Unreachable as error:
            raise CannotStart(str(error)) from None
    return client


def _people(
    options: argparse.Namespace, client: Client, everybody: Sequence[Person | Brusher] | None
) -> list[Person | Brusher]:
    """Return the people to play, cut to the numbers in `options`.

    `everybody` are the recorded people, None for synthetic ones. Raises CannotStart where the study cannot
    hold them.
    """
    study = client.study()
    if study.participants:
        raise CannotStart(f"study {study.study} has participants already: make a new one")
    if study.protocol not in SYNTHETIC or (everybody is not None and study.protocol != "miwaves"):
        raise CannotStart(f"nobody can be played under the protocol {study.protocol} of study {study.study}")
    if everybody is None:
        count = options.participants or PARTICIPANTS
        everybody = SYNTHETIC[study.protocol](count, options.points or study.study_length, options.seed)
    if len(everybody) < (options.participants or 0):
        raise CannotStart(f"--participants {options.participants}: only {len(everybody)} are recorded")
    # a slice with None takes all
    people = [replace(p, points=p.points[: options.points]) for p in everybody[: options.participants]]
    highest = max(point.decision_index for person in people for point in person.points)
    if highest > study.study_length:
        raise CannotStart(
            f"decision_index goes up to {highest}, but the study's length is {study.study_length}"
        )
    return people


def _conclude(play: Rehearsal, researcher: Client, patience: float) -> int:
    """Wait for the service to finish, make the last checks, print the summary and return the exit status."""
    report, ledger = play.settle(patience), play.ledger
    check_report(ledger, report, play.expected())
    play.refit(patience)
    policies, decisions = researcher.policies(), play.decisions()
    check_prior(ledger, decisions, policies[0])
    ledger.equal("rows in the last policy", policies[-1].rows, play.expected().rows)
    z = z_score(decisions)
    ledger.check("messages sent fit their probabilities", abs(z) < FARTHEST_Z, f"z = {z:.2f}")
    for line in summary.lines(play, report, policies):
        print(line)
    if (
        report.windows.get("ingested") != play.expected().ingested
    ):  # a call for each window: only where it helps
        for line in play.not_ingested():
            print(f"not ingested: {line}", file=sys.stderr)
    if not ledger.passed:
        print(f"FAILED: {', '.join(ledger.failed)}")
        return 1
    print(f"every check held ({ledger.counts.total()} in all)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
