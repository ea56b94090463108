"""Helpers for tests of Phoenix: a connected socket, and servers that follow a script of frames."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import trio
from trio.testing import MockClock

from trioglock import NativeTransport, Transport, TrioWebsocketTransport
from trioglock.channels import Channel
from trioglock.protocols import phoenix
from trioglock.testing import MockPeer, MockPhoenixServer, MockServer

KINDS = ["memory", "native", "trio-websocket"]
"""In memory, and both transports on real sockets."""

TEST_TIMEOUT = 10

Step = tuple[str, str | bytes]
Log = list[tuple[Any, ...]]


class Recorder(phoenix.ChannelClient[Log]):
    """Records the events. Casts and calls are functions, called with the transport."""

    def init(self) -> Log:
        return []

    def handle_connected(self, transport: Any, state: Log) -> Any:
        return None, [*state, ("connected",)]

    async def handle_disconnected(self, reason: Any, state: Log) -> Any:
        await trio.lowlevel.checkpoint()
        return None, [*state, ("disconnected", type(reason))]

    def handle_joined(self, topic: str, response: Any, transport: Any, state: Log) -> Any:
        return None, [*state, ("joined", topic, response)]

    def handle_join_error(self, topic: str, response: Any, transport: Any, state: Log) -> Any:
        return None, [*state, ("join error", topic, response)]

    def handle_channel_closed(self, topic: str, payload: Any, transport: Any, state: Log) -> Any:
        return None, [*state, ("closed", topic, payload)]

    async def handle_message(
        self, topic: str, event: str, payload: Any, transport: Any, state: Log
    ) -> Any:
        await trio.lowlevel.checkpoint()
        return None, [*state, ("message", topic, event, payload)]

    def handle_reply(self, topic: str, ref: str, reply: Any, transport: Any, state: Log) -> Any:
        return None, [*state, ("reply", topic, ref, reply.status, reply.response)]

    def handle_timeout(self, topic: str, ref: str, transport: Any, state: Log) -> Any:
        return None, [*state, ("timeout", topic, ref)]

    def handle_cast(self, message: Any, transport: Any, state: Log) -> Any:
        return message(transport), [*state, ("cast",)]

    def handle_call(self, request: Any, transport: Any, state: Log) -> Any:
        return request(transport), state


async def until(handle: phoenix.ClientHandle[Any], what: str, times: int = 1) -> None:
    """Wait for an event in the log."""
    while [entry[0] for entry in handle.state].count(what) < times:
        await trio.sleep(0.01)


def transport_of(kind: str) -> Transport:
    return TrioWebsocketTransport() if kind == "trio-websocket" else NativeTransport()


@asynccontextmanager
async def connected(
    channels: Mapping[str, type[Channel[Any]]] | None = None,
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
