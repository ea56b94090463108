"""The heartbeat with messages."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock import (
    ConnectionClosedError,
    HeartbeatTimeout,
    InvalidFrame,
    InvalidOption,
    MemoryTransport,
    MessageHeartbeat,
    Socket,
    connect,
)

TEXT_BEAT = MessageHeartbeat(message=lambda: "ping", is_answer=lambda message: message == "pong")


async def test_messages_replace_pings(autojump_clock: MockClock) -> None:
    """No ping is sent; the answer sets the latency and is not delivered."""
    transport = MemoryTransport()
    async with connect("ws://beat/", transport=transport, ping_interval=5, heartbeat=TEXT_BEAT) as (
        conn
    ):
        far = await transport.accept()
        assert await far.receive() == [["ping"]]
        assert trio.current_time() == 5
        await trio.sleep(0.25)
        await far.write(["before", "pong", "after"])
        assert [await conn.receive(), await conn.receive()] == ["before", "after"]
        assert conn.latency == pytest.approx(0.25)
        assert await far.receive() == [["ping"]]
        assert trio.current_time() == 10
        await far.write(["pong"])
        conn.abort()


async def test_silence_after_a_message_expires(autojump_clock: MockClock) -> None:
    """A peer that sends nothing within ping_timeout is dead; any message counts."""
    transport = MemoryTransport()
    with pytest.raises(ConnectionClosedError) as caught:
        async with connect(
            "ws://beat/", transport=transport, ping_interval=5, ping_timeout=2, heartbeat=TEXT_BEAT
        ) as conn:
            far = await transport.accept()
            await trio.sleep(6)
            await far.write(["not an answer, but life"])
            assert await conn.receive() == "not an answer, but life"
            await conn.receive()
    assert trio.current_time() == 12
    assert caught.value.cause == HeartbeatTimeout(silence=2)


@pytest.mark.parametrize(
    ("beat", "error"),
    [
        (MessageHeartbeat(message=lambda: 1 / 0, is_answer=bool), ZeroDivisionError),  # type: ignore[arg-type, return-value]
        (MessageHeartbeat(message=dict, is_answer=bool), InvalidFrame),  # type: ignore[arg-type]
        (MessageHeartbeat(message=str, is_answer=lambda message: 1 / 0), ZeroDivisionError),  # type: ignore[arg-type, return-value]
    ],
)
async def test_a_function_that_fails_ends_the_connection(
    beat: MessageHeartbeat, error: type[Exception], autojump_clock: MockClock
) -> None:
    """The block raises its exception."""
    transport = MemoryTransport()
    seen: list[Any] = []

    class Ends(Socket[None]):
        def terminate(self, reason: Any, state: None) -> None:
            seen.append(reason)

    with pytest.raises(error):
        async with connect("ws://beat/", Ends(), transport=transport, heartbeat=beat):
            far = await transport.accept()
            await trio.sleep(30)
            await far.write(["x"])
            await trio.sleep_forever()
    assert len(seen) == 1


def test_invalid_arguments() -> None:
    """Both arguments must be functions."""
    with pytest.raises(InvalidOption, match="message must be a function"):
        MessageHeartbeat(message="ping", is_answer=bool)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="heartbeat must be a MessageHeartbeat"):
        connect("ws://beat/", heartbeat="ping")  # type: ignore[arg-type]
