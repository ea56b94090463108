"""More messages than the hooks can handle, and messages that arrive at the wrong time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.channels.helpers import serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock.channels import Answer, Channel, JoinRefused, Push
from trioglock.channels.actor import MAX_PENDING
from trioglock.errors import ConnectionClosedError


class Busy(Channel[None]):
    """Handles a push in as many seconds as it says, and everything else at once."""

    intercept = ("intercepted",)
    latest: list[Busy]

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        self.latest.append(self)
        await trio.sleep(payload.get("seconds", 0))
        return Answer("ok", payload), state

    def handle_cast(self, message: Any, state: None) -> Any:
        return Push("cast", {"n": message}), state


@pytest.fixture(autouse=True)
def latest() -> list[Busy]:
    Busy.latest = []
    return Busy.latest


@MOCK_CLOCK
async def test_broadcasts_that_cannot_wait_for_the_hooks_end_the_topic(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dropping one would be silent; the client joins again."""
    async with serving_channels(Busy) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {"seconds": 1000})
        await raw.alive()
        for _ in range(MAX_PENDING + 2):
            await site.channels.broadcast("room:1", "intercepted", {})
        assert (await raw.receive())[3] == "phx_error"
        await raw.join(ref="3")
        await raw.alive()
        assert trio.current_time() < 100
    assert "too many messages are waiting" in caplog.text


@MOCK_CLOCK
async def test_a_leave_that_cannot_wait_for_the_hooks_ends_the_topic() -> None:
    async with serving_channels(Busy) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "0", "room:1", "x", {"seconds": 1000})
        for number in range(MAX_PENDING):
            await raw.send("1", str(number), "room:1", "x", {})
        await raw.send("1", "leave", "room:1", "phx_leave", {})
        assert (await raw.receive())[3] == "phx_error"
        await raw.join(ref="3")


@MOCK_CLOCK
async def test_casts_that_cannot_wait_raise_would_block(latest: list[Busy]) -> None:
    async with serving_channels(Busy) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {"seconds": 10})
        await raw.alive()
        for number in range(MAX_PENDING):
            latest[0].cast(number)
        with pytest.raises(trio.WouldBlock):
            latest[0].cast(-1)
        assert (await raw.receive())[1] == "2"
        assert [(await raw.receive())[4]["n"] for _ in range(MAX_PENDING)] == [*range(MAX_PENDING)]


@MOCK_CLOCK
async def test_a_hook_that_casts_to_itself_for_ever_does_not_block_others() -> None:
    class Room(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            self.cast(None)
            return Answer("ok"), state

        def handle_cast(self, message: Any, state: None) -> Any:
            self.cast(None)
            return None, state

    async with serving_channels(Room) as site, site.dial() as raw, site.dial() as other:
        await raw.join()
        assert (await raw.ask("1", "2", "room:1", "x", {}))[1] == "2"
        await other.join()
        await other.alive()
        await raw.alive()


class Doorman(Channel[None]):
    """Its join waits."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(payload.get("seconds", 0))
        if payload.get("refuse"):
            raise JoinRefused({"reason": "no"})
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


@MOCK_CLOCK
async def test_a_malformed_message_beside_a_slow_join_closes_with_1011() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.join()
        await raw.send("2", "2", "room:2", "phx_join", {"seconds": 1})
        await raw.send("1", "3", "room:1", "x", {})
        await raw.connection.send("{")
        await raw.send("1", "4", "room:1", "x", {})
        assert (await raw.receive())[1] == "3"
        with pytest.raises(ConnectionClosedError):
            await raw.receive()
        assert raw.connection.close_code == 1011


async def test_messages_after_a_malformed_one_are_ignored() -> None:
    handled: list[Any] = []

    class Room(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            handled.append(payload)
            return None, state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.connection.send("{")
        await raw.send("1", "2", "room:1", "x", {})
        with pytest.raises(ConnectionClosedError):
            await raw.receive()
    assert handled == []


@MOCK_CLOCK
async def test_pushes_that_cannot_wait_for_a_slow_join_get_an_error_and_a_leave_ends_it() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {"seconds": 1000})
        for number in range(MAX_PENDING + 2):
            await raw.send("1", f"x{number}", "room:1", "x", {})
        for number in range(2):
            message = await raw.receive()
            assert (message[1], message[4]["status"]) == (f"x{MAX_PENDING + number}", "error")
        await raw.send("1", "leave", "room:1", "phx_leave", {})
        assert (await raw.receive())[1:] == [
            "1",
            "room:1",
            "phx_reply",
            {"response": {"reason": "join crashed"}, "status": "error"},
        ]
        await raw.join(ref="2")
        assert trio.current_time() < 100


@MOCK_CLOCK
async def test_messages_wait_for_the_join_of_their_topic_in_order() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.join()
        for number in range(2, 6):
            topic, ref = f"room:{number}", str(number)
            await raw.send(ref, ref, topic, "phx_join", {"seconds": number})
            await raw.send(ref, f"x{number}", topic, "x", {})
            await raw.send(ref, f"y{number}", topic, "phx_leave", {})
            await raw.send("1", f"z{number}", "room:1", "x", {})
        refs = [(await raw.receive())[1] for _ in range(4)]
        assert refs == ["z2", "z3", "z4", "z5"]
        refs = [(await raw.receive())[1] for _ in range(16)]
        expected = [[str(n), f"x{n}", f"y{n}", str(n)] for n in range(2, 6)]
        assert refs == [ref for group in expected for ref in group]


@MOCK_CLOCK
async def test_messages_for_a_join_that_is_refused_are_answered_like_those_after_it() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {"seconds": 1, "refuse": True})
        await raw.send("1", "2", "room:1", "x", {})
        await raw.send("1", "3", "room:1", "phx_leave", {})
        assert (await raw.receive())[4] == {"response": {"reason": "no"}, "status": "error"}
        assert await raw.receive() == [
            None,
            "2",
            "room:1",
            "phx_reply",
            {"response": {"reason": "unmatched topic"}, "status": "error"},
        ]
        assert (await raw.receive())[1] == "3"
        await raw.alive()


@MOCK_CLOCK
async def test_joins_of_a_topic_that_is_joining_cancel_each_other_and_the_last_one_counts() -> None:
    """After 10 seconds, clients leave a topic and join it again."""
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.send("0", "0", "room:1", "phx_join", {"seconds": 10**6})
        await raw.send("0", "x", "room:1", "phx_leave", {})
        for number in range(1, 200):
            await raw.send(str(number), str(number), "room:1", "phx_join", {"seconds": 10**6})
            await raw.send(str(number), f"x{number}", "room:1", "x", {})
        await raw.send("last", "last", "room:1", "phx_join", {})
        for number in range(200):
            message = await raw.receive()
            assert (message[1], message[4]["status"]) == (str(number), "error")
            if number == 0:
                assert (await raw.receive())[:2] == ["0", "x"]
        assert (await raw.receive())[4]["status"] == "ok"
        assert (await raw.ask("last", "y", "room:1", "x", {}))[:2] == ["last", "y"]
        await raw.alive()
        assert trio.current_time() < 10


@MOCK_CLOCK
async def test_of_many_joins_behind_a_slow_terminate_only_the_last_one_runs() -> None:
    joined = []

    class Room(Channel[None]):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            joined.append(payload)
            return {}, None

        async def terminate(self, reason: Any, state: None) -> None:
            await trio.sleep(5)

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        for number in range(2, 100):
            await raw.send(str(number), str(number), "room:1", "phx_join", {"n": number})
        refs = [(await raw.receive())[1] for _ in range(99)]
        assert refs == [*map(str, range(2, 100)), "1"]
        await raw.alive()
        assert joined == [{}, {"n": 99}]


@MOCK_CLOCK
async def test_a_join_that_is_left_before_it_has_begun_is_forgotten() -> None:
    class Room(Channel[None]):
        async def terminate(self, reason: Any, state: None) -> None:
            await trio.sleep(5)

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("2", "2", "room:1", "phx_join", {})
        for number in range(MAX_PENDING):
            await raw.send("2", f"x{number}", "room:1", "x", {})
        await raw.send("2", "leave", "room:1", "phx_leave", {})
        assert [(await raw.receive())[3] for _ in range(2)] == ["phx_reply", "phx_close"]
        await trio.sleep(10)
        (connection,) = site.server.connections
        assert not connection._actor._socket.actors  # type: ignore[attr-defined]
        await raw.join(ref="3")
