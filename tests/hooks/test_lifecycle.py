"""The first and the last hooks, and the reasons of an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import (
    URL,
    Scripted,
    both_styles,
    linked,
    read_frames,
    styled,
    trigger,
    wait_for_hooks,
)
from trioglock import (
    Aborted,
    Close,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    ConnectionInfo,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    Headers,
    HeartbeatTimeout,
    LocalClose,
    MemoryTransport,
    RemoteClose,
    Reply,
    Socket,
    connect,
)
from trioglock.testing import MemoryLink

# The first hooks.


@both_styles
async def test_connection_info(style: str, autojump_clock: MockClock) -> None:
    """It has url, headers, subprotocol, peer, attempt and connection."""
    socket = styled(Scripted, style)
    transport = MemoryTransport(subprotocol="v2")
    async with connect(
        "ws://user:secret@memory.test/path?q=1",
        socket,
        transport=transport,
        subprotocols=["v1", "v2"],
        additional_headers={"X-One": "1"},
        close_timeout=1,
        name="named",
    ) as conn:
        pass
    first, second = socket.calls[:2]
    assert (first.hook, second.hook) == ("init_stream", "handle_connect")
    assert second.what is first.what or second.what == first.what
    stream: ConnectionInfo = first.what
    assert stream.url == "ws://memory.test/path?q=1"
    assert stream.subprotocol == "v2"
    assert stream.request_headers == Headers({"X-One": "1"})
    assert stream.response_headers == Headers()
    assert stream.peer == "memory"
    assert stream.attempt == 1
    assert stream.connection is conn
    assert stream.connection.name == "named"
    assert stream.connection.url == stream.url


@both_styles
async def test_the_body_runs_after_handle_connect(style: str, autojump_clock: MockClock) -> None:
    """Entering the block waits for the first hooks, and their replies are sent first."""
    socket = styled(Scripted, style, handle_connect=Reply("login", "subscribe"))
    async with linked(socket) as (conn, far):
        assert [call.hook for call in socket.calls] == ["init_stream", "handle_connect"]
        assert conn.state == 1
        await conn.send("first")
        assert await read_frames(far) == ["login", "subscribe", "first"]


# The reasons.

Scene = Callable[[Connection[int], MemoryLink], Awaitable[None]]


async def remote_close(conn: Connection[int], far: MemoryLink) -> None:
    await far.write([Close(4001, "theirs")])
    await trio.testing.wait_all_tasks_blocked()
    await far.send_eof()


async def remote_close_without_code(conn: Connection[int], far: MemoryLink) -> None:
    await far.write([Close(1005)])
    await far.send_eof()


async def confirmed(conn: Connection[int], far: MemoryLink) -> None:
    conn.start_soon(conn.aclose, 4002, "ours")
    await trio.testing.wait_all_tasks_blocked()
    await far.write([Close(4002)])
    await far.send_eof()


async def unconfirmed(conn: Connection[int], far: MemoryLink) -> None:
    conn.start_soon(conn.aclose, 4002, "ours")


async def closed_by_a_frame(conn: Connection[int], far: MemoryLink) -> None:
    await conn.send_frame(Close(4002, "ours"))


async def end_of_stream(conn: Connection[int], far: MemoryLink) -> None:
    await far.send_eof()


async def silence(conn: Connection[int], far: MemoryLink) -> None:
    pass


REASONS: dict[str, tuple[Scene, Disconnect]] = {
    "remote close": (remote_close, RemoteClose(code=4001, reason="theirs")),
    "remote close without code": (remote_close_without_code, RemoteClose(code=1005)),
    "local close": (confirmed, LocalClose(code=4002, reason="ours", clean=True)),
    "local close, no answer": (unconfirmed, LocalClose(code=4002, reason="ours", clean=False)),
    "close frame": (closed_by_a_frame, LocalClose(code=4002, reason="ours", clean=False)),
    "lost": (end_of_stream, ConnectionLost()),
    "heartbeat": (silence, HeartbeatTimeout(silence=7)),
}


@both_styles
@pytest.mark.parametrize("case", REASONS)
async def test_the_reason_of_the_end(case: str, style: str, autojump_clock: MockClock) -> None:
    """handle_disconnect and terminate get the same reason once."""
    scene, reason = REASONS[case]
    socket = styled(Scripted, style)
    interval = 30 if case == "heartbeat" else None
    async with linked(socket, ping_interval=interval, ping_timeout=7) as (conn, far):
        await scene(conn, far)
        await conn.wait_closed()
    assert [(call.hook, call.what) for call in socket.calls[2:]] == [
        ("handle_disconnect", reason),
        ("terminate", reason),
    ]
    assert [call.state for call in socket.calls[2:]] == [1, 2]


@both_styles
async def test_abort_leaves_only_terminate(style: str, autojump_clock: MockClock) -> None:
    """handle_disconnect does not run."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, _):
        conn.abort()
        await conn.wait_closed()
    assert socket.calls[2:] == [("terminate", Aborted(), 1)]


async def test_a_broken_stream(autojump_clock: MockClock) -> None:
    """ConnectionLost has the error of the write."""
    socket = Scripted()
    async with linked(socket) as (conn, far):
        await far.aclose()
        await conn.wait_closed()
    reason = socket.calls[-1].what
    assert isinstance(reason, ConnectionLost)


@both_styles
async def test_the_end_of_the_block_is_a_local_close(style: str, autojump_clock: MockClock) -> None:
    """The last hooks run before the block ends."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, far):
        conn.start_soon(confirm, far)
    assert [(call.hook, call.what) for call in socket.calls[2:]] == [
        ("handle_disconnect", LocalClose(code=1000, clean=True)),
        ("terminate", LocalClose(code=1000, clean=True)),
    ]


async def confirm(far: MemoryLink) -> None:
    """Answer our Close frame as a peer."""
    while events := await far.receive():
        if Close(1000) in events:
            await far.write([Close(1000)])
            await far.send_eof()


@both_styles
async def test_a_refused_connection(style: str, autojump_clock: MockClock) -> None:
    """HandshakeFailed has the raised error; there is no state and no terminate."""
    error = ConnectFailed("nobody there")
    transport = MemoryTransport()
    transport.refuse_next(error)
    socket = styled(Scripted, style)
    with pytest.raises(ConnectFailed) as caught:
        async with connect(URL, socket, transport=transport):
            raise AssertionError("never opened")
    assert caught.value is error
    assert socket.calls == [("handle_disconnect", HandshakeFailed(error=error), None)]


@both_styles
async def test_a_closing_hook_is_a_local_close(style: str, autojump_clock: MockClock) -> None:
    """Close from a hook has the same effect as aclose."""
    socket = styled(Scripted, style, handle_receive=Close(4003, "enough"))
    async with linked(socket) as (conn, far):
        await far.write(["x"])
        await conn.wait_closed()
    assert socket.calls[-1].what == LocalClose(code=4003, reason="enough", clean=False)


# The last hook.


async def test_terminate_runs_once_when_cancelled(autojump_clock: MockClock) -> None:
    """A cancelled scope drops the connection; terminate may still await."""
    terminated: list[tuple[Disconnect, float]] = []

    class Saving(Socket[int]):
        def init_stream(self, info: ConnectionInfo) -> int:
            return 7

        async def terminate(self, reason: Disconnect, state: int) -> None:
            assert state == 7
            await trio.sleep(3)
            terminated.append((reason, trio.current_time()))

    with trio.move_on_after(100) as scope:
        async with linked(Saving()):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert terminated == [(Aborted(), 103)]
    assert trio.current_time() == 103


@pytest.mark.parametrize("close_timeout", [1, 10, 60])
async def test_terminate_has_close_timeout_seconds(
    close_timeout: float, autojump_clock: MockClock
) -> None:
    """A terminate that hangs is cancelled without an exception."""
    cut: list[float] = []

    class Hanging(Socket[None]):
        async def terminate(self, reason: Disconnect, state: None) -> None:
            try:
                await trio.sleep_forever()
            finally:
                cut.append(trio.current_time())

    async with linked(Hanging(), close_timeout=close_timeout) as (conn, _):
        conn.abort()
        await conn.wait_closed()
    assert cut == [close_timeout]


class Endless(Scripted):
    """Does not return from ``handle_receive``."""

    async def handle_receive(self, frame: Any, state: int) -> Any:
        await trio.sleep_forever()


async def test_terminate_runs_once_when_cancelled_in_a_hook(autojump_clock: MockClock) -> None:
    """The suspended hook is cancelled, and terminate gets the state before it."""
    socket = Endless()
    with trio.move_on_after(5):
        async with linked(socket) as (_, far):
            await far.write(["x"])
            await trio.sleep_forever()
    assert socket.count("terminate") == 1
    assert socket.calls[-1].hook == "terminate"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", ["handle_receive", "handle_ping", "handle_cast"])
@both_styles
async def test_an_interrupt_in_a_hook(
    hook: str, kind: type[BaseException], style: str, autojump_clock: MockClock
) -> None:
    """A BaseException is raised by the block, after terminate."""
    error = kind()
    socket = styled(Scripted, style, **{hook: error})
    with pytest.raises(kind) as caught:
        async with linked(socket) as (conn, far):
            await trigger(hook, conn, far)
            await trio.sleep_forever()
    assert caught.value is error
    assert socket.count("terminate") == 1


async def test_an_async_handle_disconnect_is_waited_for(autojump_clock: MockClock) -> None:
    """wait_closed and the end of the block wait for it and for terminate."""

    class Thoughtful(Scripted):
        async def handle_disconnect(self, reason: Any, state: int) -> Any:
            await trio.sleep(5)
            return super().handle_disconnect(reason, state)

    socket = Thoughtful()
    async with linked(socket) as (conn, far):
        await remote_close(conn, far)
        with pytest.raises(ConnectionClosed):
            await conn.send("x")
        await conn.wait_closed()
        assert trio.current_time() == 5
        assert [call.hook for call in socket.calls[2:]] == ["handle_disconnect", "terminate"]


async def test_close_has_one_deadline_for_peer_and_hooks(autojump_clock: MockClock) -> None:
    """Neither a silent peer nor a slow hook exceeds close_timeout."""
    socket = Endless()
    async with linked(socket, close_timeout=10) as (conn, far):
        await far.write(["x"])
        await wait_for_hooks()
        started = trio.current_time()
        await conn.aclose()
        assert trio.current_time() - started == 10
    assert socket.count("terminate") == 1
