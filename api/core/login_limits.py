"""Login limits: how often one name and one address may try to register or log in, checked before any hashing.

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
        """Return the key under which this is counted; no name or address can be read back from it."""
        return hashlib.sha256(f"{self.route} {kind} {value}".encode()).hexdigest()

    def spend(self) -> None:
        """Count one more try. Raises Refusal where name or address has used up its tries."""
        for limit, key in (self._of_address, self._of_name):
            seconds = _hit(limit, key)
            if seconds is not None:
                raise Refusal(CoreFault.TOO_MANY, retry_after=seconds)

    def give_back(self) -> None:
        """Give back the try of a call that failed for no fault of its own: an outage must lock nobody out."""
        for limit, key in (self._of_address, self._of_name):
            _hit(limit, key, cost=-1)

    def forget(self) -> None:
        """Let the name start anew after a success: what is limited are failures."""
        limit, key = self._of_name
        _own().clear(limit, key)
        if time.monotonic() >= _away_until:
            try:
                _shared().clear(limit, key)
            except AWAY as error:
                _rest(error)
        # the address gets back this try alone: with an account of one's own one could otherwise go on
        # trying the accounts of others
        _hit(*self._of_address, cost=-1)


@contextmanager
def one_try(name: str) -> Iterator[None]:
    """Count the block as a try of `name`, which a refusal by the block uses up. Raises Refusal before it.

    A crowd of logins (TOO_MANY) or a failure of the service gives the try back.
    """
    tries_of_name = tries(name)
    tries_of_name.spend()
    try:
        yield
    except Exception as error:
        if not isinstance(error, Refusal) or error.fault is CoreFault.TOO_MANY:
            tries_of_name.give_back()
        raise
    tries_of_name.forget()


def tries(name: str) -> Tries:
    """Return the tries of `name` from the address of this request, at its route."""
    address = request.remote_addr or ""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return Tries(request.path, name, address)
    if parsed.version == 6:  # a whole /64 belongs to one subscriber
        address = str(ipaddress.ip_network(f"{parsed}/64", strict=False))
    return Tries(request.path, name, address)


def storage_url(broker_url: str) -> str:
    """Return the broker's URL as redis-py spells it: redis+socket:///path?virtual_host=2 is unix:///path?db=2."""
    url = urlsplit(broker_url)
    if url.scheme != "redis+socket":
        return broker_url
    query = parse_qs(url.query)
    number = query.get("virtual_host", query.get("db", ["0"]))[0]
    login, separator, _ = url.netloc.rpartition("@")
    return f"unix://{login}{separator}{url.path}?db={number}"


@functools.cache
def _shared() -> FixedWindowRateLimiter:
    """Return the counts in the broker's server, which all processes share."""
    pool = ConnectionPool.from_url(
        storage_url(settings().broker_url),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return FixedWindowRateLimiter(RedisStorage("redis://", connection_pool=pool))


@functools.cache
def _own() -> FixedWindowRateLimiter:
    """Return the counts of this process, for the time in which the broker's server is away."""
    return FixedWindowRateLimiter(MemoryStorage())


def _hit(limit: RateLimitItem, key: str, cost: int = 1) -> int | None:
    """Count a try; return None where it is allowed, else the seconds to wait."""
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
    """Leave the broker's server alone for a while after an error."""
    global _away_until
    _away_until = time.monotonic() + PAUSE_SECONDS
    log.warning("login limits are counted in this process", error=type(error).__name__)
