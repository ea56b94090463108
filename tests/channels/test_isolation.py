"""A hook that fails or never returns affects no other topic of its client, and no other client."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.channels.helpers import RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock.channels import Answer, Broadcast, Channel
from trioglock.channels.actor import MAX_PENDING


class Good(Channel[None]):
    """Hooks without faults."""

    intercept = ("out",)

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        if event == "cast":
            self.cast(None)
        return Broadcast("out", {}) if event == "out" else Answer("ok"), state

    def handle_cast(self, message: Any, state: None) -> Any:
        return None, state


class Fault(Exception):
    """Raised by hooks on purpose."""


def fail(self: Good, *args: Any) -> Any:
    raise Fault


async def fail_later(self: Good, *args: Any) -> Any:
    await trio.sleep(1)
    raise Fault


async def hang(self: Good, *args: Any) -> Any:
    await trio.sleep_forever()


HOOKS = ["join", "handle_in", "handle_out", "handle_cast", "terminate"]


async def call(raw: RawPhoenix, hook: str) -> None:
    """Make the server call a hook of ``bad:1``."""
    await raw.send("bad", "bad", "bad:1", "phx_join", {})
    event = {"handle_out": "out", "handle_cast": "cast", "terminate": "phx_leave"}.get(hook, "in")
    await raw.send("bad", "x", "bad:1", event, {})


async def check(raw: RawPhoenix) -> None:
    """The topic ``good:1`` works: hooks, broadcasts, a leave, and another join."""
    await raw.send("good", "2", "good:1", "in", {})
    await raw.send("good", "3", "good:1", "cast", {})
    await raw.send("good", "4", "good:1", "out", {})
    await raw.send("good", "5", "good:1", "phx_leave", {})
    await raw.send("again", "again", "good:1", "phx_join", {})
    await raw.send(None, "hb", "phoenix", "heartbeat", {})
    found: list[tuple[Any, Any]] = []
    while not found or found[-1] != ("hb", "phx_reply"):
        message = await raw.receive()
        if message[2] != "bad:1":
            found.append((message[1], message[3]))
    assert found == [
        ("2", "phx_reply"),
        ("3", "phx_reply"),
        (None, "out"),
        ("5", "phx_reply"),
        ("good", "phx_close"),
        ("again", "phx_reply"),
        ("hb", "phx_reply"),
    ]


@MOCK_CLOCK
@pytest.mark.parametrize("fault", [fail, fail_later, hang])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_fails_or_hangs_delays_no_other_topic_and_no_other_client(
    hook: str, fault: Any
) -> None:
    bad = type("Bad", (Good,), {hook: fault})
    routes: Any = {"bad:*": bad, "good:*": Good}
    async with serving_channels(routes) as site, site.dial() as raw, site.dial() as other:
        for client in (raw, other):
            await client.join("good:1", "good")
            await client.send("good", "1", "good:1", "phx_leave", {})
            assert [(await client.receive())[1] for _ in range(2)] == ["1", "good"]
            await client.join("good:1", "good")
            await call(client, hook)
            # Another member of the topic would receive the broadcast, too.
            began = trio.current_time()
            await check(client)
            assert trio.current_time() == began
            await client.send("again", "6", "good:1", "phx_leave", {})
        for client in (raw, other):
            while (await client.receive())[:2] != ["again", "again"]:
                pass


@MOCK_CLOCK
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_client_can_join_again_while_a_hook_of_its_earlier_join_hangs(hook: str) -> None:
    class Bad(Good):
        """Only the first join hangs."""

        count = 0

    async def hang_first(self: Any, *args: Any) -> Any:
        if self.number == 1:
            await trio.sleep_forever()
        return getattr(Good, hook)(self, *args)

    def number(self: Any) -> None:
        Bad.count += 1
        self.number = Bad.count

    Bad.__init__ = number  # type: ignore[method-assign]
    setattr(Bad, hook, hang_first)
    async with serving_channels({"bad:*": Bad}) as site, site.dial() as raw:
        Bad.count = 0
        await call(raw, hook)
        await raw.send("new", "new", "bad:1", "phx_join", {})
        while (await raw.receive())[:2] != ["new", "new"]:
            pass
        await raw.send("new", "y", "bad:1", "in", {})
        while (await raw.receive())[:2] != ["new", "y"]:
            pass
        assert trio.current_time() < 60


@MOCK_CLOCK
async def test_messages_for_a_hook_that_hangs_are_bounded_and_delay_nothing() -> None:
    routes: Any = {"bad:*": type("Bad", (Good,), {"join": hang}), "good:*": Good}
    async with serving_channels(routes, message_rate=None) as site, site.dial() as raw:
        await raw.join("good:1", "good")
        await raw.send("bad", "bad", "bad:1", "phx_join", {})
        for number in range(2 * MAX_PENDING):
            await raw.send("bad", str(number), "bad:1", "x", {})
        for number in range(MAX_PENDING, 2 * MAX_PENDING):
            message = await raw.receive()
            assert (message[1], message[4]["status"]) == (str(number), "error")
        await check(raw)


@MOCK_CLOCK
@pytest.mark.parametrize("where", ["topics", "one topic"])
async def test_joins_that_hang_count_as_topics(where: str) -> None:
    bad = type("Bad", (Good,), {"join": hang})
    async with (
        serving_channels({"bad:*": bad}, max_topics=5, join_rate=None) as site,
        site.dial() as raw,
    ):
        for number in range(1000):
            topic = f"bad:{number}" if where == "topics" else "bad:1"
            await raw.send(str(number), str(number), topic, "phx_join", {})
        reason = "too many channels joined" if where == "topics" else "joined again"
        for _ in range(995 if where == "topics" else 999):
            assert (await raw.receive())[4]["response"] == {"reason": reason}
        await raw.alive()
        (connection,) = site.server.connections
        assert len(connection._actor._socket.actors) == (5 if where == "topics" else 1)  # type: ignore[attr-defined]
