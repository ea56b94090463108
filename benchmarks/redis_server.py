"""A Redis server on a free port."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shutil import which
from typing import Any

import redis

__all__ = ["RedisServer", "check_redis", "redis_server"]

SECONDS_TO_START = 10.0


@dataclass(frozen=True)
class RedisServer:
    """A running server.

    Args:
        url: its URL.
        client: a connection to it.
    """

    url: str
    client: Any

    def usage(self) -> float:
        """Return the CPU time that it has used, in seconds."""
        used: dict[str, float] = self.client.info("cpu")
        return used["used_cpu_user"] + used["used_cpu_sys"]


def check_redis() -> None:
    """Raise ImportError if there is no redis-server on this machine."""
    if which("redis-server") is None:
        raise ImportError("there is no redis-server on this machine")


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run a server during the block."""
    executable = which("redis-server")
    assert executable is not None
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        options = ("--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        process = subprocess.Popen((executable, *options), stdout=subprocess.DEVNULL, cwd=folder)
        try:
            url = f"redis://127.0.0.1:{port}"
            client = redis.Redis.from_url(url)
            _wait_ready(client)
            yield RedisServer(url, client)
        finally:
            process.kill()
            process.wait()


def _wait_ready(client: Any) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
