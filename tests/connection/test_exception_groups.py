"""Exception groups, with scenarios that fail in other libraries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import URL, MakeTransport, RawPeer, every_transport, serving_peer
from tests.hooks.helpers import Scripted, UserError
from trioglock import (
    ConnectFailed,
    Connection,
    ConnectionClosedError,
    HandshakeRefused,
    TLSFailed,
    connect,
)


async def polite(peer: RawPeer) -> None:
    await peer.accept()
    await peer.text("hello")
    await peer.answer()


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
    transport: MakeTransport, hook: str, autojump_clock: MockClock
) -> None:
    """For every hook, the block raises the exception itself."""
    async with serving_peer(polite) as near:
        with pytest.raises(UserError, match=hook):
            async with connect(
                URL, Scripted(**{hook: UserError(hook)}), transport=transport(), stream=near
            ) as conn:
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


async def raise_closed(conn: Connection[None]) -> None:
    conn.abort()
    async for _ in conn:
        pass


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (raise_in_body, UserError),
        (raise_in_task, UserError),
        (raise_on_loss, UserError),
        (raise_closed, ConnectionClosedError),
    ],
)
@every_transport
async def test_the_exception_of_the_body_or_a_task_is_not_in_a_group(
    transport: MakeTransport,
    body: Callable[[Connection[None]], Awaitable[None]],
    error: type[Exception],
    autojump_clock: MockClock,
) -> None:
    """No group is added."""
    async with serving_peer(polite) as near:
        with pytest.raises(error):
            async with connect(URL, transport=transport(), stream=near) as conn:
                await body(conn)


@every_transport
async def test_a_connect_error_is_not_in_a_group(transport: MakeTransport) -> None:
    """Refused connections and handshakes and failed TLS raise a ConnectError."""

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await stream.receive_some()

    with trio.fail_after(300):
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
