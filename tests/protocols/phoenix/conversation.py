"""Conversations as they were seen on the wire: a server that follows a script, line by line."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import trio
from trio.testing import MockClock

from trioglock import NativeTransport, Transport, TrioWebsocketTransport
from trioglock.protocols import phoenix
from trioglock.testing import MockPeer, MockServer

__all__ = ["KINDS", "Conversation", "Step", "conversation", "recv", "sent"]

KINDS = ["memory", "native", "trio-websocket"]
"""In memory, and both real transports on real sockets."""

SECONDS = 10

Step = tuple[str, str | bytes]


def sent(*frames: str | bytes) -> list[Step]:
    """Frames that the client must send now, exactly."""
    return [(">", frame) for frame in frames]


def recv(*frames: str | bytes) -> list[Step]:
    """Frames that the server sends now."""
    return [("<", frame) for frame in frames]


class Conversation(Protocol):
    def __call__(
        self, *links: Sequence[Step], **options: Any
    ) -> AbstractAsyncContextManager[phoenix.PhoenixSocket]:
        """A socket whose server follows one script for each connection."""


def transport_of(kind: str) -> Transport:
    return TrioWebsocketTransport() if kind == "trio-websocket" else NativeTransport()


def is_free() -> bool:
    """Whether time costs nothing."""
    return isinstance(trio.lowlevel.current_clock(), MockClock)


def conversation(kind: str) -> Conversation:
    """For one kind of transport."""

    @asynccontextmanager
    async def open_socket(
        *links: Sequence[Step], **options: Any
    ) -> AsyncIterator[phoenix.PhoenixSocket]:
        scripts = list(links)

        async def follow(peer: MockPeer) -> None:
            for what, frame in scripts.pop(0):
                match what:
                    case ">":
                        await peer.expect(frame)
                    case "<":
                        await peer.send(frame)
                    case "close":
                        await peer.close(int(frame))
                    case "kill":
                        await peer.abort()
            try:
                while True:
                    await peer.receive()
            except AssertionError:
                pass  # the client has closed

        memory = kind == "memory"
        async with MockServer(follow, memory=memory) as server:
            if memory:
                options["stream"] = server.open_stream
            else:
                options["transport"] = transport_of(kind)
            with trio.fail_after(math.inf if is_free() else SECONDS):
                async with phoenix.connect(f"{server.url}socket", **options) as socket:
                    yield socket
                    assert not scripts, "a connection that was expected never came"

    return open_socket
