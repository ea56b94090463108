"""Every row of the tables in docs/closing.md."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.docs.pages import Page
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    Disconnect,
    HandshakeRefused,
    Headers,
    MemoryTransport,
    ReconnectFailed,
    Socket,
    connect,
)
from trioglock.testing import MockPeer, MockServer

# With these, every pause and time-out is over within an hour.
AN_HOUR = 3600.0


class Hooks(Socket[None]):
    """Keeps the last reason, and closes or raises on demand."""

    def __init__(self) -> None:
        self.reason: Disconnect | None = None

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        match frame:
            case "fail":
                raise ValueError("a hook")
            case "close":
                return Close(4000), state
            case _:
                return frame, state

    def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[None, None]:
        self.reason = reason
        return None, state

    def terminate(self, reason: Disconnect, state: None) -> None:
        self.reason = reason


class Case:
    """One connection in memory, and what is done to it."""

    def __init__(self, **options: Any) -> None:
        self.hooks: Hooks = Hooks()
        self.conn: Connection[None]
        self.peer: MockPeer
        self.came_out: BaseException | None = None
        self._options = options

    @asynccontextmanager
    async def _connected(self, url: str, **options: Any) -> AsyncIterator[None]:
        try:
            async with connect(url, self.hooks, **self._options, **options) as self.conn:
                yield
        except BaseException as error:
            self.came_out = error
            raise

    async def run(self, act: Callable[[Case], Awaitable[object]]) -> None:
        """Connect, act, and wait for the end."""
        async with (
            MockServer(memory=True) as server,
            self._connected(server.url, stream=server.open_stream),
        ):
            self.peer = await server.accept()
            await act(self)
            with trio.move_on_after(AN_HOUR):
                await self.conn.wait_closed()

    async def run_alone(
        self, transport: MemoryTransport, act: Callable[[Case], Awaitable[object]]
    ) -> None:
        """The same, with a far end that says nothing of its own accord."""
        async with self._connected("ws://memory.test/", transport=transport):
            await act(self)
            await trio.sleep(AN_HOUR)


async def nothing(case: Case) -> None:
    """Do nothing; the block ends."""


async def lose_and_close(case: Case) -> None:
    await case.peer.abort()
    await trio.sleep(1)
    await case.conn.aclose()


async def flood(case: Case) -> None:
    with pytest.raises(ConnectionClosed):
        while True:
            await case.conn.send("x" * 2**16)


async def aborted(case: Case) -> None:
    case.conn.abort()


def peer_says(data: bytes) -> Callable[[Case], Awaitable[object]]:
    return lambda case: case.peer.stream.send_all(data)


Run = Callable[[Case], Awaitable[None]]


def with_peer(act: Callable[[Case], Awaitable[object]]) -> Run:
    return lambda case: case.run(act)


def alone(act: Callable[[Case], Awaitable[object]], capacity: float = math.inf) -> Run:
    return lambda case: case.run_alone(MemoryTransport(capacity=capacity), act)


PAUSE = Backoff(initial=600, maximum=600, jitter="none", max_attempts=3)


async def lost_for_good(case: Case) -> None:
    transport = MemoryTransport()

    async def act(_: Case) -> None:
        far = await transport.accept()
        for _attempt in range(2):
            transport.refuse_next()
        await far.aclose()

    await case.run_alone(transport, act)


async def refused_later(case: Case) -> None:
    transport = MemoryTransport()

    async def act(_: Case) -> None:
        far = await transport.accept()
        transport.refuse_next(HandshakeRefused(403, Headers()))
        await far.aclose()

    await case.run_alone(transport, act)


# The text of a row: options, and what is done.
MET_IN_A_CALL: dict[str, tuple[dict[str, Any], Run]] = {
    "the block ended, or `aclose()`": ({}, with_peer(lambda case: case.conn.aclose())),
    "`aclose(4000)`, or a hook returned `Close(4000)`": (
        {},
        with_peer(lambda case: case.peer.send("close")),
    ),
    "`aclose()`, and the peer did not answer in time": ({}, alone(lambda case: case.conn.aclose())),
    "`aclose()` during an outage": ({"reconnect": PAUSE}, with_peer(lose_and_close)),
    "the peer closed with 1000": ({}, with_peer(lambda case: case.peer.close(1000))),
    "the peer closed with 1001": ({}, with_peer(lambda case: case.peer.close(1001))),
    "the peer closed with another code, such as 4000": (
        {},
        with_peer(lambda case: case.peer.close(4000)),
    ),
    "the peer closed without a code, as `close()` in a browser does": (
        {},
        with_peer(peer_says(b"\x88\x00")),
    ),
    "the stream ended or broke": ({}, with_peer(lambda case: case.peer.abort())),
    "the peer stopped sending": ({}, alone(nothing)),
    "the peer stopped reading": ({"ping_interval": None}, alone(flood, capacity=0)),
    "the peer sent no data for `stall_timeout`": (
        {"ping_interval": None, "stall_timeout": 5},
        alone(nothing),
    ),
    "the peer violated the protocol": ({}, with_peer(peer_says(b"\xf1\x00"))),
    "the peer sent text that is not UTF-8": ({}, with_peer(peer_says(b"\x81\x01\xff"))),
    "the peer sent a message that is too large": (
        {"max_size": 2},
        with_peer(lambda case: case.peer.send("xxx")),
    ),
    'the receive queue overflowed, with `overflow="close"`': (
        {"max_queue": 1, "overflow": "close"},
        with_peer(lambda case: case.peer.send("one", "two")),
    ),
    "`abort()`": ({}, with_peer(aborted)),
    "an attempt to reconnect failed for a final reason, such as a refusal with 403": (
        {"reconnect": PAUSE},
        refused_later,
    ),
    "all attempts to reconnect failed": ({"reconnect": PAUSE}, lost_for_good),
}


def rows(number: int) -> list[list[str]]:
    """The cells of the first or second table of the section."""
    page = Page("docs/closing.md")
    if number == 0:
        return page.rows("Reasons and exceptions")
    section = page.text.split("\n## Reasons and exceptions\n", 1)[1].split("\n## ", 1)[0]
    table = section.rsplit("\n\n|", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]]


def fits(reason: Disconnect | None, said: str) -> bool:
    """Whether a reason has the class and the fields that a cell names."""
    found = re.fullmatch(r"`(\w+)\((?:(\w+)=([\w.]+))?\)`", said)
    assert found, said
    name, field, value = found.groups()
    if type(reason).__name__ != name:
        return False
    return field is None or value == "..." or repr(getattr(reason, field)) == value


def test_every_row_is_tested() -> None:
    """The tests and the tables have the same rows."""
    assert [row[0] for row in rows(0)] == list(MET_IN_A_CALL)
    assert [row[0] for row in rows(1)] == list(OUT_OF_THE_BLOCK)


@pytest.mark.parametrize("row", rows(0), ids=lambda row: row[0])
async def test_ends_raised_by_calls(row: list[str], autojump_clock: MockClock) -> None:
    """Reason, exception, code, loop and close_code are as documented."""
    what, reason, exception, loop, close_code = row
    options, run = MET_IN_A_CALL[what]
    case = Case(**options)
    await run(case)

    conn = case.conn
    assert fits(case.hooks.reason, reason), case.hooks.reason
    with pytest.raises(ConnectionClosed) as caught:
        await conn.send("anything")
    error = caught.value
    assert exception.startswith(f"`{type(error).__name__}` {error.code}")
    assert isinstance(error.__cause__, ReconnectFailed) == ("ReconnectFailed" in exception)
    assert error.cause == case.hooks.reason
    assert str(conn.close_code) == close_code
    try:
        async for _ in conn:
            pass
    except ConnectionClosed:
        assert loop == "raises"
    else:
        assert loop == "ends"


# Exceptions raised by the block.


async def refused(case: Case, times: int) -> None:
    transport = MemoryTransport()
    for _ in range(times):
        transport.refuse_next()
    await case.run_alone(transport, nothing)


def raising(error: BaseException) -> Run:
    async def act(_: Case) -> None:
        raise error

    return with_peer(act)


async def cancelled(case: Case) -> None:
    with trio.CancelScope() as scope:

        async def act(_: Case) -> None:
            scope.cancel()
            await trio.sleep_forever()

        await case.run(act)


OUT_OF_THE_BLOCK: dict[str, tuple[dict[str, Any], Run, type[BaseException]]] = {
    "the first attempt failed": ({}, lambda case: refused(case, 1), OSError),
    "all attempts to open the first link failed, with `reconnect=...`": (
        {"reconnect": PAUSE},
        lambda case: refused(case, 3),
        ReconnectFailed,
    ),
    "a hook or a background task raised": (
        {},
        with_peer(lambda case: case.peer.send("fail")),
        ValueError,
    ),
    "the body raised": ({}, raising(KeyError("mine")), KeyError),
    "the block was cancelled": ({}, cancelled, trio.Cancelled),
    "`KeyboardInterrupt` in the body": ({}, raising(KeyboardInterrupt()), KeyboardInterrupt),
}


@pytest.mark.parametrize("row", rows(1), ids=lambda row: row[0])
async def test_ends_raised_by_the_block(row: list[str], autojump_clock: MockClock) -> None:
    """The reason and the exception are as documented."""
    what, reason, _ = row
    options, run, expected = OUT_OF_THE_BLOCK[what]
    case = Case(**options)
    try:
        await run(case)
    except* (Exception, KeyboardInterrupt):
        assert case.came_out is not None
    assert isinstance(case.came_out, expected)
    assert fits(case.hooks.reason, reason), case.hooks.reason
