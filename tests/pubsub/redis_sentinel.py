"""A master, its replica and three sentinels for tests, started on free ports."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.pubsub.redis_server import SECONDS, RealRedis, real_redis

__all__ = ["RealSentinels", "real_sentinel", "real_sentinels"]


class RealSentinels:
    """Sentinels that watch over a master named ``mymaster``."""

    def __init__(self, servers: list[RealRedis], sentinels: list[RealRedis]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster"

    def ask(self, command: str, *arguments: str) -> list[str]:
        """Send a command to each sentinel."""
        text = " ".join(("SENTINEL", command, "mymaster", *arguments))
        return [one.ask(text) for one in self.sentinels]

    def set_down_after(self, milliseconds: int) -> None:
        """Set how long the master may be silent before a failover."""
        for reply in self.ask("SET", "down-after-milliseconds", str(milliseconds)):
            assert reply.startswith("+"), reply

    def is_master(self, server: RealRedis) -> bool:
        """Whether all sentinels report a server as the master."""
        replies = self.ask("GET-MASTER-ADDR-BY-NAME")
        return all(f"\r\n{server.port}\r\n" in reply for reply in replies)

    def roles(self) -> tuple[RealRedis, RealRedis]:
        """The server that is the master now, and the other one."""
        first, second = self.servers
        return (first, second) if self.is_master(first) else (second, first)

    def wait_ready(self) -> None:
        """Wait until a failover is possible."""
        deadline = time.monotonic() + SECONDS
        while not all(
            "num-slaves\r\n$1\r\n1" in reply and "num-other-sentinels\r\n$1\r\n2" in reply
            for reply in self.ask("MASTER")
        ):
            assert time.monotonic() < deadline, "the sentinels do not find each other"
            time.sleep(0.05)


@contextmanager
def real_sentinel(folder: Path, port: int, *options: str) -> Iterator[RealRedis]:
    """Run a sentinel that watches over the master on a port.

    Args:
        folder: a folder for its configuration.
        port: the port of the master.
        options: lines of the configuration, such as ``requirepass x``.
    """
    lines = (
        f"sentinel monitor mymaster 127.0.0.1 {port} 2",
        "sentinel down-after-milliseconds mymaster 3000",
        "sentinel failover-timeout mymaster 3000",
        *options,
    )
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".conf", delete=False) as file:
        file.write("\n".join(lines))
    with real_redis("--sentinel", configuration=Path(file.name)) as sentinel:
        yield sentinel


@contextmanager
def real_sentinels(folder: Path) -> Iterator[RealSentinels]:
    """Run all servers for the duration of a block; see :func:`real_sentinel`."""
    fast = ("--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        master, replica = (stack.enter_context(real_redis(*fast)) for _ in range(2))
        replica.follow(master)
        sentinels = [stack.enter_context(real_sentinel(folder, master.port)) for _ in range(3)]
        group = RealSentinels([master, replica], sentinels)
        group.wait_ready()
        yield group
