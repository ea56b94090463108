"""More messages than the hooks can handle, and messages that arrive at the wrong time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock.channels import Answer, Channel, Push
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
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


@MOCK_CLOCK
async def test_a_malformed_message_behind_a_slow_join_closes_with_1011() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.join()
        await raw.send("2", "2", "room:2", "phx_join", {"seconds": 1})
        await raw.send("1", "3", "room:1", "x", {})
        await raw.connection.send("{")
        await raw.send("1", "4", "room:1", "x", {})
        assert [(await raw.receive())[1] for _ in range(2)] == ["2", "3"]
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
async def test_a_client_that_sends_a_lot_behind_a_slow_join_is_not_read() -> None:
    async with (
        serving_channels(Doorman, serve_options={"max_queue": 10}) as site,
        site.dial() as raw,
    ):
        await raw.join()
        await raw.send("2", "2", "room:2", "phx_join", {"seconds": 5})
        for number in range(2000):
            await raw.send("1", str(number), "room:1", "x", {})
            if number % 50 == 0:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        (connection,) = site.server.connections
        assert connection.statistics().messages_received < 2000
        refs = [(await raw.receive())[1] for _ in range(2001)]
        assert refs == ["2", *map(str, range(2000))]


@MOCK_CLOCK
async def test_joins_that_wait_are_handled_in_order_with_everything_else() -> None:
    async with serving_channels(Doorman) as site, site.dial() as raw:
        await raw.join()
        for number in range(2, 6):
            topic = f"room:{number}"
            await raw.send(str(number), str(number), topic, "phx_join", {"seconds": 6 - number})
            await raw.send(str(number), f"x{number}", topic, "x", {})
            await raw.send("1", f"y{number}", "room:1", "x", {})
        refs = [(await raw.receive())[1] for _ in range(12)]
        assert refs == [f"{kind}{number}" for number in range(2, 6) for kind in ("", "x", "y")]
