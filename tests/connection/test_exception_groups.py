"""Exception groups, with scenarios that fail in other libraries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.raw_server import URL, MakeTransport, RawPeer, every_transport, unbounded
from tests.hooks.helpers import UserError
from trioglock import (
    ConnectFailed,
    Connection,
    ConnectionClosedError,
    ConnectionInfo,
    Disconnect,
    HandshakeRefused,
    Socket,
    TLSFailed,
    connect,
)

Clock = trio.testing.MockClock


class Fails(Socket[None]):
    """Raises in one hook."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def _fail(self, hook: str) -> None:
        if hook == self.hook:
            raise UserError(hook)

    def init_stream(self, info: ConnectionInfo) -> None:
        self._fail("init_stream")

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        self._fail("handle_connect")
        return None, state

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        self._fail("handle_receive")
        return frame, state

    async def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:
        self._fail("handle_cast")
        return None, state

    def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[None, None]:
        self._fail("handle_disconnect")
        return None, state

    def terminate(self, reason: Disconnect, state: None) -> None:
        self._fail("terminate")


@asynccontextmanager
async def polite_peer(*messages: str) -> AsyncIterator[trio.abc.Stream]:
    """The near end of a stream to a peer that says ``messages`` and behaves."""
    near, far = unbounded()
    peer = RawPeer(far)

    async def serve() -> None:
        await peer.accept()
        await peer.text(*messages)
        await peer.answer()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield near


HOOKS = [
    "init_stream",
    "handle_connect",
    "handle_receive",
    "handle_cast",
    "handle_disconnect",
    "terminate",
]


@pytest.mark.parametrize("hook", HOOKS)
@every_transport
async def test_the_exception_of_a_hook_is_not_in_a_group(
    transport: MakeTransport, hook: str, autojump_clock: Clock
) -> None:
    """For every hook, the block raises the exception itself."""
    async with polite_peer("hello") as near:
        with pytest.raises(UserError, match=hook):
            async with connect(URL, Fails(hook), transport=transport(), stream=near) as conn:
                conn.cast("note")
                if hook not in ("handle_disconnect", "terminate"):
                    await trio.sleep_forever()


async def raise_in_body(conn: Connection[None]) -> None:
    raise UserError("body")


async def raise_in_task(conn: Connection[None]) -> None:
    async def task() -> None:
        raise UserError("task")

    conn.start_soon(task)
    await trio.sleep_forever()


async def raise_on_loss(conn: Connection[None]) -> None:
    conn.abort()
    with pytest.raises(ConnectionClosedError):
        await conn.receive()
    raise UserError("after")


@pytest.mark.parametrize("body", [raise_in_body, raise_in_task, raise_on_loss])
@every_transport
async def test_the_exception_of_the_body_or_a_task_is_not_in_a_group(
    transport: MakeTransport,
    body: Callable[[Connection[None]], Awaitable[None]],
    autojump_clock: Clock,
) -> None:
    """No group is added."""
    async with polite_peer("hello") as near:
        with pytest.raises(UserError):
            async with connect(URL, transport=transport(), stream=near) as conn:
                await body(conn)


@every_transport
async def test_an_unhandled_connection_closed_is_not_in_a_group(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """The block raises the ConnectionClosedError itself."""
    near, far = unbounded()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.accept()
            await peer.drop()

        nursery.start_soon(serve)
        with pytest.raises(ConnectionClosedError):
            async with connect(URL, transport=transport(), stream=near) as conn:
                async for _ in conn:
                    pass


@every_transport
async def test_a_connect_error_is_not_in_a_group(transport: MakeTransport) -> None:
    """Refused connections and handshakes and failed TLS raise a ConnectError."""

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await stream.receive_some()

    with trio.fail_after(10):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}/"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, refuse, [listener])
            with pytest.raises(HandshakeRefused):
                async with connect(f"ws://{address}", transport=transport()):
                    pass
            with pytest.raises(TLSFailed):
                async with connect(f"wss://{address}", transport=transport()):
                    pass
            nursery.cancel_scope.cancel()
        with pytest.raises(ConnectFailed):
            async with connect(f"ws://{address}", transport=transport()):
                pass
