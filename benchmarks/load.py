"""A load generator that costs little itself: prepared bytes over kept connections, in its own processes."""

import functools
import multiprocessing
import multiprocessing.pool
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

PROCESSES = 2


@dataclass(frozen=True)
class Load:
    """The result of a run: its seconds, and each request's start, latency in seconds and HTTP status."""

    seconds: float
    began: list[float]
    latencies: list[float]
    statuses: list[int]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency in milliseconds below which `share` of the requests lie."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post(path: str, body: bytes, token: str = "") -> bytes:
    """Return the bytes of a POST request."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{authorization}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@functools.cache
def _pool() -> "multiprocessing.pool.Pool":
    """Return the processes that send, which are started once."""
    # spawned, not forked: a fork would copy whatever locks the threads of this process hold
    return multiprocessing.get_context("spawn").Pool(PROCESSES)


def run(url: str, requests: Sequence[bytes], concurrency: int, processes: int = PROCESSES) -> Load:
    """Send every request once, `concurrency` at a time, over `processes` of our own."""
    processes = min(processes, concurrency)
    shares = [(url, requests[part::processes], concurrency // processes) for part in range(processes)]
    pool = _pool()
    began = time.perf_counter()
    results = pool.starmap(_share, shares, chunksize=1)
    seconds = time.perf_counter() - began
    starts, latencies, statuses = zip(*(request for share in results for request in share), strict=True)
    return Load(seconds, list(starts), list(latencies), list(statuses))


def _share(url: str, requests: Sequence[bytes], threads: int) -> list[tuple[float, float, int]]:
    """Send one process's share of the requests; return start, latency and status of each."""
    # One queue for all connections, since a server's processes do not get equally many of them.
    measured: list[tuple[float, float, int]] = []
    waiting = iter(requests)  # next() of a sequence's iterator is one step for all threads
    workers = [threading.Thread(target=_connection, args=(url, waiting, measured)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return measured


def _connection(url: str, waiting: Iterator[bytes], measured: list[tuple[float, float, int]]) -> None:
    """Send waiting requests over one connection until none is left."""
    target = urlsplit(url)
    with socket.create_connection((target.hostname, target.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in waiting:
            began = time.perf_counter()
            connection.sendall(request)
            received = connection.recv(65536)
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            while len(body) < length:
                body += connection.recv(65536)
            measured.append((began, time.perf_counter() - began, int(head[9:12])))  # HTTP/1.1 STATUS ...
