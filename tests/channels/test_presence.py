"""Presence on a server, with clients in memory."""

from __future__ import annotations

import json
import logging
import random
import re
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.channels.helpers import RawPhoenix
from tests.channels.presence_helpers import (
    CutBroker,
    PresenceRoom,
    PresenceSite,
    StrictRefs,
    logged_presence,
    received,
    refs_of,
    serving_presence,
    synced,
)
from trioglock import (
    ConnectionClosed,
    EncodeError,
    InvalidOption,
    MemoryListener,
    UsageError,
    serve,
)
from trioglock.channels import Channel, ChannelClosed, Channels, Presence
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub, MemoryBroker


async def test_the_client_receives_the_state_and_the_others_a_diff(
    autojump_clock: MockClock,
) -> None:
    async with serving_presence() as site, site.dial() as al, site.dial() as bo:
        await al.join(payload={"key": "al"})
        join_ref, ref, topic, event, state = await al.receive()
        assert [join_ref, ref, topic, event] == ["1", None, "room:1", "presence_state"]
        assert state == {
            "al": {"metas": [{"status": "here", "phx_ref": state["al"]["metas"][0]["phx_ref"]}]}
        }
        await bo.join(ref="7", payload={"key": "bo"})
        [[join_ref, ref, topic, event, both]] = await received(bo)
        assert [join_ref, ref, topic, event] == ["7", None, "room:1", "presence_state"]
        assert both == {**state, "bo": both["bo"]}
        assert await received(al) == [
            [None, None, "room:1", "presence_diff", {"joins": {"bo": both["bo"]}, "leaves": {}}]
        ]
        assert site.presence.list("room:1") == both
        assert site.presence.list("room:2") == {}


async def test_an_update_is_a_diff_with_the_ref_before(autojump_clock: MockClock) -> None:
    async with serving_presence() as site, site.dial() as al:
        await synced(al, "al")
        [old] = site.presence.list("room:1")["al"]["metas"]
        await al.send("1", "2", "room:1", "status", "away")
        [[_, _, _, event, diff]] = await received(al)
        [new] = diff["joins"]["al"]["metas"]
        assert event == "presence_diff"
        assert diff["leaves"] == {"al": {"metas": [old]}}
        assert new == {"status": "away", "phx_ref": new["phx_ref"], "phx_ref_prev": old["phx_ref"]}
        assert new["phx_ref"] != old["phx_ref"]


@pytest.mark.parametrize("how", ["untrack", "leave", "crash", "rejoin", "close", "loss"])
async def test_an_entry_ends_with_its_channel(autojump_clock: MockClock, how: str) -> None:
    async with serving_presence() as site, site.dial() as al:
        presence = await synced(al, "al")
        async with site.dial() as bo:
            await synced(bo, "bo")
            presence.receive(await received(al))
            assert list(presence.presence.state) == ["al", "bo"]
            match how:
                case "untrack":
                    await bo.send("1", "2", "room:1", "untrack", None)
                case "leave":
                    await bo.send("1", "2", "room:1", "phx_leave", {})
                case "crash":
                    await bo.send("1", "2", "room:1", "crash", {})
                case "rejoin":
                    await bo.send("2", "2", "room:1", "phx_join", {"key": "bo", "tracks": False})
                case "close":
                    await bo.connection.aclose()
                case "loss":
                    bo.connection.abort()
            diffs = await received(al)
        assert len(diffs) == 1
        presence.receive(diffs)
        assert list(presence.presence.state) == ["al"]
        assert list(site.keys()) == ["al"]
        assert await received(al) == []


async def test_a_rejoin_replaces_the_entry(autojump_clock: MockClock) -> None:
    """The client keeps a list without a key that leaves in between."""
    watching, log = logged_presence()
    async with serving_presence() as site, site.dial() as al, site.dial() as bo:
        presence = await synced(al, "al")
        await synced(bo, "bo")
        presence.receive(await received(al))
        await bo.send("2", "2", "room:1", "phx_join", {"key": "bo"})
        messages = await received(bo)
        assert [message[3] for message in messages] == ["phx_reply", "phx_close", "presence_state"]
        assert refs_of(messages[2][4]) == refs_of(site.presence.list("room:1"))
        watching.receive("presence_state", presence.presence.state, "1")
        for message in await received(al):
            watching.receive(message[3], message[4], "1")
        assert watching.state == site.presence.list("room:1")
        assert log == [("+", "al"), ("+", "bo")]


async def test_a_client_is_tracked_when_it_has_joined(autojump_clock: MockClock) -> None:
    async with serving_presence() as site, site.dial() as al, site.dial() as bo, site.dial() as cy:
        presence = await synced(al, "al")
        await bo.send("1", "1", "room:1", "phx_join", {"key": "bo", "seconds": 5})
        await cy.send("1", "1", "room:1", "phx_join", {"key": "cy", "seconds": 5, "refused": True})
        assert await received(al, 4) == []
        assert list(site.keys()) == ["al"]
        assert [message[3] for message in await received(bo, 2)] == ["phx_reply", "presence_state"]
        [refused] = await received(cy)
        assert refused[4] == {"status": "error", "response": {"reason": "full"}}
        presence.receive(await received(al))
        assert list(presence.presence.state) == list(site.keys()) == ["al", "bo"]


async def test_entries_can_be_changed_and_removed_before_the_client_has_joined(
    autojump_clock: MockClock,
) -> None:
    refusals: list[str] = []

    class Undecided(PresenceRoom):
        async def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, str]:
            for key in ("al", "bo", "cy"):
                await self.presence.track(self, key, {"status": "new"})
            await self.presence.untrack(self, "al")
            await self.presence.update(self, "bo", {"status": "away"})
            calls: list[Any] = [self.presence.track, self.presence.update]
            for call, key in zip(calls, ("cy", "al"), strict=True):
                with pytest.raises(UsageError) as refused:
                    await call(self, key, {})
                refusals.append(str(refused.value))
            return {}, ""

    async with serving_presence(room=Undecided) as site, site.dial() as raw:
        await raw.join()
        [[*_, event, state]] = await received(raw)
        assert event == "presence_state"
        shown = {key: [meta["status"] for meta in entry["metas"]] for key, entry in state.items()}
        assert shown == {"bo": ["away"], "cy": ["new"]}
        assert [text.split(" the key")[0] for text in refusals] == [
            "the channel already has",
            "the channel does not have",
        ]


@pytest.mark.parametrize("seconds", [0, 5])
async def test_a_client_that_disconnects_while_it_joins_leaves_no_entry(
    autojump_clock: MockClock, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_presence() as site:
        for _ in range(3):
            async with site.dial() as al:
                await al.send("1", "1", "room:1", "phx_join", {"key": "al", "seconds": seconds})
                al.connection.abort()
        await trio.sleep(10)
        assert site.keys() == {}
        assert repr(site.presence) == "<Presence of 0 channels in this process>"
    assert not caplog.records


async def test_the_hub_may_close_before_the_server(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And open again; presence starts again without entries."""
    hub, listener = Hub(), MemoryListener()
    room = type("Room", (PresenceRoom,), {})
    channels = Channels({"room:*": room}, hub=hub)
    presence = Presence(channels)
    setattr(room, "presence", presence)  # noqa: B010 - a new class
    async with (
        serve(channels.socket, listeners=[listener]) as server,
        trio.open_nursery() as nursery,
    ):
        site = PresenceSite(channels, listener, server, presence)
        for _ in range(2):
            async with hub:
                al = await nursery.start(hold, site)
                client = await synced(al, "al")
                assert list(client.presence.state) == list(site.keys()) == ["al"]
            with pytest.raises(ConnectionClosed):
                await al.receive()
            with pytest.raises(UsageError, match="is not open"):
                presence.list("room:1")
        nursery.cancel_scope.cancel()
    assert not caplog.records


async def test_a_client_that_is_tracked_later_receives_diffs_before_its_state(
    autojump_clock: MockClock,
) -> None:
    """Clients of Phoenix apply them after the state, which contains them."""
    async with serving_presence() as site, site.dial() as al, site.dial() as bo:
        await al.join(payload={"key": "al", "tracks": False})
        await synced(bo, "bo")
        [early] = await received(al)
        assert early[3] == "presence_diff"
        await al.send("1", "2", "room:1", "track", "al")
        [state] = await received(al)
        assert state[3] == "presence_state"
        client = phoenix.Presence()
        for message in (early, state):
            client.receive(message[3], message[4], "1")
        assert client.state.keys() == {"al", "bo"}
        assert client.state == site.presence.list("room:1")


async def test_a_channel_may_have_several_keys(autojump_clock: MockClock) -> None:
    """Its client receives one state, and diffs for the others."""
    async with serving_presence() as site, site.dial() as al:
        presence = await synced(al, "al")
        await al.send("1", "2", "room:1", "track", "also al")
        await al.send("1", "3", "room:1", "untrack", None)
        presence.receive(await received(al))
        assert list(presence.presence.state) == list(site.keys()) == ["also al"]
        await al.send("1", "4", "room:1", "phx_leave", {})
        await received(al)
        assert site.keys() == {}


async def test_changes_within_a_few_milliseconds_are_one_diff(autojump_clock: MockClock) -> None:
    async with serving_presence() as site, site.dial() as al, AsyncExitStack() as stack:
        presence = await synced(al, "al")
        clients = [await stack.enter_async_context(site.dial()) for _ in range(20)]
        for number, client in enumerate(clients):
            await client.send("1", "1", "room:1", "phx_join", {"key": f"user {number}"})
        diffs = await received(al)
        assert len(diffs) == 1
        presence.receive(diffs)
        assert len(presence.presence) == 21
        for client in clients:
            assert [message[3] for message in await received(client)] == [
                "phx_reply",
                "presence_state",
            ]


async def test_a_user_with_several_tabs_joins_once_and_leaves_once(
    autojump_clock: MockClock,
) -> None:
    """With the client of this package."""
    presence, log = logged_presence()
    async with serving_presence() as site, site.phoenix() as watcher:
        await watcher.join("room:1", {"key": "bo"}, presence=presence)
        async with site.phoenix() as phone:
            await phone.join("room:1", {"key": "al"})
            await trio.sleep(1)
            async with site.phoenix() as laptop:
                await laptop.join("room:1", {"key": "al"})
                await trio.sleep(1)
                assert len(presence.state["al"]["metas"]) == 2
                assert presence.state == site.presence.list("room:1")
            await trio.sleep(1)
            assert len(presence.state["al"]["metas"]) == 1
        await trio.sleep(1)
        assert presence.state == site.presence.list("room:1")
    assert log == [("+", "bo"), ("+", "al"), ("-", "al")]


async def test_intercepted_diffs_pass_handle_out(autojump_clock: MockClock) -> None:
    class Interceptor(PresenceRoom):
        intercept = ("presence_diff",)

        def handle_out(self, event: str, payload: Any, state: str) -> Any:
            return (None, state) if state == "bo" else super().handle_out(event, payload, state)

    async with serving_presence(room=Interceptor) as site, site.dial() as al, site.dial() as bo:
        await synced(al, "al")
        await synced(bo, "bo")
        assert [message[3] for message in await received(al)] == ["presence_diff"]
        await al.send("1", "2", "room:1", "status", "away")
        assert await received(bo) == []


# Several processes.


async def test_processes_that_share_a_broker_share_their_entries(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with (
        serving_presence(Hub(broker=broker)) as one,
        one.dial() as al,
    ):
        presence = await synced(al, "al")
        async with serving_presence(Hub(broker=broker)) as two:
            await trio.sleep(1)
            assert two.keys() == {"al": ["here"]}
            async with two.dial() as bo:
                watching = await synced(bo, "bo")
                await bo.send("1", "2", "room:1", "status", "away")
                watching.receive(await received(bo))
                presence.receive(await received(al))
                for entries in (watching.presence.state, presence.presence.state):
                    assert entries == one.presence.list("room:1") == two.presence.list("room:1")
                assert one.keys() == {"al": ["here"], "bo": ["away"]}
        # The hub of the second process has closed.
        presence.receive(await received(al, 0.1))
        assert presence.presence.state == one.presence.list("room:1")
        assert one.keys() == {"al": ["here"]}


async def test_a_process_that_is_cut_off_is_removed_after_30_seconds_and_returns(
    autojump_clock: MockClock,
) -> None:
    shared = MemoryBroker()
    broker = CutBroker(shared)
    async with (
        serving_presence(Hub(broker=shared)) as one,
        serving_presence(Hub(broker=broker)) as two,
        one.dial(ping_interval=None) as al,
        two.dial(ping_interval=None) as bo,
    ):
        presence, other = await synced(al, "al"), await synced(bo, "bo")
        presence.receive(await received(al))
        assert one.keys() == two.keys() == {"al": ["here"], "bo": ["here"]}
        broker.is_cut = True
        assert await received(al, 29) == []
        presence.receive(await received(al, 2))
        other.receive(await received(bo))
        assert list(presence.presence.state) == list(one.keys()) == ["al"]
        assert list(other.presence.state) == list(two.keys()) == ["bo"]
        await bo.send("1", "2", "room:1", "status", "away")
        broker.is_cut = False
        presence.receive(await received(al, 2))
        other.receive(await received(bo))
        assert presence.presence.state == one.presence.list("room:1")
        assert other.presence.state == two.presence.list("room:1")
        assert one.keys() == {"al": ["here"], "bo": ["away"]}
        assert two.keys() == {"bo": ["away"], "al": ["here"]}


async def test_a_process_with_a_name_replaces_its_entries_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    shared = MemoryBroker()
    broker = CutBroker(shared)
    async with serving_presence(Hub(broker=shared)) as one, one.dial() as al:
        presence = await synced(al, "al")
        async with serving_presence(Hub(broker=broker), name="two") as two, two.dial() as bo:
            await synced(bo, "bo")
            presence.receive(await received(al))
            broker.is_cut = True  # as if it were killed
        assert one.keys() == {"al": ["here"], "bo": ["here"]}
        async with serving_presence(Hub(broker=shared), name="two"):
            presence.receive(await received(al))
            assert list(presence.presence.state) == list(one.keys()) == ["al"]


async def test_two_processes_with_one_name_are_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    async with (
        serving_presence(Hub(broker=broker), name="web"),
        serving_presence(Hub(broker=broker), name="web"),
    ):
        await trio.sleep(10)
    [record] = caplog.records
    assert "another process uses the name 'web'" in record.getMessage()
    assert record.levelno == logging.ERROR


async def test_foreign_messages_are_ignored(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    async with serving_presence(hub) as site, site.dial() as al:
        await synced(al, "al")
        for message in ("nonsense", b"\xff", "[]"):
            await hub.publish(message, "phoenix:presence")
            await hub.publish(message)  # to all subscribers of the hub
        await trio.sleep(1)
        assert list(site.keys()) == ["al"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Mistakes.


async def test_misuse_is_refused(autojump_clock: MockClock) -> None:
    errors: dict[str, Exception] = {}
    ended: list[Channel[Any]] = []
    foreign = Presence(Channels({"room:*": PresenceRoom}, hub=Hub()))

    class Misuse(PresenceRoom):
        async def handle_in(self, event: str, payload: Any, state: str) -> Any:
            presence: Any = self.presence
            calls: dict[str, Any] = {
                "twice": lambda: presence.track(self, state, {}),
                "unknown": lambda: presence.update(self, "other", {}),
                "key": lambda: presence.track(self, 7, {}),
                "meta": lambda: presence.track(self, "k", [1]),
                "json": lambda: presence.track(self, "k", {"x": object()}),
                "large": lambda: presence.update(self, state, {"x": "x" * 2**15}),
                "deep": lambda: presence.update(self, state, {"x": deep}),
                "foreign": lambda: foreign.track(self, state, {}),
            }
            for name, call in calls.items():
                try:
                    await call()
                except Exception as error:
                    errors[name] = error
            await presence.untrack(self, "other")
            ended.append(self)
            return None, state

    deep: Any = 1
    for _ in range(196):
        deep = [deep]
    async with serving_presence(room=Misuse) as site, site.dial() as al:
        await synced(al, "al")
        await al.send("1", "2", "room:1", "go", {})
        assert await received(al) == []
        await al.send("1", "3", "room:1", "phx_leave", {})
        await received(al)
        with pytest.raises(ChannelClosed):
            await site.presence.track(ended[0], "al", {})
        with pytest.raises(ChannelClosed):
            await site.presence.update(ended[0], "al", {})
    assert {name: type(error) for name, error in errors.items()} == {
        "twice": UsageError,
        "unknown": UsageError,
        "key": InvalidOption,
        "meta": InvalidOption,
        "json": EncodeError,
        "large": InvalidOption,
        "deep": EncodeError,
        "foreign": UsageError,
    }
    assert "Room belongs to a different hub than this Presence" in str(errors["foreign"])
    with pytest.raises(UsageError, match="is not open"):
        site.presence.list("room:1")
    with pytest.raises(UsageError, match="belongs to no client"):
        await Presence(Channels({"a": Channel}, hub=Hub())).untrack(Channel(), "al")
    with pytest.raises(UsageError, match="already has a Presence"):
        Presence(site.channels)
    with pytest.raises(InvalidOption, match="channels must be"):
        Presence(Hub())  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="name must be"):
        Presence(Channels({"a": Channel}, hub=Hub()), name="")


# Many clients.


@pytest.mark.slow
async def test_any_order_of_joins_and_leaves_reaches_each_client_exactly_once(
    autojump_clock: MockClock,
) -> None:
    """In two processes, with clients that join, change, leave and join again at random times."""
    broker, rng = MemoryBroker(), random.Random(1)
    async with (
        serving_presence(Hub(broker=broker)) as one,
        serving_presence(Hub(broker=broker)) as two,
        trio.open_nursery() as nursery,
    ):

        async def use(site: PresenceSite, number: int) -> None:
            async with site.dial(ping_interval=None) as client:
                for join_ref in ("1", "2", "3"):
                    await trio.sleep(rng.random() / 10)
                    presence = await synced(client, f"user {number % 7}", join_ref)
                    for _ in range(rng.randrange(4)):
                        presence.receive(await received(client, rng.random() / 20))
                        await client.send(join_ref, "s", "room:1", "status", str(rng.random()))
                    if join_ref != "3":
                        presence.receive(await received(client, rng.random() / 20))
                        await client.send(join_ref, "l", "room:1", "phx_leave", {})
                        while (message := await client.receive())[3] != "phx_close":
                            presence.receive([message])
                messages = await received(client, 5)
                presence.receive(messages)
                assert presence.refs == refs_of(one.presence.list("room:1"))
                assert presence.refs == refs_of(two.presence.list("room:1"))
                assert len(presence.refs) == 40
                await trio.sleep(5)

        for number in range(40):
            nursery.start_soon(use, (one, two)[number % 2], number)
    assert one.channels is not two.channels


find_refs = re.compile(r'"phx_ref":"([^"]+)"').findall


async def hold(site: PresenceSite, *, task_status: trio.TaskStatus[RawPhoenix]) -> None:
    """Keep a client open."""
    async with site.dial(ping_interval=None, compression=None, max_queue=2_000) as client:
        task_status.started(client)
        await trio.sleep_forever()


@pytest.mark.slow
async def test_a_burst_of_1000_joins_loses_no_diff(autojump_clock: MockClock) -> None:
    async with serving_presence() as site, trio.open_nursery() as nursery:
        clients = [await nursery.start(hold, site) for _ in range(1_000)]
        for number, client in enumerate(clients):
            await client.send("1", "1", "room:1", "phx_join", {"key": f"user {number}"})
            if number % 100 == 0:
                await trio.sleep(0.01)
        await trio.sleep(1)
        expected = refs_of(site.presence.list("room:1"))
        assert len(expected) == 1_000
        diffs = 0
        decode = cache(json.loads)  # all receive the same diffs
        for client in clients:
            assert (await client.receive())[3] == "phx_reply"
            state = str(await client.raw())
            assert state.startswith('["1",null,"room:1","presence_state",{')
            presence = StrictRefs({})
            presence.refs = set(find_refs(state))  # a million metas need not be decoded
            messages = []
            with trio.move_on_after(0.001):
                while True:
                    messages.append(decode(await client.raw()))
            presence.receive(messages)
            assert presence.refs == expected
            diffs += len(messages)
        assert 1_000 < diffs < 20_000
        nursery.cancel_scope.cancel()
