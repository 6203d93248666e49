"""How often one may try to log in: by name, by address, with the broker's server and without it."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from werkzeug.test import TestResponse

from api.core import auth, login_limits
from local.embedded import Embedded
from tests.flows.core.test_degraded import dead_database
from tests.support.configured import COUNTS, configured
from tests.support.service import Service

NAMES, ADDRESSES = login_limits.OF_A_NAME.amount, login_limits.OF_AN_ADDRESS.amount


@pytest.fixture
def service(embedded: Embedded, fresh_database: str) -> Iterator[Service]:
    with configured(embedded, fresh_database) as service:
        service.command("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/ema")
        yield service


def tries(service: Service, name: str, password: str = "wrong", address: str = "192.0.2.1") -> TestResponse:
    return service.app.test_client().post(
        "/auth/login",
        json={"api_user": name, "api_pass": password},
        environ_base={"REMOTE_ADDR": address},
    )


def statuses(service: Service, times: int, **more: str) -> list[int]:
    return [tries(service, **more).status_code for _ in range(times)]


def password_of(service: Service, name: str) -> str:
    made = service.command("client", "create", name, "--study", "trial", "--role", "client")
    return str(made["password"])


def test_a_name_has_ten_tries(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    password = password_of(service, "app")
    assert statuses(service, NAMES, name="app") == [401] * NAMES
    monkeypatch.setattr(auth, "_hasher", None)  # nothing is hashed from here on
    limited = tries(service, "app", password)
    assert (limited.status_code, limited.get_json()["error_code"]) == (429, 906)
    assert 0 < int(limited.headers["Retry-After"]) <= 300
    assert tries(service, "app", password, address="198.51.100.7").status_code == 429


def test_another_name_is_not_concerned(service: Service) -> None:
    statuses(service, NAMES + 1, name="app")
    assert tries(service, "other").status_code == 401


def test_a_success_starts_the_count_anew(service: Service) -> None:
    password = password_of(service, "app")
    for _ in range(3):
        assert statuses(service, NAMES - 1, name="app") == [401] * (NAMES - 1)
        assert tries(service, "app", password).status_code == 200


def test_an_outage_of_the_database_uses_up_no_try(service: Service, embedded: Embedded) -> None:
    password = password_of(service, "app")
    new = {"api_user": "new", "api_pass": "a password", "study": "trial"}
    with dead_database(embedded):
        assert statuses(service, ADDRESSES + 1, name="app", password=password) == [503] * (ADDRESSES + 1)
        asked = [service.call("POST", "/auth/register", new) for _ in range(NAMES + 1)]
        assert [answer.status_code for answer in asked] == [503] * (NAMES + 1)
    assert statuses(service, NAMES + 1, name="app") == [401] * NAMES + [429]
    assert service.call("POST", "/auth/register", new).status_code == 403  # the study has one


def test_a_crowd_at_the_door_uses_up_no_try(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(auth, "_waiting", threading.Semaphore(0))
        crowded = [tries(service, "app") for _ in range(NAMES + 1)]
    assert {answer.get_json()["message"] for answer in crowded} == {
        "Too many logins at this moment: try again."
    }
    assert statuses(service, NAMES + 1, name="app") == [401] * NAMES + [429]


def test_successes_do_not_use_up_an_address(service: Service) -> None:
    password = password_of(service, "app")
    for _ in range(ADDRESSES + 5):
        assert tries(service, "app", password).status_code == 200


@pytest.mark.parametrize("broker", ["here", "away"])
def test_a_success_gives_no_new_tries_at_other_names(
    embedded: Embedded, fresh_database: str, tmp_path: Path, broker: str
) -> None:
    gone = {"BROKER_URL": f"redis+socket://{tmp_path}/gone.sock?virtual_host=0"} if broker == "away" else {}
    with configured(embedded, fresh_database, **gone) as service:
        service.command("study", "create", "trial", "--ema-url", "http://127.0.0.1:9/ema")
        password = password_of(service, "app")
        failed = []
        for number in range(ADDRESSES + 1):
            failed.append(tries(service, f"name {number}").status_code)
            if number % 10 == 0 and number < ADDRESSES:
                assert tries(service, "app", password).status_code == 200
    assert failed == [401] * ADDRESSES + [429]


def test_an_address_has_fifty_tries_of_all_names(service: Service) -> None:
    answers = [tries(service, f"name {number}").status_code for number in range(ADDRESSES + 1)]
    assert answers == [401] * ADDRESSES + [429]
    assert tries(service, "name", address="192.0.2.2").status_code == 401


def test_the_network_of_an_ipv6_subscriber_is_one_address(service: Service) -> None:
    for number in range(ADDRESSES):
        tries(service, f"name {number}", address=f"2001:db8::{number:x}:1")
    assert tries(service, "name", address="2001:db8::ffff:ffff:ffff:ffff").status_code == 429
    assert tries(service, "name", address="2001:db8:0:1::1").status_code == 401


def test_registrations_are_limited_too(service: Service) -> None:
    body = {"api_user": "app", "api_pass": "a password", "study": "no such study"}
    answers = [service.call("POST", "/auth/register", body) for _ in range(NAMES + 1)]
    assert [answer.status_code for answer in answers] == [422] * NAMES + [429]
    assert tries(service, "app").status_code == 401  # a route counts by itself


def test_the_counts_are_shared_and_name_nobody(service: Service, embedded: Embedded) -> None:
    tries(service, "a-telling-name", address="192.0.2.77")
    with redis.Redis(unix_socket_path=str(embedded.valkey.path), db=COUNTS) as server:
        keys = [key.decode() for key in server.scan_iter()]
        lives = [server.ttl(key) for key in keys]
    assert len(keys) == 2
    assert all(0 < life <= 300 for life in lives)
    assert not [key for key in keys if "telling" in key or "192.0.2" in key]


def test_without_the_broker_the_process_counts_by_itself(
    embedded: Embedded, fresh_database: str, tmp_path: Path
) -> None:
    gone = f"redis+socket://{tmp_path}/gone.sock?virtual_host=0"
    with configured(embedded, fresh_database, BROKER_URL=gone) as service:
        assert statuses(service, NAMES + 1, name="app") == [401] * NAMES + [429]


def test_a_broker_that_hangs_is_asked_once_in_a_while(embedded: Embedded, fresh_database: str) -> None:
    asked: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=_accept, args=(silent, asked), daemon=True).start()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with configured(embedded, fresh_database, BROKER_URL=url) as service:
            assert statuses(service, 5, name="app") == [401] * 5
    assert len(asked) == 1


def _accept(silent: socket.socket, asked: list[socket.socket]) -> None:
    try:
        while True:
            asked.append(silent.accept()[0])
    except OSError:
        return


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        ("0", "203.0.113.9", "192.0.2.1"),
        ("1", "203.0.113.9", "203.0.113.9"),
        ("1", "10.9.9.9, 203.0.113.9", "203.0.113.9"),
        ("2", "10.9.9.9, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
        ("2", "203.0.113.9", "192.0.2.1"),
    ],
)
def test_forwarded_addresses_are_believed_from_known_proxies_alone(
    embedded: Embedded, fresh_database: str, hops: str, forwarded: str, address: str
) -> None:
    with configured(embedded, fresh_database, KAIROS_PROXY_HOPS=hops) as service:
        seen: list[str | None] = []
        service.app.before_request(lambda: seen.append(login_limits.tries("x").address))
        service.app.test_client().get(
            "/running",
            headers={"X-Forwarded-For": forwarded},
            environ_base={"REMOTE_ADDR": "192.0.2.1"},
        )
        assert seen == [address]


@pytest.mark.parametrize(
    ("broker", "storage"),
    [
        ("redis://:pw@cache:6379/3", "redis://:pw@cache:6379/3"),
        ("rediss://cache:6380/0?ssl_cert_reqs=required", "rediss://cache:6380/0?ssl_cert_reqs=required"),
        ("redis+socket:///run/kairos/broker.sock?virtual_host=2", "unix:///run/kairos/broker.sock?db=2"),
        ("redis+socket:///run/broker.sock", "unix:///run/broker.sock?db=0"),
        ("redis+socket://user:pw@/run/broker.sock?virtual_host=1", "unix://user:pw@/run/broker.sock?db=1"),
    ],
)
def test_the_brokers_url_is_spelt_for_the_counts(broker: str, storage: str) -> None:
    assert login_limits.storage_url(broker) == storage
    redis.ConnectionPool.from_url(storage)
