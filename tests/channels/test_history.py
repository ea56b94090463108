"""Histories of channels: members that join later receive what they have missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from tests.server.helpers import LockstepListener
from trioglock import Gap
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    History,
    JoinRefused,
    Push,
)
from trioglock.protocols.phoenix import InvalidMessage
from trioglock.pubsub import Hub

pytestmark = [MOCK_CLOCK]


class Room(Channel[None]):
    """Broadcasts every push; the join's payload chooses what happens."""

    history = History(size=5, seconds=60)
    ended: ClassVar[list[Any]]

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        if payload.get("refused"):
            raise JoinRefused({"reason": "no"})
        return payload.get("response", {"welcome": topic}), None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        match event:
            case "others":
                return (Broadcast(event, payload, to_self=False), Answer("ok")), state
            case "direct":
                return Push(event, payload), state
        return (Broadcast(event, payload), Answer("ok")), state

    def terminate(self, reason: Any, state: None) -> None:
        self.ended.append(reason)


class Plain(Channel[None]):
    """Without a history."""

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Broadcast(event, payload), state


class Latest(Room):
    history = History(keep_last=True)


class Custom(Room):
    history = History(id_field='an "id"')


class Intercepting(Room):
    intercept = ("news",)

    async def handle_out(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep(0.01)
        return Push("changed", payload), state


ROUTES: dict[str, type[Channel[Any]]] = {
    "room:*": Room,
    "plain:*": Plain,
    "latest:*": Latest,
    "custom:*": Custom,
    "intercepting:*": Intercepting,
}


@pytest.fixture(autouse=True)
def ended() -> list[Any]:
    Room.ended = []
    return Room.ended


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[ChannelsSite]:
    async with serving_channels(ROUTES, **options) as site:
        yield site


async def send(site: ChannelsSite, *numbers: int, topic: str = "room:1") -> None:
    """Broadcast numbered events."""
    for number in numbers:
        await site.channels.broadcast(topic, "news", {"n": number})


async def rejoin(
    raw: RawPhoenix, after: Any, topic: str = "room:1", ref: str = "1"
) -> dict[str, Any]:
    """Join with an id, and return the response."""
    reply = await raw.ask(ref, ref, topic, "phx_join", {"after": after})
    assert reply[:4] == [ref, ref, topic, "phx_reply"]
    assert reply[4]["status"] == "ok"
    response: dict[str, Any] = reply[4]["response"]
    return response


async def read(raw: RawPhoenix, count: int, topic: str = "room:1") -> tuple[list[int], list[str]]:
    """Return the numbers and the ids of the next events."""
    numbers, ids = [], []
    for _ in range(count):
        join_ref, ref, found, event, payload = await raw.receive()
        assert [join_ref, ref, found, event] == [None, None, topic, "news"]
        numbers.append(payload["n"])
        ids.append(payload["id"])
        assert payload == {"n": numbers[-1], "id": ids[-1]}
    return numbers, ids


async def test_a_member_that_joins_with_an_id_receives_what_it_has_missed() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join()
        await send(site, 1, 2)
        _, [first, _] = await read(raw, 2)
        async with site.dial() as other:
            assert await rejoin(other, first) == {"welcome": "room:1"}
            assert (await read(other, 1))[0] == [2]
            await send(site, 3)
            assert (await read(other, 1))[0] == [3]
            await other.alive()
        async with site.dial() as other:
            assert await rejoin(other, (await read(raw, 1))[1][0]) == {"welcome": "room:1"}
            await other.alive()


async def test_all_members_receive_the_same_ids() -> None:
    async with serving() as site, site.dial() as first, site.dial() as second:
        await first.join()
        await second.join()
        await send(site, 1, 2, 3)
        assert await read(first, 3) == await read(second, 3)


async def test_a_gap_is_reported_if_events_are_no_longer_kept() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join()
        await send(site, *range(8))
        _, ids = await read(raw, 8)
        for number, gap in [(1, True), (2, False)]:
            async with site.dial() as other:
                response = await rejoin(other, ids[number])
                assert response == {"welcome": "room:1", **({"gap": True} if gap else {})}
                assert (await read(other, 5))[0] == [3, 4, 5, 6, 7]
                await other.alive()


async def test_events_are_kept_for_some_time() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join()
        await send(site, 1)
        await trio.sleep(40)
        await send(site, 2)
        _, [first, second] = await read(raw, 2)
        await trio.sleep(40)
        async with site.dial() as other:
            assert "gap" not in await rejoin(other, first)
            assert (await read(other, 1))[0] == [2]
        async with site.dial() as other:
            await rejoin(other, 0)
            assert (await read(other, 1))[0] == [2]
        await trio.sleep(40)
        for after, gap in [(first, True), (second, False)]:
            async with site.dial() as other:
                assert ("gap" in await rejoin(other, after)) is gap
                await other.alive()


async def test_an_unknown_id_is_a_gap() -> None:
    async with serving() as site:
        await send(site, 1, 2)
        for after, expected in [("1-0", [1, 2]), ("5", [1, 2]), (f"{2**62}-7", [])]:
            async with site.dial() as raw:
                assert (await rejoin(raw, after))["gap"] is True
                assert (await read(raw, len(expected)))[0] == expected
                await raw.alive()


@pytest.mark.parametrize("after", [0, "0", "0-0"])
async def test_zero_asks_for_all_events_that_are_kept(after: Any) -> None:
    async with serving() as site, site.dial() as raw:
        assert await rejoin(raw, after, topic="room:2") == {"welcome": "room:2"}
        await send(site, *range(8))
        assert await rejoin(raw, after) == {"welcome": "room:1"}
        assert (await read(raw, 5))[0] == [3, 4, 5, 6, 7]
        await raw.alive()


@pytest.mark.parametrize("payload", [{}, {"after": None}, [], "0"])
async def test_without_an_id_only_new_events_are_received(payload: Any) -> None:
    class Simple(Room):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return {}, None

    async with serving_channels(Simple) as site, site.dial() as raw:
        await send(site, 1)
        reply = await raw.ask("1", "1", "room:1", "phx_join", payload)
        assert reply[4] == {"response": {}, "status": "ok"}
        await send(site, 2)
        assert (await read(raw, 1))[0] == [2]


@pytest.mark.parametrize("after", ["", "x", "1-2-3", -1, 5, 1.0, True, False, [], {}])
async def test_a_malformed_id_is_refused_before_the_hook_is_called(
    after: Any, ended: list[Any]
) -> None:
    async with serving() as site, site.dial() as raw:
        reply = await raw.ask("1", "1", "room:1", "phx_join", {"after": after, "refused": True})
        assert reply[4]["status"] == "error"
        assert reply[4]["response"] == {
            "reason": "after must be the id of an event, 0 for all events that are kept, or null"
        }
        await raw.join(ref="2")
    assert len(ended) == 1


async def test_the_latest_event_is_sent_with_keep_last() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join("latest:1")
        await raw.alive()
        await send(site, 1, 2, topic="latest:1")
        _, [first, second] = await read(raw, 2, "latest:1")
        async with site.dial() as other:
            await other.join("latest:1")
            assert await read(other, 1, "latest:1") == ([2], [second])
            await other.alive()
        async with site.dial() as other:
            await rejoin(other, first, "latest:1")
            assert await read(other, 1, "latest:1") == ([2], [second])
        async with site.dial() as other:
            await rejoin(other, second, "latest:1")
            await other.alive()


async def test_the_field_of_the_id_can_be_chosen() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join("custom:1")
        payloads: list[Any] = [{}, {"id": 7}, {"a": {}}, {"text": "}{"}]
        for payload in payloads:
            await site.channels.broadcast("custom:1", "news", payload)
            received = (await raw.receive())[4]
            assert received.pop('an "id"')
            assert received == payload


async def test_broadcasts_that_can_have_no_id_are_errors() -> None:
    async with serving() as site, site.dial() as raw:
        payloads: list[Any] = [[], "text", None, 5, b"binary"]
        for payload in payloads:
            with pytest.raises(InvalidMessage, match="must have a dict as its payload"):
                await site.channels.broadcast("room:1", "news", payload)
        with pytest.raises(InvalidMessage, match="choose another id_field"):
            await site.channels.broadcast("room:1", "news", {"id": None})
        await site.channels.broadcast("plain:1", "news", b"binary")
        await raw.join()
        await raw.send("1", "2", "room:1", "shout", ["a list"])
        assert (await raw.receive())[3] == "phx_error"


async def test_only_broadcasts_are_kept() -> None:
    async with serving() as site, site.dial() as raw:
        await rejoin(raw, 0)
        await raw.send("1", "2", "room:1", "direct", {"n": 1})
        assert await raw.receive() == ["1", None, "room:1", "direct", {"n": 1}]
        site.channels.local_broadcast("room:1", "local", {"n": 2})
        assert await raw.receive() == [None, None, "room:1", "local", {"n": 2}]
        await raw.send("1", "3", "room:1", "news", {"n": 3})
        assert (await read(raw, 1))[0] == [3]
        async with site.dial() as other:
            await rejoin(other, 0)
            assert (await read(other, 1))[0] == [3]
            await other.alive()


async def test_a_broadcast_of_a_plain_hook_is_delivered_before_the_next_message() -> None:
    async with serving() as site, site.dial() as raw:
        await rejoin(raw, 0)
        for number in range(3):
            await raw.send("1", str(number), "room:1", "news", {"n": number})
        for number in range(3):
            assert (await read(raw, 1))[0] == [number]
            assert (await raw.receive())[1] == str(number)


async def test_topics_without_a_history_are_as_before() -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join("plain:1", payload={"after": "anything"})
        await send(site, 1, topic="plain:1")
        assert await raw.raw() == '[null,null,"plain:1","news",{"n":1}]'


async def test_the_response_must_be_an_object(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as site, site.dial() as raw:
        responses: list[Any] = [[], "text", None]
        for number, response in enumerate(responses):
            ref = str(number)
            reply = await raw.ask(ref, ref, "room:1", "phx_join", {"response": response})
            assert reply[4] == {"response": {"reason": "join crashed"}, "status": "error"}
    assert "must return a dict as the response, because the class has a history" in caplog.text


async def test_a_refused_join_receives_nothing() -> None:
    async with serving() as site, site.dial() as raw:
        await send(site, 1)
        reply = await raw.ask("1", "1", "room:1", "phx_join", {"after": 0, "refused": True})
        assert reply[4] == {"response": {"reason": "no"}, "status": "error"}
        await raw.alive()
        assert site.channels.hub.statistics().subscribers == 0


async def test_intercepted_events_are_replayed_through_the_hook() -> None:
    async with serving() as site, site.dial() as raw:
        await send(site, 1, 2, 3, topic="intercepting:1")
        await rejoin(raw, 0, "intercepting:1")
        await send(site, 4, topic="intercepting:1")
        for number in range(1, 5):
            _, _, _, event, payload = await raw.receive()
            assert (event, payload["n"]) == ("changed", number)
            assert payload["id"]


async def test_the_sender_of_an_event_for_others_receives_it_after_joining_again() -> None:
    """The history does not contain who a sender was on an earlier connection."""
    async with serving() as site, site.dial() as raw, site.dial() as other:
        await rejoin(raw, 0)
        await other.join()
        await raw.send("1", "2", "room:1", "others", {"n": 1})
        assert (await raw.receive())[1] == "2"
        assert (await other.receive())[4]["n"] == 1
        await raw.alive()
        await rejoin(raw, 0, ref="3")
        assert (await raw.receive())[3] == "phx_close"
        assert (await raw.receive())[4]["n"] == 1


async def test_a_member_that_leaves_during_its_replay_receives_nothing_more() -> None:
    class Big(Room):
        history = History(size=1000)

    async with (
        serving_channels(
            Big, listener=LockstepListener(), serve_options={"write_limit": 5_000}
        ) as site,
        site.dial(max_queue=1) as slow,
    ):
        for number in range(100):
            await site.channels.broadcast("room:1", "news", {"n": number, "text": "x" * 1000})
        await slow.send("1", "1", "room:1", "phx_join", {"after": 0})
        await wait_all_tasks_blocked()
        await slow.send("1", "2", "room:1", "phx_leave", {})
        received = [await slow.receive()]
        while received[-1][3] != "phx_close":
            received.append(await slow.receive())
        assert received[0][3] == "phx_reply"
        events = [one[4]["n"] for one in received if one[3] == "news"]
        assert events == list(range(len(events)))
        assert len(events) < 100
        await slow.alive()


async def test_a_slow_member_receives_a_long_history_and_all_live_events_in_order() -> None:
    class Big(Room):
        history = History(size=1000)

    async with (
        serving_channels(
            Big,
            hub=Hub(max_queue=10),
            listener=LockstepListener(),
            serve_options={"write_limit": 5_000},
        ) as site,
        site.dial(max_queue=1) as slow,
    ):
        text = "x" * 1000
        for number in range(400):
            await site.channels.broadcast("room:1", "news", {"n": number, "text": text})
        assert await rejoin(slow, 0) == {"welcome": "room:1"}
        for number in range(400, 600):
            await site.channels.broadcast("room:1", "news", {"n": number, "text": text})
        numbers = [(await slow.receive())[4]["n"] for _ in range(600)]
        assert numbers == list(range(600))
        await slow.alive()


async def test_a_replay_that_is_overtaken_by_the_history_ends_in_phx_error(
    ended: list[Any],
) -> None:
    async with (
        serving(
            hub=Hub(max_queue=1),
            listener=LockstepListener(),
            serve_options={"write_limit": 2_000},
        ) as site,
        site.dial(max_queue=1) as slow,
    ):
        for number in range(5):
            await site.channels.broadcast("room:1", "news", {"n": number, "text": "x" * 1000})
        await slow.send("1", "1", "room:1", "phx_join", {"after": 0})
        await wait_all_tasks_blocked()
        for number in range(5, 50):
            await site.channels.broadcast("room:1", "news", {"n": number, "text": "x" * 1000})
        received = [await slow.receive()]
        while received[-1][3] != "phx_error":
            received.append(await slow.receive())
        assert received[-1] == [
            "1",
            "1",
            "room:1",
            "phx_error",
            {"reason": "events may be missing"},
        ]
        events = [one[4] for one in received if one[3] == "news"]
        assert [one["n"] for one in events] == list(range(len(events)))
        assert isinstance(ended[0], Gap)
        await slow.send("2", "2", "room:1", "phx_join", {"after": events[-1]["id"]})
        reply = await slow.receive()
        assert reply[4]["response"]["gap"] is True
        assert [(await slow.receive())[4]["n"] for _ in range(5)] == list(range(45, 50))
