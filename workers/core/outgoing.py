"""Calls of the service to others: only where the operator allows it, and bounded in time."""

import functools
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection

from models.core.deadline import Watch
from settings import settings

CONNECT_SECONDS, READ_SECONDS = 3.05, 10
TOTAL_SECONDS = 30.0  # for the whole answer, however steadily it drips
PRIVATE = "the host has a private address"
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # by NAT64, into the IPv4 address at the end
# global to the standard library: addresses of one site, and those that lead to an IPv4 address of any kind by
# ways that are given up (compatible, translated, 6to4) or a site's own (NAT64 of RFC 8215)
NOT_OUTSIDE = tuple(
    map(ipaddress.IPv6Network, ("fec0::/10", "::/96", "::ffff:0:0:0/96", "2002::/16", "64:ff9b:1::/48"))
)


class NotAllowed(Exception):
    """An address that the operator did not name, or that is not safe; the message says why."""


def post(url: str, headers: Mapping[str, str], **content: Any) -> requests.Response:
    """POST `json` or `data`; the answer's head, within the bounds of time. Nobody is redirected elsewhere.

    Of its body nothing has been read, and `seconds_left` is how long that may take. Raises NotAllowed and
    requests.RequestException.
    """
    _check(url)
    session = _session()
    asked = session.prepare_request(requests.Request("POST", url, dict(headers), **content))
    limits = (CONNECT_SECONDS, READ_SECONDS)
    proxies = get_environ_proxies(url)  # none where no_proxy names the host
    return session.send(asked, timeout=limits, allow_redirects=False, stream=True, proxies=proxies)


def seconds_left(response: requests.Response) -> float:
    """How long its body may take."""
    return TOTAL_SECONDS - response.elapsed.total_seconds()


@contextmanager
def connection(host: str, port: int) -> Iterator[socket.socket]:
    """A connection for a conversation that is not HTTP, shut down where the block takes too long with it.

    Raises OSError; where it took too long, TimeoutError.
    """
    # what is watched is a second handle: TLS takes the first one over
    with socket.create_connection((host, port), CONNECT_SECONDS) as link, link.dup() as same, _cut_off(same):
        link.settimeout(READ_SECONDS)
        yield link


def _check(url: str) -> None:
    """Only hosts that the operator named, and in production only TLS."""
    target = urlsplit(url)
    allowed = settings().outgoing_hosts
    if target.hostname not in allowed and target.netloc not in allowed:
        raise NotAllowed("the host is not in KAIROS_OUTGOING_HOSTS")
    if settings().mode == "production" and target.scheme != "https":
        raise NotAllowed("it must be asked over https")
    if not settings().outgoing_private and _leads_inside(target.hostname or "", target.port):
        raise NotAllowed(PRIVATE)


def _leads_inside(host: str, port: int | None) -> bool:
    """Whether any address of a host is not a public one. A name that cannot be resolved leads nowhere."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_inside(address) for *_, address in found)


def _is_inside(address: Sequence[Any]) -> bool:
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in NOT_OUTSIDE):
            return True
        carried = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in TRANSLATED else None
        found = found.ipv4_mapped or carried or found
    return not found.is_global or found.is_multicast


@functools.cache
def _session() -> requests.Session:
    """Connections that are kept between calls. No netrc file has a say in what is sent, and no answer: one
    participant's cookie would go out with the request for another, whose study may be another too.
    """
    made = _Session()
    made.trust_env = False
    made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter())
    return made


class _Session(requests.Session):
    """Sees no redirect in any answer: to prepare for following one, also where it is not to be followed,
    requests reads the whole body, beyond every bound, and Location in whatever bytes it came.
    """

    def get_redirect_target(self, _resp: requests.Response) -> None:
        """None."""


class _Adapter(HTTPAdapter):
    """Makes connections of the two classes below."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool of connections for a request."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _OverTLS if pool.scheme == "https" else _Plain
        return pool


class _Plain(HTTPConnection):
    """To an address that is checked once connected. A time limit of each read does not end a head that drips:
    this does.
    """

    def _new_conn(self) -> socket.socket:
        """Connected to a public address, however the name was resolved the second time. Raises NotAllowed."""
        link = super()._new_conn()
        if not (self.proxy or settings().outgoing_private) and _is_inside(link.getpeername()):
            link.close()
            raise NotAllowed(PRIVATE)
        return link

    def getresponse(self) -> Any:
        """The head of the answer. Raises TimeoutError."""
        with _cut_off(self.sock):
            return super().getresponse()


class _OverTLS(_Plain, HTTPSConnection):
    """The same over TLS."""


@contextmanager
def _cut_off(connected: Any) -> Iterator[None]:
    """Shut a connection down where the block takes too long with it. Raises TimeoutError."""
    watch, key = _watch(os.getpid(), TOTAL_SECONDS), id(connected)
    watch.begin(key, connected)
    try:
        yield
    except Exception:
        if watch.end(key):
            raise
        raise TimeoutError from None
    if not watch.end(key):
        raise TimeoutError


@functools.cache
def _watch(_process: int, seconds: float) -> Watch:
    """The one of this process: threads are not inherited."""
    return Watch(seconds)
