"""The heartbeat in messages, for servers that want text instead of ping frames."""

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


async def test_a_beat_is_sent_and_its_answer_swallowed(autojump_clock: MockClock) -> None:
    """No ping frame leaves, the answer measures the round trip and reaches nobody."""
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


async def test_silence_after_a_beat_expires(autojump_clock: MockClock) -> None:
    """A peer that says nothing for ping_timeout after a beat is dead; any message is life."""
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
    """Its exception comes out of the block, as a hook's does."""
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


def test_a_beat_is_two_functions() -> None:
    """Anything else is refused at once."""
    with pytest.raises(InvalidOption, match="message must be a function"):
        MessageHeartbeat(message="ping", is_answer=bool)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="heartbeat is a MessageHeartbeat"):
        connect("ws://beat/", heartbeat="ping")  # type: ignore[call-overload]
