"""Histories of channels: members that join later receive what they have missed."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.channels.history_helpers import CopyingBroker, CountedText, GapBroker, SlowBroker
from tests.connection.test_reference_cycles import interpreter_keeps_callers
from tests.protocols.clock import MOCK_CLOCK
from tests.server.helpers import LockstepListener
from trioglock import Gap, InvalidOption, UsageError
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    History,
    JoinRefused,
    Presence,
    Push,
)
from trioglock.channels.replay import Replay
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import InvalidMessage
from trioglock.pubsub import Broker, BrokerSession, Hub, MemoryBroker
from trioglock.pubsub.broker import Deliver
from trioglock.pubsub.history import FindRetention, id_before, parse_id

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
            case "typing":
                return Broadcast(event, payload, to_self=False, keep=False), state
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
            with pytest.raises(InvalidMessage, match="so its payload must be a dict"):
                await site.channels.broadcast("room:1", "news", payload)
        await site.channels.broadcast("plain:1", "news", b"binary")
        await raw.join()
        await raw.send("1", "2", "room:1", "shout", ["a list"])
        assert (await raw.receive())[3] == "phx_error"


async def test_an_id_in_a_payload_is_replaced() -> None:
    """The payload may be that of a client."""
    async with serving() as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "shout", {"id": "forged", "n": 1})
        frames = [await raw.raw()]
        assert (await raw.receive())[1] == "2"
        await site.channels.broadcast("room:1", "news", {"id": None, "n": 2})
        frames.append(await raw.raw())
        for number, frame in enumerate(frames, 1):
            assert isinstance(frame, str)
            assert frame.count('"id"') == 1
            payload = json.loads(frame)[4]
            assert payload["n"] == number
            assert parse_id(payload["id"])


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


async def test_an_event_that_is_not_kept_has_no_id_and_is_not_sent_to_later_members() -> None:
    """Clients cannot forge an id. The event keeps its place among the others."""
    async with serving() as site, site.dial() as raw, site.dial() as other:
        await raw.join()
        await other.join()
        await send(site, 1)
        await read(raw, 1)
        await raw.send("1", "2", "room:1", "typing", {"id": "5-0", "name": "al"})
        await raw.alive()
        await send(site, 2)
        await site.channels.broadcast("room:1", "typing", ["bo"], keep=False)
        _, [first] = await read(other, 1)
        assert await other.receive() == [None, None, "room:1", "typing", {"name": "al"}]
        await read(other, 1)
        assert await other.receive() == [None, None, "room:1", "typing", ["bo"]]
        await read(raw, 1)
        assert await raw.receive() == [None, None, "room:1", "typing", ["bo"]]
        async with site.dial() as later:
            assert await rejoin(later, first) == {"welcome": "room:1"}
            assert (await read(later, 1))[0] == [2]
            await later.alive()
        await site.channels.broadcast("plain:1", "typing", {}, keep=False)
        await raw.alive()
    assert site.channels.hub.statistics().channels == 0


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


async def test_a_sender_does_not_receive_its_event_for_others_during_its_replay() -> None:
    class Big(Room):
        history = History(size=1000)

    broker = SlowBroker()
    broker.seconds_before_reading = 1
    async with serving_channels(Big, hub=Hub(broker=broker)) as site, site.dial() as raw:
        await send(site, *range(40))
        await rejoin(raw, 0)
        await raw.send("1", "2", "room:1", "others", {"n": 40})  # before the rest is read
        received = [await raw.receive() for _ in range(41)]
        assert [one[4]["n"] for one in received if one[3] == "news"] == list(range(40))
        await send(site, 41)
        assert (await read(raw, 1))[0] == [41]


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


@pytest.mark.slow
async def test_replays_to_a_client_that_does_not_read_need_little_memory() -> None:
    """The pages of 30 topics would be 48 MB; the client receives all events when it reads."""
    async with (
        serving(
            hub=Hub(broker=CopyingBroker()),
            listener=LockstepListener(),
            serve_options={"write_limit": 5_000},
        ) as site,
        site.dial(max_queue=1) as slow,
    ):
        topics = [f"latest:{number}" for number in range(30)]
        for topic in topics:
            for number in range(16):
                payload = {"n": number, "text": "x" * 100_000}
                await site.channels.broadcast(topic, "news", payload)
        for topic in topics:
            await slow.send("1", topic, topic, "phx_join", {"after": 0})
        await wait_all_tasks_blocked()
        gc.collect()
        assert sum(map(len, CountedText.living)) < 500_000
        numbers: dict[str, list[int]] = {topic: [] for topic in topics}
        for _ in range(30 * 17):
            _, _, topic, event, payload = await slow.receive()
            if event == "news":
                numbers[topic].append(payload["n"])
        assert numbers == {topic: list(range(16)) for topic in topics}
        await slow.alive()


async def test_a_slow_hook_does_not_delay_the_replays_of_other_topics() -> None:
    class Stuck(Room):
        intercept = ("news",)

        async def handle_out(self, event: str, payload: Any, state: None) -> Any:
            await trio.sleep_forever()

    routes: dict[str, type[Channel[Any]]] = {**ROUTES, "stuck": Stuck}
    async with serving_channels(routes) as site, site.dial() as raw:
        for topic in ("stuck", "room:1"):
            for number in range(5):
                payload = {"n": number, "text": "x" * 100_000}
                await site.channels.broadcast(topic, "news", payload)
        await rejoin(raw, 0, "stuck")
        await rejoin(raw, 0)
        with trio.fail_after(5):
            assert [(await raw.receive())[4]["n"] for _ in range(5)] == list(range(5))


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


@asynccontextmanager
async def serving_gaps() -> AsyncIterator[tuple[ChannelsSite, GapBroker, RawPhoenix]]:
    """A server with a client in a topic with a history, and in one without."""
    broker = GapBroker()
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        await raw.join()
        await raw.join("plain:1", "2")
        yield site, broker, raw


LOST = ["1", "1", "room:1", "phx_error", {"reason": "events may be missing"}]


async def test_after_a_gap_members_of_topics_with_a_history_have_to_join_again(
    ended: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_gaps() as (site, broker, raw):
        await send(site, 1)
        _, [last] = await read(raw, 1)
        gap = Gap(2.0)
        broker.deliver(gap)
        assert await raw.receive() == LOST
        assert ended == [gap]
        await send(site, 2)
        await raw.alive()
        assert await rejoin(raw, last, ref="3") == {"welcome": "room:1"}
        assert (await read(raw, 1))[0] == [2]
        await send(site, 3, topic="plain:1")
        assert (await raw.receive())[4] == {"n": 3}
    assert caplog.text.count("broadcasts of the last 2.0 seconds may be missing") == 1


async def test_a_gap_of_one_topic_concerns_no_other_topic(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_gaps() as (_, broker, raw):
        await raw.join("room:2", "3")
        broker.deliver(Gap(2.0, None, "phoenix:topic:room:1"))
        assert await raw.receive() == LOST
        await raw.alive()
    assert "may be missing in the topic 'room:1'" in caplog.text


async def test_a_gap_of_channels_without_a_history_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_gaps() as (site, broker, raw):
        subscription = site.channels.hub.subscribe("news", gaps=True)
        broker.deliver(Gap(2.0, "5-0", "incoming"))
        await raw.alive()
        assert await subscription.__anext__() == Gap(2.0)
    assert caplog.text.count("broadcasts of the last 2.0 seconds may be missing") == 1


async def test_a_gap_while_a_client_joins_is_not_overlooked() -> None:
    broker = SlowBroker()
    broker.seconds_after_reading = 1
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        await send(site, 1)
        await raw.send("1", "1", "room:1", "phx_join", {"after": 0})
        await trio.sleep(0.5)
        broker.session.lose()
        assert (await raw.receive())[4] == {"response": {"welcome": "room:1"}, "status": "ok"}
        assert (await read(raw, 1))[0] == [1]
        assert await raw.receive() == LOST


@pytest.mark.parametrize("keep_last", [False, True])
async def test_events_that_arrive_while_a_client_joins_are_neither_lost_nor_sent_twice(
    keep_last: bool,
) -> None:
    """Before and after the history is read, and also if they are delivered late."""
    topic = "latest:1" if keep_last else "room:1"
    broker = SlowBroker()
    broker.seconds_before_reading = broker.seconds_after_reading = 0.5
    broker.delivery_seconds = 0.3
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        await send(site, 0, topic=topic)
        payload = {} if keep_last else {"after": 0}
        await raw.send("1", "1", topic, "phx_join", payload)
        for number in range(1, 30):
            await send(site, number, topic=topic)
            await trio.sleep(0.1)
        reply = await raw.receive()
        assert reply[4] == {"response": {"welcome": topic}, "status": "ok"}
        first = (await read(raw, 1, topic))[0][0]
        assert (await read(raw, 29 - first, topic))[0] == list(range(first + 1, 30))
        await trio.sleep(1)
        await raw.alive()


async def test_a_history_that_cannot_be_read_refuses_the_join(
    ended: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    broker = SlowBroker()
    broker.is_unavailable = True
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        reply = await raw.ask("1", "1", "room:1", "phx_join", {"after": 0})
        assert reply[4] == {
            "response": {"reason": "the history cannot be read"},
            "status": "error",
        }
        await raw.alive()
        assert len(ended) == 1
        assert site.channels.hub.statistics().subscribers == 0
        broker.is_unavailable = False
        assert await rejoin(raw, 0, ref="2") == {"welcome": "room:1"}
    warning = "the history of 'room:1', and possibly others, cannot be read: on purpose"
    assert caplog.messages.count(warning) == 1


async def test_joins_that_fail_in_one_outage_are_logged_once(
    ended: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    broker = SlowBroker()
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        for outage in (1, 2):
            broker.is_unavailable = True
            for number in range(10):
                reply = await raw.ask("1", "1", f"room:{number}", "phx_join", {"after": 0})
                assert reply[4]["status"] == "error"
            assert caplog.text.count("cannot be read") == outage
            broker.is_unavailable = False
            async with site.dial() as other:
                await rejoin(other, 0)


@pytest.mark.parametrize("ending", ["abort", "rejoin", "hub"])
async def test_a_join_that_ends_while_the_history_is_read_terminates_once(
    ending: str, ended: list[Any]
) -> None:
    broker = SlowBroker()
    broker.seconds_after_reading = 1
    async with serving(hub=Hub(broker=broker)) as site, site.dial() as raw:
        await send(site, 1)
        await raw.send("1", "1", "room:1", "phx_join", {"after": 0})
        await trio.sleep(0.5)
        match ending:
            case "abort":
                raw.connection.abort()
            case "rejoin":
                await raw.send("2", "2", "room:1", "phx_join", {})
                received = [await raw.receive() for _ in range(2)]
                assert [one[4]["status"] for one in received] == ["error", "ok"]
                assert len(ended) == 1
                await raw.alive()
                return
            case "hub":
                site.server.close()
        await trio.sleep(10)
        assert len(ended) == 1
        assert site.channels.hub.statistics().subscribers == 0


async def test_a_broker_without_histories_of_topics_is_refused() -> None:
    class NoHistory(Broker):
        def open(
            self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
        ) -> AbstractAsyncContextManager[BrokerSession]:
            return MemoryBroker().open(name, deliver)

    hub = Hub(broker=NoHistory())
    Channels(ROUTES, hub=hub)
    with pytest.raises(UsageError, match="NoHistory keeps no history of topics"):
        async with hub:
            pass


async def test_channels_with_a_history_must_exist_before_the_hub_is_opened() -> None:
    async with Hub() as hub:
        Channels({"plain:*": Plain}, hub=hub)
        with pytest.raises(UsageError, match="create the Channels before you open the hub"):
            Channels({"room:*": Room}, hub=hub)
    async with serving() as site:
        Channels({"other:*": Room}, hub=site.channels.hub)


async def test_a_second_server_with_the_same_hub_keeps_events_too() -> None:
    async with serving() as site, site.dial() as raw:
        other = Channels({"*": Plain}, hub=site.channels.hub)
        await other.broadcast("room:1", "news", {"n": 1})
        await rejoin(raw, 0)
        assert (await read(raw, 1))[0] == [1]


async def test_the_history_of_paths_is_separate() -> None:
    """And presence and other topics are not kept."""
    hub = Hub(broker=MemoryBroker(history=2))
    async with serving(hub=hub) as site:
        await hub.publish("one", "news")
        last = hub.history.last
        await send(site, 1, topic="plain:1")
        await hub.publish("entry", "phoenix:presence")
        assert hub.history.last == last
        await send(site, *range(5))
        again = hub.subscribe("news", after=id_before(last), gaps=True)
        assert (await again.__anext__()).data == "one"  # type: ignore[union-attr]
    hub = Hub()
    async with serving(hub=hub) as site:
        await send(site, 1)
        with pytest.raises(UsageError, match="keeps no history"):
            hub.history  # noqa: B018


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": None}, {"seconds": 0}, {"keep_last": 1}, {"id_field": None}],
)
async def test_invalid_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        History(**options)
    broken: Any = type("Broken", (Channel,), {"history": options})
    with pytest.raises(InvalidOption, match="history must be a History such as"):
        Channels({"*": broken}, hub=Hub())


async def test_messages_of_other_programs_are_passed_on_or_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as site, site.dial() as raw:
        await raw.join()
        for data in ('[null, null, "room:1", "news", { "n": 1 } ]\n', "[null,null]", "{}"):
            await site.channels.hub.publish(data, "phoenix:topic:room:1")
        assert (await read(raw, 1))[0] == [1]
        await raw.alive()
    assert caplog.text.count("is not a broadcast") == 2


async def test_the_client_of_this_package_receives_what_it_has_missed() -> None:
    async with serving() as site, site.phoenix() as client:
        payloads: list[Any] = []

        async def payload() -> Any:
            payloads.append(None)
            return {"after": 0}

        room = await client.join("room:1", payload, id_field="id")
        await send(site, 1, 2)
        assert (await room.receive())[1]["n"] == 1
        await wait_all_tasks_blocked()  # the second event waits in the queue of the channel
        for connection in site.server.connections:
            connection.abort()
        await send(site, 3)
        assert [(await room.receive())[1]["n"] for _ in range(2)] == [2, 3]
        assert room.response == {"welcome": "room:1"}
        assert len(payloads) == 2
        for connection in site.server.connections:
            connection.abort()
        await send(site, *range(4, 14))
        assert (await room.receive())[1]["n"] == 9
        assert room.response["gap"] is True


async def test_a_presence_with_the_name_of_the_id_field_is_not_an_id() -> None:
    class Meeting(Room):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            await presence.track(self, "id", {})
            return {}, None

    async with serving_channels(Meeting) as site, site.phoenix() as client:
        presence = Presence(site.channels)
        room = await client.join("room:1", {"after": 0}, id_field="id")
        await send(site, 1)
        events = [await room.receive() for _ in range(2)]
        assert sorted(event for event, _ in events) == ["news", "presence_state"]
        for connection in site.server.connections:
            connection.abort()
        await send(site, 2)
        events = [await room.receive() for _ in range(2)]
        assert [payload["n"] for event, payload in events if event == "news"] == [2]


async def test_the_client_needs_a_dict_to_ask_for_what_it_has_missed() -> None:
    class Open(Room):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return {}, None

    async with serving_channels(Open) as site, site.phoenix() as client:
        with pytest.raises(InvalidOption, match="id_field must be a str or None"):
            await client.join("room:1", id_field=5)  # type: ignore[arg-type]
        room = await client.join("room:1", lambda: ["a list"], id_field="id")
        await send(site, 1)
        await room.receive()
        for connection in site.server.connections:
            connection.abort()
        with pytest.raises(phoenix.InvalidMessage, match="must be a dict"):
            await room.receive()


@interpreter_keeps_callers
@pytest.mark.usefixtures("no_tracing")
async def test_a_replay_that_has_ended_needs_no_memory() -> None:
    async with serving() as site, site.dial() as raw:
        await send(site, 1)
        await rejoin(raw, 0)
        await read(raw, 1)
        await raw.alive()
        assert not any(isinstance(one, Replay) for one in gc.get_objects())
        await send(site, 2)
        assert (await read(raw, 1))[0] == [2]
