"""Calls to servers of others: what is carried from one to the next, to which address and by which way."""

import socket
from typing import Any

import pytest
from requests.exceptions import ProxyError

from local.ports import free_port
from settings import settings
from tests.support.receivers import hook
from workers.core import outgoing
from workers.core.outgoing import NotAllowed


@pytest.mark.usefixtures("only_study")
def test_no_cookie_of_one_answer_goes_out_with_another_request() -> None:
    with hook() as receiver:
        receiver.headers = {"Set-Cookie": "session=of-the-first-one; Path=/"}
        for token in ("one", "another"):
            outgoing.post(receiver.url, {"Authorization": f"Bearer {token}"}, json={}).close()
    assert [headers["Authorization"] for headers, _ in receiver.got] == ["Bearer one", "Bearer another"]
    assert not any("Cookie" in headers for headers, _ in receiver.got)


@pytest.mark.usefixtures("only_study")
def test_hosts_that_no_proxy_names_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with hook() as receiver:
        with pytest.raises(ProxyError):
            outgoing.post(receiver.url, {}, json={})
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        outgoing.post(receiver.url, {}, json={}).close()
    assert len(receiver.got) == 1


@pytest.mark.usefixtures("only_study")
@pytest.mark.parametrize("proxied", [False, True], ids=["no proxy", "a proxy for others"])
def test_a_name_that_is_resolved_to_another_address_the_second_time_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    if proxied:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("no_proxy", "rebound.example")
    resolve, checked = socket.getaddrinfo, list[str]()

    def rebound(host: str, port: int, *rest: Any, **more: Any) -> Any:
        checked.append(host)
        return resolve("1.1.1.1" if len(checked) == 1 else "127.0.0.1", port, *rest, **more)

    with hook() as receiver:
        monkeypatch.setenv("KAIROS_OUTGOING_HOSTS", "rebound.example")
        monkeypatch.setenv("KAIROS_OUTGOING_PRIVATE", "false")
        settings.cache_clear()
        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        with pytest.raises(NotAllowed, match="private address"):
            outgoing.post(receiver.url.replace("127.0.0.1", "rebound.example"), {}, json={})
    assert checked == ["rebound.example"] * 2
    assert receiver.got == []


INSIDE = (
    *("127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"),
    *("::", "::1", "fe80::1%1", "fd00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:224.0.0.1"),
    *("::7f00:1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808"),
    *("2002:7f00:1::", "2001:0:7f00:1::"),
)


@pytest.mark.usefixtures("only_study")
@pytest.mark.parametrize("address", INSIDE)
def test_no_private_address_is_asked_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("KAIROS_OUTGOING_HOSTS", "named.example")
    monkeypatch.setenv("KAIROS_OUTGOING_PRIVATE", "false")
    settings.cache_clear()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, 443))])
    with pytest.raises(NotAllowed, match="private address"):
        outgoing.post("https://named.example/ema", {}, json={})


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_asked_also_through_a_translator(address: str) -> None:
    assert not outgoing._is_inside((address, 443))
