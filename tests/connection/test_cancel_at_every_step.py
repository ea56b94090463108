"""Cancellation at every step of a connection."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    URL,
    MakeTransport,
    RawPeer,
    every_transport,
    lockstep,
    unbounded,
)
from trioglock import Connection, ConnectionInfo, Disconnect, Socket, connect


class Life(Socket[int]):
    """Counts its beginnings and ends."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    def init_stream(self, info: ConnectionInfo) -> int:
        self.begun += 1
        return 0

    def terminate(self, reason: Disconnect, state: int) -> None:
        self.ended += 1


class AsyncLife(Life):
    """The same with hooks that suspend."""

    async def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        await trio.lowlevel.checkpoint()
        return message, state + 1

    async def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        await trio.lowlevel.checkpoint()
        return frame, state

    async def handle_call(self, request: Any, state: int) -> tuple[Any, int]:
        await trio.lowlevel.checkpoint()
        return state, state


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before a given step of the run, in whichever task it occurs."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.step = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step -= 1
        if self.step == 0:
            self.scope.cancel()


async def talk(conn: Connection[Any], word: str) -> None:
    await conn.send(word)
    await conn.flush()
    assert await conn.receive() == word
    await conn.ping()
    if isinstance(conn.state, int) and conn.state:
        assert await conn.call("?") == conn.state


async def live(scope: trio.CancelScope, socket: Life, transport: MakeTransport, step: int) -> bool:
    """One life with a peer that echoes; cancelled at ``step``; whether it came to its end."""
    near, far = unbounded()
    peer = RawPeer(far)
    finished = False

    async def serve() -> None:
        try:
            await peer.accept()
        except (AssertionError, trio.BrokenResourceError):
            return  # the client left in the middle of the handshake
        await peer.answer(echo=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                async with connect(URL, socket, transport=transport(), stream=near) as conn:
                    await talk(conn, "hello")
                    await conn.aclose()
                finished = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
        with trio.fail_after(1):
            # The stream is closed, so a write must fail; whole frames were seen by ``serve``.
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"x")
    return finished


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Life, AsyncLife])
@every_transport
async def test_cancelling_the_block_at_every_step(
    transport: MakeTransport, kind: type[Life], autojump_clock: MockClock
) -> None:
    """Frames are complete, ``terminate`` runs once, and only Cancelled is raised."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    step = 0
    finished = False
    while not finished:
        step += 1
        socket = kind()
        scope = trio.CancelScope()
        finished = await live(scope, socket, transport, step) and not scope.cancel_called
        assert socket.begun == socket.ended <= 1, f"cancelled at step {step}"
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert step > 50


@pytest.mark.parametrize("kind", [Life, AsyncLife])
@every_transport
async def test_cancelling_inside_the_block_at_every_step(
    transport: MakeTransport, kind: type[Life], autojump_clock: MockClock
) -> None:
    """After a cancelled exchange, the next one on the same connection succeeds."""
    step = 0
    cancelled = True
    near, far = unbounded()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.accept()
            frames = await peer.answer(echo=True)
            assert frames[-1].opcode == CLOSE

        nursery.start_soon(serve)
        async with connect(URL, kind(), transport=transport(), stream=near) as conn:
            while cancelled:
                step += 1
                instrument = CancelAtStep(trio.CancelScope(), step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    with instrument.scope as scope:
                        await talk(conn, f"cancelled {step}")
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                cancelled = scope.cancel_called
                await conn.send(f"after {step}")
                word = await conn.receive()
                if word == f"cancelled {step}":
                    word = await conn.receive()
                assert word == f"after {step}"
    assert step > 10


async def test_cancelling_many_tasks_at_random_times(autojump_clock: MockClock) -> None:
    """Ten tasks send and receive with short deadlines: each echo is complete and unique."""
    chance = random.Random(7)
    sent: set[str] = set()
    got: list[Any] = []
    near, far = lockstep()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.accept()
            await peer.answer(echo=True)

        async def impatient(conn: Connection[None], name: int) -> None:
            for number in range(30):
                message = f"{name}-{number}-" + "x" * chance.randrange(3000)
                with trio.move_on_after(chance.random() / 10):
                    sent.add(message)
                    await conn.send(message)
                with trio.move_on_after(chance.random() / 10):
                    got.append(await conn.receive())

        nursery.start_soon(serve)
        async with connect(URL, stream=near, write_limit=4000, ping_interval=None) as conn:
            async with trio.open_nursery() as tasks:
                for name in range(10):
                    tasks.start_soon(impatient, conn, name)
            await conn.flush()
            while True:
                with trio.move_on_after(1) as scope:
                    got.append(await conn.receive())
                if scope.cancelled_caught:
                    break
    assert len(set(got)) == len(got)
    assert set(got) <= sent
    assert len(got) > 100
