"""Helpers for tests of Phoenix: a connected socket, and servers that follow a script of frames."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import trio
from trio.testing import MockClock

from trioglock import NativeTransport, Transport, TrioWebsocketTransport
from trioglock.protocols import phoenix
from trioglock.testing import MockPeer, MockPhoenixChannel, MockPhoenixServer, MockServer

KINDS = ["memory", "native", "trio-websocket"]
"""In memory, and both transports on real sockets."""

TEST_TIMEOUT = 10

Step = tuple[str, str | bytes]


def transport_of(kind: str) -> Transport:
    return TrioWebsocketTransport() if kind == "trio-websocket" else NativeTransport()


@asynccontextmanager
async def connected(
    channels: Mapping[str, type[MockPhoenixChannel]] | None = None,
    *,
    server_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[MockPhoenixServer, phoenix.PhoenixSocket]]:
    """A mock server in memory, and a socket that is connected to it."""
    async with (
        MockPhoenixServer(channels, memory=True, **(server_options or {})) as server,
        phoenix.connect(server.url, stream=server.open_stream, **options) as socket,
    ):
        yield server, socket


def sent(*frames: str | bytes) -> list[Step]:
    """Frames that the client must send, exactly."""
    return [(">", frame) for frame in frames]


def recv(*frames: str | bytes) -> list[Step]:
    """Frames that the server sends."""
    return [("<", frame) for frame in frames]


JOIN = sent('["1","1","room:1","phx_join",{}]')
JOINED = recv('["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]')


class Scripted(Protocol):
    def __call__(
        self, *scripts: Sequence[Step], **options: Any
    ) -> AbstractAsyncContextManager[phoenix.PhoenixSocket]:
        """A socket whose server follows one script for each connection."""


def scripted_server(kind: str) -> Scripted:
    """Scripted servers for one kind of transport."""

    @asynccontextmanager
    async def connect(
        *scripts: Sequence[Step], **options: Any
    ) -> AsyncIterator[phoenix.PhoenixSocket]:
        remaining = list(scripts)

        async def follow(peer: MockPeer) -> None:
            for what, frame in remaining.pop(0):
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

        has_mock_clock = isinstance(trio.lowlevel.current_clock(), MockClock)
        async with MockServer(follow, memory=kind == "memory") as server:
            if kind == "memory":
                options["stream"] = server.open_stream
            else:
                options["transport"] = transport_of(kind)
            with trio.fail_after(math.inf if has_mock_clock else TEST_TIMEOUT):
                async with phoenix.connect(f"{server.url}socket", **options) as socket:
                    yield socket
                    assert not remaining, "an expected connection was not made"

    return connect


@asynccontextmanager
async def joined(
    scripted: Scripted, script: Sequence[Step], **options: Any
) -> AsyncIterator[tuple[phoenix.PhoenixSocket, phoenix.Channel]]:
    """A socket that has joined ``room:1``, and whose server then follows a script."""
    async with scripted([*JOIN, *JOINED, *script], **options) as socket:
        yield socket, await socket.join("room:1")
