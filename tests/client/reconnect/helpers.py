"""Helpers for tests of reconnecting: a policy without jitter, a server in memory, a recorder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias, Unpack

import trio
import trio.testing

from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionInfo,
    ConnectOptions,
    Disconnect,
    HandshakeRefused,
    Headers,
    MemoryTransport,
    Socket,
    connect,
)
from trioglock.client.dialer import URLSource
from trioglock.testing import MemoryLink

__all__ = ["URL", "Clock", "Notes", "drop", "frames", "joined", "policy", "refusal", "remote_close"]

URL = "ws://memory.test/"
Clock: TypeAlias = trio.testing.MockClock


def policy(**settings: Any) -> Backoff:
    """A Backoff without jitter: 1, 2, 4, 8 seconds."""
    return Backoff(**{"initial": 1, "jitter": "none", **settings})


def refusal(status: int, **headers: str) -> HandshakeRefused:
    """A refusal; ``Retry_After="5"`` is a header of it."""
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return HandshakeRefused(status, Headers(pairs))


def joined(
    net: MemoryTransport,
    socket: Socket[Any, Any] | None = None,
    *,
    url: URLSource = URL,
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[Connection[Any, Any]]:
    """``connect()`` in memory that reconnects, without heartbeat, for a day at the most."""
    options.setdefault("reconnect", policy())
    options.setdefault("ping_interval", None)
    options["transport"] = net
    return _joined(url, socket or Socket(), options)


@asynccontextmanager
async def _joined(
    url: URLSource, socket: Socket[Any, Any], options: ConnectOptions
) -> AsyncIterator[Connection[Any, Any]]:
    with trio.fail_after(86_400):
        async with connect(url, socket, **options) as conn:
            yield conn


async def drop(far: MemoryLink) -> None:
    """The peer disconnects without a Close frame; all tasks have noticed it at the return."""
    await far.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def remote_close(far: MemoryLink, code: int, reason: str = "") -> None:
    """The peer closes, waits for the confirmation, and ends the stream."""
    await far.write([Close(code, reason)])
    while Close not in [type(event) for event in await far.receive()]:
        pass
    await drop(far)


async def frames(far: MemoryLink) -> list[Any]:
    """The frames that wait at the far end once all tasks are blocked."""
    await trio.testing.wait_all_tasks_blocked()
    found: list[Any] = []
    with trio.move_on_after(0.001):
        while events := await far.receive():
            for event in events:
                found.extend(event if isinstance(event, list) else [event])
    return found


class Notes(Socket[int]):
    """Counts received messages in its state, and records connections and ends."""

    def __init__(self) -> None:
        self.streams: list[ConnectionInfo] = []
        self.losses: list[Disconnect] = []
        self.ends: list[Disconnect] = []
        self.begun = 0

    def init_stream(self, info: ConnectionInfo) -> Any:
        self.begun += 1
        return 0

    def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
        self.streams.append(info)
        return None, state

    def handle_receive(self, frame: Any, state: int) -> Any:
        return frame, state + 1

    def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        self.losses.append(reason)
        return None, state

    def terminate(self, reason: Disconnect, state: int) -> None:
        self.ends.append(reason)
