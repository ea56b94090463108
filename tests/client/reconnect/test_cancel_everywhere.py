"""Cancelling a connection at every step, with an outage in between, leaks nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import Clock, policy
from tests.connection.raw_server import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    URL,
    MakeTransport,
    RawFrame,
    RawPeer,
    unbounded,
)
from tests.connection.test_cancel_at_every_step import CancelAtStep
from tests.hooks.helpers import styled
from trioglock import (
    Connection,
    ConnectionInfo,
    Disconnect,
    NativeTransport,
    Socket,
    TrioWebsocketTransport,
    connect,
)

WHOLE = frozenset({TEXT, BINARY, CLOSE, PING, PONG})


class Flaky:
    """A server in memory that drops its first client, refuses the next, and serves the third."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.frames: list[RawFrame] = []
        self.near: list[trio.abc.Stream] = []
        self._nursery = nursery

    async def open_stream(self) -> trio.abc.Stream:
        """The client's end of a new stream."""
        # No cancel may come between the stream and its return.
        await trio.lowlevel.checkpoint()
        near, far = unbounded()
        self.near.append(near)
        self._nursery.start_soon(self._serve, RawPeer(far), len(self.near))
        return near

    async def _serve(self, peer: RawPeer, number: int) -> None:
        try:
            if number == 2:
                await peer.drop()
                return
            await peer.accept()
        except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client left in the middle of the handshake
        if number == 1:
            await self._take(peer)
            await peer.drop()
            return
        # An unfinished frame raises HalfFrameError, and fails the test.
        self.frames += await peer.answer(echo=True)

    async def _take(self, peer: RawPeer) -> None:
        """Receive one message, or the client's last one."""
        frame = await peer.read()
        if frame is not None:
            self.frames.append(frame)


class Life(Socket[int]):
    """Counts starts and ends; subscribes on every upgrade."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.upgrades = 0
        self.losses = 0

    def init_stream(self, info: ConnectionInfo) -> Any:
        self.begun += 1
        return 0

    def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
        self.upgrades += 1
        return None, state

    def handle_send(self, message: Any, state: int) -> Any:
        return message, state

    def handle_receive(self, frame: Any, state: int) -> Any:
        return frame, state + 1

    def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        self.losses += 1
        return None, state

    def terminate(self, reason: Disconnect, state: int) -> Any:
        self.ended += 1


async def talk(conn: Connection[int]) -> None:
    """Lose the link, queue during the outage, reconnect, call reconnect(), close."""
    await conn.send("before")
    await conn.flush()
    while conn.status.value == "open":
        await trio.sleep(0.1)
    await conn.send("during")
    assert await conn.receive() == "during"
    await conn.reconnect()
    await conn.send("after")
    assert await conn.receive() == "after"
    await conn.aclose()


async def live(scope: trio.CancelScope, socket: Life, transport: MakeTransport, step: int) -> bool:
    """One connection, cancelled at ``step``; returns whether it finished."""
    finished = False
    async with trio.open_nursery() as nursery:
        server = Flaky(nursery)
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                async with connect(
                    URL,
                    socket,
                    transport=transport(),
                    stream=server.open_stream,
                    reconnect=policy(),
                    ping_interval=None,
                ) as conn:
                    await talk(conn)
                finished = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
        for near in server.near:
            # Closed by the client, so that a write must fail.
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"x")
    assert {frame.opcode for frame in server.frames} <= WHOLE
    sent = [frame.payload for frame in server.frames if frame.opcode == TEXT]
    assert sent == [b"before", b"during", b"after"][: len(sent)]
    return finished


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "style"),
    [(NativeTransport, "plain"), (NativeTransport, "async"), (TrioWebsocketTransport, "plain")],
)
async def test_a_cancel_at_every_step_of_an_outage_leaves_nothing_behind(
    transport: MakeTransport, style: str, autojump_clock: Clock
) -> None:
    """No task, stream or half frame remains; ``terminate`` runs once; only Cancelled is raised."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    step = 0
    finished = False
    while not finished:
        step += 1
        socket = styled(Life, style)
        scope = trio.CancelScope()
        finished = await live(scope, socket, transport, step) and not scope.cancel_called
        assert socket.begun == socket.ended <= 1, f"cancelled at step {step}"
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert socket.upgrades == 3
    assert socket.losses == 4
    assert step > 100
