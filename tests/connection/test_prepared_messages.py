"""Prepared messages, and sending past handle_send without waiting."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from websockets.trio.server import ServerConnection, serve

from tests.hooks.helpers import Scripted, linked, taken
from trioglock import (
    Close,
    ConnectionClosed,
    InvalidFrame,
    MemoryTransport,
    NativeTransport,
    Ping,
    PreparedMessage,
    Reply,
    Socket,
    TrioWebsocketTransport,
    connect,
)
from trioglock.transports import Transport


@pytest.mark.parametrize("message", ["text", "\N{SNOWMAN}", b"\0binary", bytearray(b"copied"), ""])
@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("plug", [NativeTransport, TrioWebsocketTransport])
async def test_a_prepared_message_arrives_as_what_it_holds(
    plug: type[Transport], compression: Any, message: Any
) -> None:
    """On both transports, between other messages, with and without compression."""

    async def echo(ws: ServerConnection) -> None:
        async for got in ws:
            await ws.send(got)

    if plug is TrioWebsocketTransport:
        compression = None
    prepared = PreparedMessage(message)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
            port = server.listeners[0].socket.getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            async with connect(url, transport=plug(), compression=compression) as conn:
                await conn.send("before")
                await conn.send(prepared)
                conn.send_frame_nowait(prepared)
                await conn.send_frame(prepared)
                await conn.send("after")
                got = [await conn.receive() for _ in range(5)]
            nursery.cancel_scope.cancel()
    held = message if isinstance(message, str) else bytes(message)
    assert got == ["before", held, held, held, "after"]


@pytest.mark.parametrize("message", [3, None, ["x"], Ping()])
def test_only_data_can_be_prepared(message: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match="a data message must be str or bytes-like, not"):
        PreparedMessage(message)


def test_a_lone_surrogate_cannot_be_prepared() -> None:
    """It has no UTF-8."""
    with pytest.raises(ValueError, match="surrogate"):
        PreparedMessage("\ud800")


async def test_hooks_reply_prepared_messages(autojump_clock: MockClock) -> None:
    """In a Reply, and as what handle_send returns."""
    prepared = PreparedMessage("same for all")
    async with linked(Scripted(handle_receive=Reply(prepared), handle_send=prepared)) as (
        conn,
        far,
    ):
        await far.write(["x"])
        assert await taken(far) == ["same for all"]
        await conn.send("anything")
        assert await taken(far) == ["same for all"]
        assert conn.statistics().messages_sent == 2


async def test_unsent_tells_the_message_itself(autojump_clock: MockClock) -> None:
    """Not the PreparedMessage around it; nor does in_doubt."""
    net = MemoryTransport(capacity=0)
    async with connect("ws://memory.test/", transport=net, ping_interval=None) as conn:
        far = await net.accept()
        conn.send_frame_nowait(PreparedMessage("in doubt"))
        conn.send_frame_nowait(PreparedMessage(b"unsent"))
        await far.aclose()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed) as caught:
            await conn.send("x")
    assert (caught.value.in_doubt, caught.value.unsent) == (("in doubt",), (b"unsent",))


async def test_send_frame_nowait_passes_handle_send_by(autojump_clock: MockClock) -> None:
    """Also for control frames and Close."""
    socket = Scripted()
    async with linked(socket) as (conn, far):
        conn.send_frame_nowait("as it is")
        conn.send_frame_nowait(Ping(b"1"))
        conn.send_frame_nowait(Close(4000))
        assert await taken(far) == ["as it is", Ping(b"1"), Close(4000)]
        assert socket.ran("handle_send") == 0
        with pytest.raises(ConnectionClosed):
            conn.send_frame_nowait("late")


async def test_send_frame_nowait_would_block(autojump_clock: MockClock) -> None:
    """When the send queue is full; nothing of the frame is queued."""
    async with linked(write_limit=4) as (conn, far):
        conn.send_frame_nowait("on the spot")
        conn.send_frame_nowait("full")
        with pytest.raises(trio.WouldBlock):
            conn.send_frame_nowait("x")
        assert await taken(far) == ["on the spot", "full"]


async def test_send_frame_nowait_refuses_what_is_no_frame(autojump_clock: MockClock) -> None:
    """At the call."""
    async with linked() as (conn, _):
        with pytest.raises(
            InvalidFrame, match="a frame must be str, bytes-like, PreparedMessage, Ping"
        ):
            conn.send_frame_nowait(3)  # type: ignore[arg-type]


async def test_hooks_may_send_frames_without_waiting(autojump_clock: MockClock) -> None:
    """From inside, by their handle; what they reply comes behind it."""

    class Both(Socket[Any]):
        def init_stream(self, info: Any) -> Any:
            return info.connection

        def handle_receive(self, frame: Any, state: Any) -> Any:
            state.send_frame_nowait("first")
            return Reply("second"), state

    async with linked(Both()) as (_, far):
        await far.write(["x"])
        assert await taken(far) == ["first", "second"]


async def test_at_once_leaves_in_this_very_step(autojump_clock: MockClock) -> None:
    """Others wait to leave together once the writer's task has had its turn."""
    async with linked() as (conn, _):
        conn.send_frame_nowait("the first leaves on the spot anyhow")
        conn.send_frame_nowait("at once", immediate=True)
        assert conn.statistics().messages_sent == 2
        conn.send_frame_nowait("waits")
        assert conn.statistics().messages_sent == 2
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().messages_sent == 3
