"""Calls to servers of others: only to those that the operator allows, and bounded in time."""

import functools
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 translates it to the IPv4 address in its last bits
# The standard library calls these global. They are the addresses of one site, and addresses that lead to an
# IPv4 address of any kind: by ways that are given up (compatible, translated, 6to4) or by a site's own (NAT64
# of RFC 8215).
NOT_OUTSIDE = tuple(
    map(ipaddress.IPv6Network, ("fec0::/10", "::/96", "::ffff:0:0:0/96", "2002::/16", "64:ff9b:1::/48"))
)


class NotAllowed(Exception):
    """The refusal to call an address that the operator did not name or that is not safe; it says why."""


def post(url: str, headers: Mapping[str, str], **content: Any) -> requests.Response:
    """POST `json` or `data` to an allowed address, and return the answer with its body still unread.

    1. The address is checked: the operator has named the host; in production the scheme is https; and, unless
       the settings allow it, no address of the host is a private one.
    2. The request is sent. No redirect is followed; the answer's head must arrive within the time limits.

    The body may take `seconds_left`. Raises NotAllowed and requests.RequestException.
    """
    target = urlsplit(url)
    allowed_hosts = settings().outgoing_hosts
    if target.hostname not in allowed_hosts and target.netloc not in allowed_hosts:
        raise NotAllowed("the host is not in KAIROS_OUTGOING_HOSTS")
    if settings().mode == "production" and target.scheme != "https":
        raise NotAllowed("it must be asked over https")
    if not settings().outgoing_private:
        with suppress(OSError, UnicodeError):  # a name that cannot be resolved leads nowhere
            addresses = socket.getaddrinfo(target.hostname or "", target.port or 443, type=socket.SOCK_STREAM)
            if any(_is_inside(address) for *_, address in addresses):
                raise NotAllowed(PRIVATE)
    session = http_session()
    request = session.prepare_request(requests.Request("POST", url, dict(headers), **content))
    limits = (CONNECT_SECONDS, READ_SECONDS)
    proxies = get_environ_proxies(url)  # none where no_proxy names the host
    return session.send(request, timeout=limits, allow_redirects=False, stream=True, proxies=proxies)


def seconds_left(response: requests.Response) -> float:
    """Return the seconds that the body of an answer may take."""
    return TOTAL_SECONDS - response.elapsed.total_seconds()


@contextmanager
def connection(host: str, port: int) -> Iterator[socket.socket]:
    """Open a connection for a protocol other than HTTP; it is shut down if the block takes too long.

    Raises OSError; after too long, TimeoutError.
    """
    # a second handle of the same connection is watched, since TLS takes the first one over
    with socket.create_connection((host, port), CONNECT_SECONDS) as link, link.dup() as same, _cut_off(same):
        link.settimeout(READ_SECONDS)
        yield link


def _is_inside(address: Sequence[Any]) -> bool:
    """Return whether a socket address, (host, port, ...), is not a public one."""
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])  # without the zone, as in fe80::1%eth0
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in NOT_OUTSIDE):
            return True
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in TRANSLATED else None
        ip = ip.ipv4_mapped or translated or ip
    return not ip.is_global or ip.is_multicast


@functools.cache
def http_session() -> requests.Session:
    """Return the HTTP session of this process, whose connections are kept between calls."""
    session = _Session()
    session.trust_env = False  # or a netrc file would add a password to what is sent
    # one participant's cookie would go out with the request for another, perhaps of another study
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


class _Session(requests.Session):
    """An HTTP session that sees no redirect in any answer."""

    def get_redirect_target(self, _resp: requests.Response) -> None:
        """Return None, whatever the answer says.

        Even where redirects are not followed, requests prepares for the next one: it reads the whole body,
        beyond every bound, and decodes the header Location, whatever its bytes are.
        """


class _Adapter(HTTPAdapter):
    """The maker of connections, of the two classes below."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool of connections for a request."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _OverTLS if pool.scheme == "https" else _Plain
        return pool


class _Plain(HTTPConnection):
    """A connection whose address is checked once more and whose answer's head has a time limit as a whole."""

    def _new_conn(self) -> socket.socket:
        """Connect, and check the address that was reached. Raises NotAllowed."""
        link = super()._new_conn()
        # the name was resolved a second time, and may have led elsewhere than when it was checked
        if not (self.proxy or settings().outgoing_private) and _is_inside(link.getpeername()):
            link.close()
            raise NotAllowed(PRIVATE)
        return link

    def getresponse(self) -> Any:
        """Read the head of the answer. Raises TimeoutError."""
        # the time limit of a single read never ends a head that comes byte by byte
        with _cut_off(self.sock):
            return super().getresponse()


class _OverTLS(_Plain, HTTPSConnection):
    """The same kind of connection over TLS."""


@contextmanager
def _cut_off(link: Any) -> Iterator[None]:
    """Shut a connection down if the block takes longer than TOTAL_SECONDS with it. Raises TimeoutError."""
    watch, key = _watch(os.getpid(), TOTAL_SECONDS), id(link)
    watch.begin(key, link)
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
    """Return the watch of this process: a child process inherits no threads."""
    return Watch(seconds)
