"""Accounts that callers make for themselves: who may register, and by which token."""

import itertools
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update
from werkzeug.test import TestResponse

from api.core import auth
from local.embedded import Embedded
from models.core.accounts import Client
from models.core.session import transact
from tests.api.core.test_auth import get_study, login, refusal
from tests.support.configured import configured
from tests.support.service import Service

BY_TOKEN = {"KAIROS_REGISTRATION": "token", "KAIROS_REGISTRATION_SECRET": "0123456789abcdef" * 2}
TOKEN_OF_TRIAL = "Z87s3CdwDM_XILKuscU6aMEMJPxEtOch3acK-AFybv8"


def joining(service: Service, name: str) -> str:
    """The registration token of a new study."""
    service.command("study", "create", name, "--ema-url", "http://127.0.0.1:9/ema")
    return str(service.command("study", "registration-token", name)["registration_token"])


def register(service: Service, **body: str) -> TestResponse:
    return service.call("POST", "/auth/register", {"api_pass": "a password", **body})


def test_the_first_caller_becomes_the_client_and_nobody_after(
    embedded: Embedded, fresh_database: str
) -> None:
    with configured(embedded, fresh_database, KAIROS_REGISTRATION="first") as service:
        service.command("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/ema")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: register(service, api_user=f"app {number}"), range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403]
        assert refusal(register(service, api_user="late")) == (403, 4)
        taken = next(number for number, answer in enumerate(answers) if answer.status_code == 201)
        assert refusal(register(service, api_user=f"app {taken}")) == (409, 6)
        assert get_study(service, answers[taken].get_json()["auth_token"]).status_code == 200
        service.command("study", "create", "another", "--ema-url", "http://127.0.0.1:9/ema")
        assert refusal(register(service, api_user="other app")) == (422, 5)
        assert register(service, api_user="other app", study="another").status_code == 201


def test_a_new_account_needs_eight_characters_and_an_old_one_logs_in_with_fewer(
    embedded: Embedded, fresh_database: str
) -> None:
    with configured(embedded, fresh_database, KAIROS_REGISTRATION="first") as service:
        service.command("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/ema")
        short = register(service, api_user="app", api_pass="1234567")
        assert refusal(short) == (422, 5)
        assert [error["field"] for error in short.get_json()["errors"]] == ["api_pass"]
        assert register(service, api_user="app", api_pass="12345678").status_code == 201
        hashed = auth.hashed("x")
        transact(lambda session: session.execute(update(Client).values(password_hash=hashed)))
        assert login(service, "app", "x").status_code == 200


def test_a_registration_token_lets_clients_in(embedded: Embedded, fresh_database: str) -> None:
    with configured(embedded, fresh_database, **BY_TOKEN) as service:
        token = joining(service, "trial")
        for wrong in ({}, {"registration_token": token[:-1]}, {"registration_token": "ä" * 20}):
            assert refusal(register(service, api_user="app", **wrong)) == (403, 4)
        for name in ("app", "second app"):
            assert register(service, api_user=name, registration_token=token).status_code == 201
        assert refusal(register(service, api_user="app", registration_token=token)) == (409, 6)


def test_a_registration_token_opens_its_own_study_alone(embedded: Embedded, fresh_database: str) -> None:
    with configured(embedded, fresh_database, **BY_TOKEN) as service:
        tokens = {name: joining(service, name) for name in ("trial", "another", "a" * 128)}
        for study_name, others in itertools.permutations(tokens, 2):
            asked = {"study": study_name, "registration_token": tokens[others]}
            assert refusal(register(service, api_user="app", **asked)) == (403, 4)
        for number, (study_name, token) in enumerate(tokens.items()):
            asked = {"study": study_name, "registration_token": token}
            answer = register(service, api_user=f"app {number}", **asked)
            assert get_study(service, answer.get_json()["auth_token"]).get_json()["study"] == study_name
        assert refusal(register(service, api_user="app", registration_token=tokens["trial"])) == (422, 5)


def test_without_its_token_nobody_learns_whether_a_study_exists(
    embedded: Embedded, fresh_database: str
) -> None:
    with configured(embedded, fresh_database, **BY_TOKEN) as service:
        joining(service, "trial")
        answers = [register(service, api_user="app", study=name) for name in ("trial", "none")]
        assert answers[0].get_json() == answers[1].get_json()
        assert refusal(answers[0]) == (403, 4)


def test_a_registration_token_is_an_hmac_of_the_studys_name(embedded: Embedded, fresh_database: str) -> None:
    """As openssl computes it: printf 'registration|trial' | openssl dgst -sha256 -hmac KEY -binary."""
    with configured(embedded, fresh_database, **BY_TOKEN) as service:
        assert joining(service, "trial") == TOKEN_OF_TRIAL
        unknown = service.app.test_cli_runner().invoke(args=["study", "registration-token", "none"])
        assert (unknown.exit_code, unknown.output) == (1, "Error: there is no study 'none'\n")


def test_a_closed_registration_lets_nobody_in(embedded: Embedded, fresh_database: str) -> None:
    with configured(embedded, fresh_database, KAIROS_REGISTRATION="closed") as service:
        service.command("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/ema")
        assert refusal(register(service, api_user="app")) == (403, 4)
