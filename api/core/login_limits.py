"""How often one name and one address may try to register or to log in. Checked before anything is hashed.

The counts live in the broker's server, so that all processes share them. While it is away each process counts
by itself.
"""

import functools
import hashlib
import ipaddress
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from flask import request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from structlog import get_logger

from services.core.faults import CoreFault
from services.core.refusals import Refusal
from settings import settings

OF_A_NAME = RateLimitItemPerMinute(10, 5, namespace="kairos")  # ten in five minutes
OF_AN_ADDRESS = RateLimitItemPerMinute(50, 5, namespace="kairos")
PAUSE_SECONDS = 5.0  # after a failure: a server that hangs must not slow every login down
TIMEOUT_SECONDS = 0.5
AWAY = (RedisError, OSError)
log = get_logger()
_away_until = 0.0


class Tries(NamedTuple):
    """The tries of one name from one address at one route."""

    route: str
    name: str
    address: str

    @property
    def _of_name(self) -> tuple[RateLimitItem, str]:
        return OF_A_NAME, self._key("name", self.name)

    @property
    def _of_address(self) -> tuple[RateLimitItem, str]:
        return OF_AN_ADDRESS, self._key("address", self.address)

    def _key(self, kind: str, value: str) -> str:
        """Where this is counted; nothing can be read back from it."""
        return hashlib.sha256(f"{self.route} {kind} {value}".encode()).hexdigest()

    def spend(self) -> None:
        """Take one more. Raises Refusal where name or address has had its share."""
        for limit, key in (self._of_address, self._of_name):
            wait = _hit(limit, key)
            if wait is not None:
                raise Refusal(CoreFault.TOO_MANY, retry_after=wait)

    def give_back(self) -> None:
        """After a call that failed for another reason than what it told: an outage must lock nobody out."""
        for limit, key in (self._of_address, self._of_name):
            _hit(limit, key, cost=-1)

    def forget(self) -> None:
        """After a success: what is limited are failures, so the name starts anew.

        The address gets this one try back, not all: an account of one's own would give new tries at those
        of others.
        """
        _clear(*self._of_name)
        _hit(*self._of_address, cost=-1)


@contextmanager
def one_try(name: str) -> Iterator[None]:
    """The block is a try of `name`; only a refusal of what it told uses it up. Raises Refusal before it."""
    taken = tries(name)
    taken.spend()
    try:
        yield
    except Exception as error:
        if not isinstance(error, Refusal) or error.fault is CoreFault.TOO_MANY:
            taken.give_back()
        raise
    taken.forget()


def tries(name: str) -> Tries:
    """Those of `name` from the address of this request, at its route."""
    return Tries(request.path, name, _network(request.remote_addr or ""))


def _network(address: str) -> str:
    """The address; of an IPv6 address its /64, all of which belongs to one subscriber."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else address


def storage_url(broker_url: str) -> str:
    """The broker's URL as redis-py spells it: redis+socket:///path?virtual_host=2 is unix:///path?db=2."""
    url = urlsplit(broker_url)
    if url.scheme != "redis+socket":
        return broker_url
    query = parse_qs(url.query)
    number = query.get("virtual_host", query.get("db", ["0"]))[0]
    login, separator, _ = url.netloc.rpartition("@")
    return f"unix://{login}{separator}{url.path}?db={number}"


@functools.cache
def _shared() -> FixedWindowRateLimiter:
    pool = ConnectionPool.from_url(
        storage_url(settings().broker_url),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return FixedWindowRateLimiter(RedisStorage("redis://", connection_pool=pool))


@functools.cache
def _own() -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(MemoryStorage())


def _hit(limit: RateLimitItem, key: str, cost: int = 1) -> int | None:
    """None where one more is allowed, else the seconds to wait."""
    if time.monotonic() >= _away_until:
        try:
            return _hit_in(_shared(), limit, key, cost)
        except AWAY as error:
            _rest(error)
    return _hit_in(_own(), limit, key, cost)


def _hit_in(counts: FixedWindowRateLimiter, limit: RateLimitItem, key: str, cost: int) -> int | None:
    if counts.hit(limit, key, cost=cost):
        return None
    return max(1, math.ceil(counts.get_window_stats(limit, key).reset_time - time.time()))


def _clear(limit: RateLimitItem, key: str) -> None:
    _own().clear(limit, key)
    if time.monotonic() >= _away_until:
        try:
            _shared().clear(limit, key)
        except AWAY as error:
            _rest(error)


def _rest(error: Exception) -> None:
    global _away_until
    _away_until = time.monotonic() + PAUSE_SECONDS
    log.warning("login limits are counted in this process", error=type(error).__name__)
