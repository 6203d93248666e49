"""A typed client of the decision service: the calls that a study's back end makes, safe to repeat.

Every call is sent again, with growing pauses, while the service is away (network error, 429, 502, 503, 504),
until `patience` seconds have passed. That is safe because a decision point is named by its decision_index: a
repeat is answered with the decision that was made the first time. One Client may be used by many threads.
"""

import base64
import itertools
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import requests
from pydantic import TypeAdapter, ValidationError

from rehearsal.contract import (
    Accepted,
    Decision,
    Done,
    EndedWindow,
    Enrolment,
    Job,
    JobAnswer,
    Policy,
    PolicyList,
    StudyReport,
    Survey,
    Token,
)

AWAY = {429, 502, 503, 504}
NAME_TAKEN = 6
LONGEST_PAUSE = 5.0
ANSWER_SECONDS = 30.0
NETWORK_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)

T = TypeVar("T")


class Session(NamedTuple):
    """A token and the moment to renew it (monotonic seconds)."""

    token: str
    renew_at: float


_READERS: dict[type, TypeAdapter[Any]] = {}


class ApiError(Exception):
    """A call that the service refused, or answered otherwise than its contract says."""

    def __init__(self, call: str, status: int, code: int | None, message: str) -> None:
        super().__init__(f"{call} was answered {status} (error_code {code}): {message}")
        self.status, self.code = status, code


class Unreachable(Exception):
    """A service that stayed away for longer than the client's patience."""


class Client:
    """One account of one study at the service under `url`."""

    def __init__(self, url: str, study: str, name: str, password: str, patience: float = 300.0) -> None:
        self.url, self.study_name, self.patience = url.rstrip("/"), study, patience
        self._account = {"api_user": name, "api_pass": password, "study": study}
        self._thread = threading.local()
        self._at_login = threading.Lock()
        self._session = Session("", 0.0)

    def running(self, patience: float) -> None:
        """Wait until the service answers. Raises Unreachable after `patience` seconds."""
        self._read(Done, self._send("GET", "/running", None, None, patience))

    def register_client(self, registration_token: str | None = None) -> None:
        """Register the client's account, once per study.

        Raises ApiError 409 where the name exists, 403 where registration is closed.
        """
        body = self._account | ({"registration_token": registration_token} if registration_token else {})
        response, tries = self._persist("POST", "/auth/register", body)
        try:
            self._keep(self._read(Token, response))
        except ApiError as refusal:
            # an earlier try may have made the account and lost its answer: then the password fits
            if tries == 1 or refusal.code != NAME_TAKEN or not self._may_log_in():
                raise

    def _may_log_in(self) -> bool:
        try:
            self.login()
        except ApiError:
            return False
        return True

    def login(self) -> None:
        """Get a new token. Calls do this themselves when the token is about to expire or is refused."""
        self._renewed(self._session.token)

    def logout(self) -> None:
        """Revoke the token."""
        self._read(Done, self._send("POST", "/auth/logout", {}, self._session.token))
        self._session = Session("", 0.0)

    def register(self, enrolment: Enrolment) -> None:
        """Enrol a participant. The same body again within the hour is a repeat, not an error."""
        body = {name: value for name, value in asdict(enrolment).items() if value is not None}
        self._call(Done, "POST", "/register", body)

    def actions(self, user_id: str, index: int, time: datetime, survey: Survey) -> Decision:
        """Decide point `index`; `time` is the participant's local time, with its offset."""
        body = {"user_id": user_id, "decision_index": index, "decision_time": time} | survey.fields()
        return self._call(Decision, "POST", "/actions", body)

    def decision_point(self, user_id: str, index: int, time: datetime) -> Decision:
        """Decide point `index` under a protocol whose answers all come after the action."""
        body = {"user_id": user_id, "decision_index": index, "decision_time": time}
        return self._call(Decision, "POST", "/decision_points", body)

    def end_decision_window(self, user_id: str, index: int) -> EndedWindow:
        """End the window of point `index`."""
        return self._call(
            EndedWindow, "POST", "/end_decision_window", {"user_id": user_id, "decision_index": index}
        )

    def update_parameters(self) -> Accepted:
        """Ask for a refit now."""
        return self._call(Accepted, "POST", "/update_parameters", {})

    def job(self, job_id: int) -> Job:
        """Return job `job_id` as it is now."""
        return self._call(JobAnswer, "GET", f"/jobs/{job_id}").job

    def study(self) -> StudyReport:
        """Return the study's counts."""
        return self._call(StudyReport, "GET", "/study")

    def policies(self) -> list[Policy]:
        """Return all policies of the study, by number."""
        policies = self._call(PolicyList, "GET", "/policies").policies
        return sorted(policies, key=lambda policy: policy.policy_id)

    def _call(self, answer: type[T], method: str, path: str, body: Mapping[str, Any] | None = None) -> T:
        token = self._current_token()
        response = self._send(method, path, body, token)
        if response.status_code == requests.codes.unauthorized:
            response = self._send(method, path, body, self._renewed(token))
        return self._read(answer, response)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str | None = None,
        patience: float | None = None,
    ) -> requests.Response:
        return self._persist(method, path, body, token, patience=patience)[0]

    def _persist(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str | None = None,
        *,
        patience: float | None = None,
        since: float | None = None,
    ) -> tuple[requests.Response, int]:
        """Send a call until the service answers; return the answer and the number of tries.

        Raises Unreachable `patience` seconds (None: the client's) after `since` (None: now).
        """
        started, pause = time.monotonic() if since is None else since, 0.05
        for tries in itertools.count(1):
            response, trouble = self._try(method, path, body, token)
            if response is not None and response.status_code not in AWAY:
                return response, tries
            retry_after = "" if response is None else response.headers.get("Retry-After", "")
            # the header may also be a date, which the service never sends
            pause_of_service = float(retry_after) if retry_after.isdecimal() else 0.0
            wait = max(pause * random.uniform(0.5, 1.0), pause_of_service)
            waited = time.monotonic() - started + wait
            # the client's patience is read each time, since another thread may set it to 0
            if waited > (self.patience if patience is None else patience):
                raise Unreachable(f"no answer from {self.url}{path}: {trouble}")
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("unreachable")

    def _try(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None
    ) -> tuple[requests.Response | None, str]:
        """Send a call once; return the answer, None after a network error, and words for a failed try."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # the only values that JSON does not know are dates and instants
        data = None if body is None else json.dumps(body, default=lambda instant: instant.isoformat())
        try:
            response = self._connections().request(
                method, self.url + path, data=data, headers=headers, timeout=ANSWER_SECONDS
            )
        except NETWORK_ERRORS as error:
            return None, type(error).__name__
        return response, f"HTTP {response.status_code}"

    def _read(self, answer: type[T], response: requests.Response) -> T:
        """Return the answer in a response. Raises ApiError for a refusal or another type of answer."""
        call = f"{response.request.method} {response.request.path_url}"
        if not response.ok:
            try:
                body = response.json()
                code, message = body["error_code"], str(body["message"])
            except (requests.JSONDecodeError, KeyError, TypeError):
                code, message = None, "the body is no error of the contract"
            raise ApiError(call, response.status_code, code, message)
        try:
            _reader(Done).validate_json(response.content, strict=True)
            return _reader(answer).validate_json(response.content, strict=True)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ApiError(call, response.status_code, None, f"not as the contract says ({wrong})") from None

    def _connections(self) -> requests.Session:
        """Return this thread's connections, since a requests.Session is not made for several threads."""
        if not hasattr(self._thread, "connections"):
            self._thread.connections = requests.Session()
            self._thread.connections.trust_env = False  # a ~/.netrc would replace the token
        connections: requests.Session = self._thread.connections
        return connections

    def _current_token(self) -> str:
        session = self._session
        return self._renewed(session.token) if time.monotonic() > session.renew_at else session.token

    def _renewed(self, old_token: str) -> str:
        """Return the token after `old_token`; of all threads that need a new one, one logs in.

        The others wait for it no longer than their own patience, and try with what is left of that.
        """
        started = time.monotonic()
        if not self._at_login.acquire(timeout=self.patience):
            raise Unreachable(f"no answer from {self.url}/auth/login: another thread is waiting for it")
        try:
            if self._session.token == old_token:  # else another thread has logged in meanwhile
                response, _ = self._persist("POST", "/auth/login", self._account, since=started)
                self._keep(self._read(Token, response))
            return self._session.token
        finally:
            self._at_login.release()

    def _keep(self, answer: Token) -> None:
        """Keep a token until 0.9 of its lifetime, the seconds between its iat and exp, have passed."""
        try:
            payload = answer.auth_token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            # a difference of the service's own times, so that its clock and ours may disagree
            lifetime = float(claims["exp"] - claims["iat"])
        except (IndexError, KeyError, TypeError, ValueError):
            lifetime = float("inf")  # a token that cannot be read is renewed when it is refused
        self._session = Session(answer.auth_token, time.monotonic() + 0.9 * lifetime)


def _reader(answer: type[T]) -> TypeAdapter[T]:
    """Return the reader of a type of answer."""
    # kept, since making one costs more than a whole call
    if answer not in _READERS:
        _READERS[answer] = TypeAdapter(answer)
    return _READERS[answer]
