"""Prepared messages and send_frame_nowait."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from websockets.trio.server import ServerConnection, serve

from tests.connection.raw_server import MakeTransport, every_transport
from tests.hooks.helpers import Scripted, linked, read_frames
from trioglock import (
    Close,
    ConnectionClosed,
    InvalidFrame,
    MemoryTransport,
    Ping,
    PreparedMessage,
    Reply,
    Socket,
    TrioWebsocketTransport,
    connect,
)


@pytest.mark.parametrize("message", ["text", "\N{SNOWMAN}", b"\0binary", bytearray(b"copied"), ""])
@pytest.mark.parametrize("compression", ["deflate", None])
@every_transport
async def test_a_prepared_message_arrives(
    transport: MakeTransport, compression: Any, message: Any
) -> None:
    """On both transports, between other messages, with and without compression."""

    async def echo(ws: ServerConnection) -> None:
        async for got in ws:
            await ws.send(got)

    if transport is TrioWebsocketTransport:
        compression = None
    prepared = PreparedMessage(message)
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
            port = server.listeners[0].socket.getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            async with connect(url, transport=transport(), compression=compression) as conn:
                await conn.send("before")
                await conn.send(prepared)
                conn.send_frame_nowait(prepared)
                await conn.send_frame(prepared)
                await conn.send("after")
                got = [await conn.receive() for _ in range(5)]
            nursery.cancel_scope.cancel()
    held = message if isinstance(message, str) else bytes(message)
    assert got == ["before", held, held, held, "after"]


TYPES = "a data message must be str or bytes-like, not"


@pytest.mark.parametrize(
    ("message", "text"),
    [(3, TYPES), (None, TYPES), (["x"], TYPES), (Ping(), TYPES), ("\ud800", "surrogate")],
)
def test_only_data_can_be_prepared(message: Any, text: str) -> None:
    """Other types, and text that UTF-8 cannot encode, raise."""
    with pytest.raises(ValueError, match=text):
        PreparedMessage(message)


async def test_hooks_reply_prepared_messages(autojump_clock: MockClock) -> None:
    """In a Reply, and as the result of handle_send."""
    prepared = PreparedMessage("same for all")
    async with linked(Scripted(handle_receive=Reply(prepared), handle_send=prepared)) as (
        conn,
        far,
    ):
        await far.write(["x"])
        assert await read_frames(far) == ["same for all"]
        await conn.send("anything")
        assert await read_frames(far) == ["same for all"]
        assert conn.statistics().messages_sent == 2


async def test_unsent_contains_the_message_itself(autojump_clock: MockClock) -> None:
    """Unsent and in_doubt do not contain PreparedMessage objects."""
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


async def test_send_frame_nowait_skips_handle_send(autojump_clock: MockClock) -> None:
    """Also for control frames and Close."""
    socket = Scripted()
    async with linked(socket) as (conn, far):
        conn.send_frame_nowait("as it is")
        conn.send_frame_nowait(Ping(b"1"))
        conn.send_frame_nowait(Close(4000))
        assert await read_frames(far) == ["as it is", Ping(b"1"), Close(4000)]
        assert socket.count("handle_send") == 0
        with pytest.raises(ConnectionClosed):
            conn.send_frame_nowait("late")


async def test_send_frame_nowait_would_block(autojump_clock: MockClock) -> None:
    """It raises at a full send queue and queues nothing."""
    async with linked(write_limit=4) as (conn, far):
        conn.send_frame_nowait("on the spot")
        conn.send_frame_nowait("full")
        with pytest.raises(trio.WouldBlock):
            conn.send_frame_nowait("x")
        assert await read_frames(far) == ["on the spot", "full"]


async def test_send_frame_nowait_checks_the_frame(autojump_clock: MockClock) -> None:
    """InvalidFrame is raised at the call."""
    async with linked() as (conn, _):
        with pytest.raises(
            InvalidFrame, match="a frame must be str, bytes-like, PreparedMessage, Ping"
        ):
            conn.send_frame_nowait(3)  # type: ignore[arg-type]


async def test_hooks_may_send_frames_without_waiting(autojump_clock: MockClock) -> None:
    """Replies of the hook are sent after them."""

    class Both(Socket[Any]):
        def init_stream(self, info: Any) -> Any:
            return info.connection

        def handle_receive(self, frame: Any, state: Any) -> Any:
            state.send_frame_nowait("first")
            return Reply("second"), state

    async with linked(Both()) as (_, far):
        await far.write(["x"])
        assert await read_frames(far) == ["first", "second"]


async def test_immediate(autojump_clock: MockClock) -> None:
    """The frame is written before the call returns; others wait for the writer task."""
    async with linked() as (conn, _):
        conn.send_frame_nowait("the first leaves on the spot anyhow")
        conn.send_frame_nowait("at once", immediate=True)
        assert conn.statistics().messages_sent == 2
        conn.send_frame_nowait("waits")
        assert conn.statistics().messages_sent == 2
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().messages_sent == 3
