"""Links that are dead while the reader or a sender waits."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import Scripted
from trioglock import (
    Backoff,
    ConnectionClosed,
    ConnectionClosedOK,
    ConnectionInfo,
    HookError,
    MemoryTransport,
    Reply,
    Socket,
    Status,
    connect,
)

URL = "ws://dead.test/"
POLICY = Backoff(initial=1, jitter="none", max_attempts=None)
MORE = Reply(*["x" * 50_000] * 10)
"""More than the send queue holds."""


@pytest.mark.parametrize("reconnect", [False, POLICY])
async def test_a_reader_paused_by_its_replies(reconnect: Any, autojump_clock: MockClock) -> None:
    """The writer has failed, so the reader resumes and finds the end."""
    net = MemoryTransport(capacity=1)
    async with connect(
        URL, Scripted(handle_receive=MORE), transport=net, reconnect=reconnect
    ) as conn:
        far = await net.accept()
        await far.write(["hello"])
        await trio.sleep(1)
        await far.aclose()
        with trio.fail_after(60):
            if reconnect:
                await net.accept()
            else:
                with pytest.raises(ConnectionClosed):
                    await conn.receive()
        conn.abort()


@pytest.mark.parametrize("reconnect", [False, POLICY])
async def test_a_program_that_only_sends(reconnect: Any, autojump_clock: MockClock) -> None:
    """A full receive queue pauses reading; the dead link is still detected."""
    net = MemoryTransport()
    async with connect(URL, transport=net, reconnect=reconnect, max_queue=4) as conn:
        far = await net.accept()
        await far.write([str(number) for number in range(20)])
        await trio.sleep(1)
        await far.aclose()
        with trio.fail_after(60):
            if reconnect:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_for_ever, conn)
                    await net.accept()
                    nursery.cancel_scope.cancel()
            else:
                with pytest.raises(ConnectionClosed):
                    await send_for_ever(conn)
                words = [str(number) for number in range(20)]
                assert [await conn.receive() for _ in range(20)] == words
        conn.abort()


async def send_for_ever(conn: Any) -> None:
    while True:
        await conn.send("x" * 1000)


class SlowGreeter(Socket[None]):
    """Takes two seconds in ``handle_connect``, from the second link on."""

    async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[None, None]:
        if info.attempt > 1:
            await trio.sleep(2)
        return None, state


async def test_reconnect_waits_for_the_new_link(autojump_clock: MockClock) -> None:
    """A ``handle_connect`` of the previous link does not end the wait."""
    net = MemoryTransport()
    async with connect(URL, SlowGreeter(), transport=net, reconnect=POLICY) as conn:
        await (await net.accept()).aclose()
        second = await net.accept()
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.reconnect)
            await trio.sleep(0.1)
            await second.aclose()
        assert conn.status is Status.OPEN
        assert conn.statistics().reconnects == 2
        conn.abort()


class LateGreeter(Socket[None]):
    """Greets from the second link on."""

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        return (Reply("hi", "there") if info.attempt > 1 else None), state


async def test_flush_does_not_count_an_old_loss_again(autojump_clock: MockClock) -> None:
    """Messages in doubt on the previous link do not fail a later flush."""
    net = MemoryTransport(capacity=1)
    async with connect(URL, LateGreeter(), transport=net, reconnect=POLICY) as conn:
        first = await net.accept()
        for number in range(3):
            conn.send_nowait(str(number))
        await trio.sleep(1)
        await first.aclose()
        second = await net.accept()
        got: list[Any] = []

        async def read() -> None:
            while sum(map(len, got)) < 3:
                got.extend(await second.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await conn.send("new")
            await conn.flush()
        assert [message for run in got for message in run] == ["hi", "there", "new"]
        conn.abort()


async def test_reconnect_does_not_count_as_a_failed_attempt(autojump_clock: MockClock) -> None:
    """After any number of calls, a normal close is a normal close."""
    net = MemoryTransport()
    policy = Backoff(max_attempts=2, retryable=lambda reason: True)
    async with connect(URL, transport=net, reconnect=policy, close_timeout=1) as conn:
        for _ in range(4):
            await net.accept()
            await conn.reconnect()
        last = await net.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose)
            [close] = await last.receive()
            await last.write([close])  # type: ignore[list-item]
            await last.aclose()
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()


async def test_connection_closed_of_another_connection_in_handle_disconnect(
    autojump_clock: MockClock,
) -> None:
    """The exception is raised, although it looks like that of the connection itself."""
    socket = Scripted(handle_disconnect=ConnectionClosed(None, None))
    net = MemoryTransport()
    with pytest.raises(ConnectionClosed):
        async with connect(URL, socket, transport=net):
            await (await net.accept()).aclose()
            await trio.sleep_forever()


async def test_a_policy_that_raises_ends_the_connection(autojump_clock: MockClock) -> None:
    """The exception is raised, after ``terminate``."""
    socket = Scripted()

    def broken(reason: Any) -> bool:
        raise ValueError("no policy")

    net = MemoryTransport()
    with pytest.raises(ValueError, match="no policy"):
        async with connect(URL, socket, transport=net, reconnect=Backoff(retryable=broken)):
            await (await net.accept()).aclose()
            await trio.sleep_forever()
    assert isinstance(socket.calls[-1].what, HookError)
    assert socket.count("terminate") == 1


class Indecisive(Socket[None]):
    """Takes a second for a cast, and raises when it is to decide."""

    def __init__(self) -> None:
        self.casts: list[str] = []

    async def handle_cast(self, message: str, state: None) -> tuple[None, None]:
        self.casts.append(message)
        await trio.sleep(1)
        return None, state

    def handle_disconnect(self, reason: Any, state: None) -> Any:
        raise ValueError("cannot decide")


@pytest.mark.parametrize("again", range(8))
async def test_no_hook_runs_after_handle_disconnect_raised(
    again: int, autojump_clock: MockClock
) -> None:
    """Queued jobs do not run, in whichever order tasks wake."""
    net, socket = MemoryTransport(), Indecisive()
    with pytest.raises(ValueError, match="cannot decide"):
        async with connect(URL, socket, transport=net) as conn:
            far = await net.accept()
            conn.cast("before")
            await trio.sleep(0.5)
            await far.aclose()
            await trio.sleep(0.1)
            conn.cast("behind")
            await trio.sleep_forever()
    assert socket.casts == ["before"]
