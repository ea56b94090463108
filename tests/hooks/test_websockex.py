"""Typical uses of WebSockex."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, linked, read_frames, wait_for_hooks
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionInfo,
    MemoryTransport,
    Ping,
    Reply,
    Socket,
    connect,
    run,
)
from trioglock.testing import MemoryLink


class Printing(Socket[str]):
    """The simple client: prints what comes, sends what it is cast."""

    def __init__(self, state: str = "given") -> None:
        self.first = state

    def init_stream(self, info: ConnectionInfo) -> str:
        return self.first

    def handle_receive(self, frame: Any, state: str) -> tuple[None, str]:
        print(f"Received Message - Type: {type(frame).__name__} -- Message: {frame}")
        return None, state

    def handle_cast(self, message: tuple[str, Any], state: str) -> tuple[Any, str]:
        match message:
            case ("send", frame):
                print(f"Sending {type(frame).__name__} frame with payload: {frame}")
                return Reply(frame), state
        return None, state


async def test_the_simple_client(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames are printed, ("send", frame) is sent, and other casts are ignored."""
    async with linked(Printing("mine")) as (conn, far):
        await far.write(["hi", b"bytes"])
        conn.cast(("send", "text"))
        conn.cast(("ignored", 1))
        conn.cast(("send", b"binary"))
        assert await read_frames(far) == ["text", b"binary"]
        assert conn.state == "mine"
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == [
        "Received Message - Type: bytes -- Message: b'bytes'",
        "Received Message - Type: str -- Message: hi",
        "Sending bytes frame with payload: b'binary'",
        "Sending str frame with payload: text",
    ]


async def test_it_fits_into_a_nursery(autojump_clock: MockClock) -> None:
    """A supervisor starts it, casts to it, and ends it with its scope."""
    transport = MemoryTransport()
    async with trio.open_nursery() as nursery:
        conn: Connection[str] = await nursery.start(
            lambda task_status: run(URL, Printing(), transport=transport, task_status=task_status)
        )
        far = await transport.accept()
        conn.cast(("send", "hello"))
        assert await read_frames(far) == ["hello"]
        nursery.cancel_scope.cancel()
    assert conn.status.value == "closed"


class Echo(Socket[None]):
    """An echo client that closes when its last message comes back."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return (Close(1000) if frame == "Close the things!" else None), state

    def handle_ping(self, payload: bytes, state: None) -> tuple[Any, None]:
        return None, state


def lines(caplog: pytest.LogCaptureFixture, name: str = "echo") -> list[str]:
    """The trace lines of one connection, without name and number."""
    messages = [r.getMessage() for r in caplog.records if r.name == "trioglock.trace"]
    found = (re.fullmatch(rf"{name}#\d+ (.*)", text) for text in messages)
    return [line[1] for line in found if line]


async def echo_peer(far: MemoryLink) -> None:
    """Sends data back, pings after the first message, and does not answer Close."""
    pinged = False
    while events := await far.receive():
        for event in events:
            if isinstance(event, list):
                await far.write(event)
                if not pinged:
                    pinged = True
                    await far.write([Ping(b"")])


async def test_the_trace_of_the_echo_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step is a line: connecting, frames, the close and the timeout."""
    async with linked(Echo(), trace=True, name="echo", close_timeout=5) as (conn, far):
        conn.start_soon(echo_peer, far)
        await conn.send("Hello")
        await wait_for_hooks()
        await conn.send("Close the things!")
        await conn.wait_closed()
    expected = [
        "attempting to connect",
        "successfully connected",
        "sending frame: 'Hello'",
        "received frame: 'Hello'",
        "received frame: Ping",
        "replying from handle_ping with pong",
        "sending frame: 'Close the things!'",
        "received frame: 'Close the things!'",
        "closing with local reason: 1000",
        "sending close frame: 1000",
        "forcefully closed the connection because the peer took too long",
    ]
    got = lines(caplog)
    assert len(got) == len(expected)
    assert [line[: len(want)] for line, want in zip(got, expected, strict=True)] == expected


async def test_the_trace_of_a_reconnect(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss, the delays, the failed attempt and the new link."""
    transport = MemoryTransport()
    policy = Backoff(initial=2, jitter="none")
    async with connect(
        URL, transport=transport, reconnect=policy, ping_interval=None, trace=True, name="echo"
    ) as conn:
        await (await transport.accept()).aclose()
        transport.refuse_next()
        await transport.accept()
        await conn.send("still there")
        await wait_for_hooks()
        conn.abort()
    assert lines(caplog) == [
        "attempting to connect",
        "successfully connected",
        "connection lost",
        "reconnecting in 2 seconds",
        "attempting to connect",
        "failed to connect: refused by the test",
        "reconnecting in 4 seconds",
        "attempting to connect",
        "successfully connected",
        "sending frame: 'still there'",
    ]
