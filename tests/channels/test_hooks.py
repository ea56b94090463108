"""The hooks of a channel: results, delayed answers, slow and failing hooks, and the end."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock import HookError, LocalClose, MemoryListener, RemoteClose, serve
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    ChannelClosed,
    Channels,
    ClientEvent,
    JoinRefused,
    Left,
    Push,
    Rejoined,
    Stop,
)
from trioglock.channels.actor import MAX_PENDING
from trioglock.errors import EncodeError, HandshakeRefused, InvalidOption, UsageError
from trioglock.hooks import Stop as SocketStop
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub
from trioglock.routing import Router


class Recording(Channel[int]):
    """Counts pushes in its state, and records how channels end."""

    ends: list[tuple[str, Any, Any]]

    def __init_subclass__(cls) -> None:
        cls.ends = []

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {}, 0

    def terminate(self, reason: Any, state: int) -> None:
        self.ends.append((self.topic, reason, state))


async def events(raw: RawPhoenix, count: int) -> list[tuple[str, Any]]:
    """The event and payload of the next messages; the response of a reply."""
    found = []
    for _ in range(count):
        message = await raw.receive()
        payload = message[4]
        found.append((message[3], payload.get("response", payload)))
    return found


# Results and state.


async def test_each_hook_gets_the_state_that_the_previous_one_returned() -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            self.cast(10)
            return Answer("ok", {"state": state}), state + 1

        def handle_cast(self, message: int, state: int) -> Any:
            return None, state + message

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        assert (await raw.ask("1", "2", "room:1", "x", {}))[4]["response"] == {"state": 0}
        assert (await raw.ask("1", "3", "room:1", "x", {}))[4]["response"] == {"state": 11}
    assert [(topic, state) for topic, _, state in Room.ends] == [("room:1", 22)]


async def test_a_tuple_of_results_is_applied_in_order_until_a_stop() -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            results = (
                Push("first", {}),
                Answer("ok"),
                Broadcast("second", {}),
                Push("third", {}),
                Stop("done"),
                Push("never", {}),
            )
            return results, state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        assert [event for event, _ in await events(raw, 5)] == [
            "first",
            "phx_reply",
            "second",
            "third",
            "phx_close",
        ]
        await raw.alive()
    assert Room.ends == [("room:1", Stop("done"), 0)]


async def test_a_second_answer_to_one_push_is_not_sent() -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            return (Answer("ok", {"n": 1}), Answer("ok", {"n": 2})), state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        assert await events(raw, 1) == [("phx_reply", {"n": 1})]
        await raw.alive()


async def test_a_broadcast_can_exclude_its_sender() -> None:
    class Room(Recording):
        async def handle_in(self, event: str, payload: Any, state: int) -> Any:
            if event == "call":
                await self.broadcast("call", payload, to_self=False)
                return Answer("ok"), state
            return (Broadcast(event, payload, to_self=False), Answer("ok")), state

    async with (
        serving_channels(Room) as site,
        site.dial() as first,
        site.dial() as second,
    ):
        await first.join()
        await second.join()
        for name, payload in (("shout", {"m": 1}), ("call", {"m": 2})):
            assert (await first.ask("1", "2", "room:1", name, payload))[1] == "2"
            assert await events(second, 1) == [(name, payload)]
        await second.connection.send(bytes([0, 1, 1, 6, 5]) + b"13room:1shout\xcc")
        assert (await second.receive())[1] == "3"
        assert await first.receive() == b"\x02\x06\x05room:1shout\xcc"


async def test_an_intercepted_broadcast_passes_through_the_hook_of_each_member() -> None:
    class Room(Channel[str]):
        intercept = ("shout",)

        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return {}, payload["name"]

        def handle_in(self, event: str, payload: Any, state: str) -> Any:
            return Broadcast(event, payload), state

        async def handle_out(self, event: str, payload: Any, state: str) -> Any:
            await trio.sleep(0)
            if state == payload["to"]:
                return Push("whisper", payload), state
            return None, state

    async with (
        serving_channels(Room) as site,
        site.dial() as first,
        site.dial() as second,
    ):
        await first.join(payload={"name": "al"})
        await second.join(payload={"name": "bo"})
        await first.send("1", "2", "room:1", "shout", {"to": "bo"})
        assert await second.receive() == ["1", None, "room:1", "whisper", {"to": "bo"}]
        await first.send("1", "3", "room:1", "other", {"to": "bo"})
        assert await first.receive() == [None, None, "room:1", "other", {"to": "bo"}]


async def test_a_router_takes_the_place_of_handle_in() -> None:
    router = Router()

    @router.on("echo")
    def echo(event: ClientEvent, state: int) -> Any:
        return Answer("ok", {"event": event.event, "state": state}), state + 1

    @router.on("later/*")
    async def later(event: ClientEvent, state: int) -> Any:
        await trio.sleep(0)
        await event.channel.push("topic", {"topic": event.channel.topic})
        return Answer("ok", event.payload), state + 1

    class Room(Recording):
        handle_in = router

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "echo", {})
        assert await events(raw, 1) == [("phx_reply", {"event": "echo", "state": 0})]
        await raw.send("1", "3", "room:1", "later/on", {"a": 1})
        assert await events(raw, 2) == [("topic", {"topic": "room:1"}), ("phx_reply", {"a": 1})]
        await raw.send("1", "4", "room:1", "unknown", {})
        assert await events(raw, 1) == [("phx_error", {"reason": "channel_crash"})]
    with pytest.raises(UsageError, match="used by"):
        router.on("another")(echo)


# Delayed answers, and actions.


@MOCK_CLOCK
async def test_a_push_can_be_answered_later_and_once() -> None:
    class Room(Recording):
        async def handle_in(self, event: str, payload: Any, state: int) -> Any:
            ref = self.ref
            nursery.start_soon(self.later, ref)
            return None, state

        async def later(self, ref: str | None) -> None:
            await trio.sleep(5)
            await self.answer(ref, "ok", {"late": True})
            with pytest.raises(UsageError, match="answered before"):
                await self.answer(ref, "ok")
            with pytest.raises(UsageError, match="only be used in handle_in"):
                _ = self.ref

    async with trio.open_nursery() as nursery, serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.alive()
        assert await events(raw, 1) == [("phx_reply", {"late": True})]
        await raw.alive()


@MOCK_CLOCK
async def test_a_delayed_answer_after_the_end_raises() -> None:
    kept: list[Any] = []

    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            kept.append((self, self.ref))
            return None, state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.send("1", "3", "room:1", "phx_leave", {})
        await events(raw, 2)
        channel, ref = kept[0]
        with pytest.raises(ChannelClosed):
            await channel.answer(ref, "ok")
        with pytest.raises(ChannelClosed):
            await channel.push("x", {})
        await channel.broadcast("still", {})  # others may listen


async def test_a_ref_that_was_not_kept_cannot_be_answered() -> None:
    channels: list[Any] = []

    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            channels.append(self)
            return None, state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.alive()
        with pytest.raises(UsageError, match="without using"):
            await channels[0].answer("2", "ok")


async def test_join_cannot_push_but_can_cast() -> None:
    class Room(Recording):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            with pytest.raises(UsageError, match="has not joined yet"):
                await self.push("hello", {})
            with pytest.raises(UsageError, match="has not joined yet"):
                await self.answer("1", "ok")
            self.cast("hello")
            await self.broadcast("joining", {})
            return {"topic": self.topic}, 0

        def handle_cast(self, message: Any, state: int) -> Any:
            return (Push(message, {}), Broadcast("joined", {})), state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert [event for event, _ in await events(raw, 3)] == ["phx_reply", "hello", "joined"]


async def test_a_cast_needs_its_hook_and_a_channel_that_is_joined() -> None:
    channels: list[Any] = []

    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            channels.append(self)
            return None, state

    class Other(Room):
        def handle_cast(self, message: Any, state: int) -> Any:
            return Push("cast", message), state

    with pytest.raises(UsageError, match="belongs to no client"):
        Room().cast(1)
    routes: Any = {"room:*": Room, "other:*": Other}
    async with serving_channels(routes) as site, site.dial() as raw:
        await raw.join()
        await raw.join("other:1", "2")
        await raw.send("1", "3", "room:1", "x", {})
        await raw.send("2", "4", "other:1", "x", {})
        await raw.alive()
        room, other = channels
        with pytest.raises(UsageError, match="no handle_cast"):
            room.cast(1)
        other.cast({"from": "outside"})
        assert await events(raw, 1) == [("cast", {"from": "outside"})]
        await raw.send("2", "5", "other:1", "phx_leave", {})
        await events(raw, 2)
        with pytest.raises(ChannelClosed):
            other.cast({})


# Slow hooks.


class Patient(Recording):
    """Waits as many seconds as a push says."""

    cancelled: list[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.cancelled = []

    async def handle_in(self, event: str, payload: Any, state: int) -> Any:
        try:
            await trio.sleep(payload["seconds"])
        except trio.Cancelled:
            self.cancelled.append(payload)
            raise
        return Answer("ok", payload), state + 1


@MOCK_CLOCK
async def test_a_slow_hook_delays_only_its_own_topic() -> None:
    class Room(Patient):
        pass

    async with serving_channels(Room) as site, site.dial() as raw, site.dial() as other:
        await raw.join("room:1", "1")
        await raw.join("room:2", "2")
        await other.join("room:1", "1")
        await raw.send("1", "3", "room:1", "x", {"seconds": 100})
        await raw.send("1", "4", "room:1", "x", {"seconds": 0})
        await raw.send("2", "5", "room:2", "x", {"seconds": 10})
        await raw.send(None, "6", "phoenix", "heartbeat", {})
        await other.send("1", "7", "room:1", "x", {"seconds": 1})
        await site.channels.broadcast("room:1", "shout", {})
        times = []
        for _ in range(5):
            message = await raw.receive()
            times.append((message[1], round(trio.current_time())))
        assert times == [(None, 0), ("6", 0), ("5", 10), ("3", 100), ("4", 100)]
        assert (await other.receive())[3] == "shout"
        assert (await other.receive())[1] == "7"


@MOCK_CLOCK
async def test_pushes_that_cannot_wait_for_a_slow_hook_get_an_error() -> None:
    class Room(Patient):
        pass

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        for number in range(MAX_PENDING + 3):
            await raw.send("1", str(number), "room:1", "x", {"seconds": 1 if number == 0 else 0})
        for number in (MAX_PENDING + 1, MAX_PENDING + 2):
            message = await raw.receive()
            assert message[1] == str(number)
            assert message[4]["status"] == "error"
        refs = [(await raw.receive())[1] for _ in range(MAX_PENDING + 1)]
        assert refs == [str(number) for number in range(MAX_PENDING + 1)]


@MOCK_CLOCK
async def test_a_leave_waits_for_the_pushes_before_it() -> None:
    class Room(Patient):
        pass

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {"seconds": 5})
        await raw.send("1", "3", "room:1", "phx_leave", {})
        await raw.send("1", "4", "room:1", "x", {"seconds": 5})
        assert [(await raw.receive())[1] for _ in range(3)] == ["2", "3", "1"]
        await raw.alive()
    assert Room.ends == [("room:1", Left(), 1)]


@MOCK_CLOCK
async def test_a_second_join_cancels_a_slow_hook_of_the_first_one() -> None:
    class Room(Patient):
        pass

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {"seconds": 1000})
        await raw.send("3", "3", "room:1", "phx_join", {})
        assert [(await raw.receive())[3] for _ in range(2)] == ["phx_reply", "phx_close"]
        assert trio.current_time() < 10
        assert Room.ends == [("room:1", Rejoined(), 0)]
        await raw.send("3", "4", "room:1", "x", {"seconds": 1})
        assert (await raw.receive())[:2] == ["3", "4"]
    assert Room.cancelled == [{"seconds": 1000}]


@MOCK_CLOCK
async def test_a_leave_behind_a_slow_hook_is_answered_if_the_client_joins_again() -> None:
    reasons = []

    class Busy(Channel[None]):
        async def handle_in(self, event: str, payload: Any, state: None) -> Any:
            await trio.sleep_forever()

        def terminate(self, reason: Any, state: None) -> None:
            reasons.append(reason)

    async with serving_channels(Busy) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.send("1", "3", "room:1", "phx_leave", {})
        await raw.send("4", "4", "room:1", "phx_join", {})
        left, joined, closed = [await raw.receive() for _ in range(3)]
        assert left == ["1", "3", "room:1", "phx_reply", {"response": {}, "status": "ok"}]
        assert joined[:2] == ["4", "4"]
        assert closed == ["1", "1", "room:1", "phx_close", {}]
        assert reasons == [Left()]


@MOCK_CLOCK
async def test_a_lost_connection_cancels_slow_hooks_and_joins() -> None:
    class Room(Patient):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            await trio.sleep(payload.get("seconds", 0))
            return {}, 0

    async with serving_channels(Room) as site:
        async with site.dial() as raw:
            await raw.join("room:1", "1")
            await raw.join("room:2", "2")
            await raw.send("1", "3", "room:1", "x", {"seconds": 1000})
            await raw.send("4", "4", "room:3", "phx_join", {"seconds": 1000})
            await wait_all_tasks_blocked()
            raw.connection.abort()
        await trio.sleep(30)  # the join has close_timeout seconds to end
        assert sorted(topic for topic, _, _ in Room.ends) == ["room:1", "room:2"]
        assert Room.cancelled == [{"seconds": 1000}]
        assert site.channels.hub.statistics().subscribers == 0


@MOCK_CLOCK
async def test_a_server_that_aborts_cancels_hooks_and_joins_and_runs_terminate() -> None:
    class Room(Patient):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            await trio.sleep(payload.get("seconds", 0))
            return {}, 0

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join("room:1", "1")
        await raw.join("room:2", "2")
        await raw.send("1", "3", "room:1", "x", {"seconds": 1000})
        await raw.send("4", "4", "room:3", "phx_join", {"seconds": 1000})
        await wait_all_tasks_blocked()
        site.server.abort()
        await site.server.wait_closed()
        assert trio.current_time() < 100
        assert sorted(topic for topic, _, _ in Room.ends) == ["room:1", "room:2"]
        assert site.channels.hub.statistics().subscribers == 0


@MOCK_CLOCK
async def test_cancelling_a_task_that_uses_a_channel_does_not_affect_the_channel() -> None:
    channels: list[Any] = []

    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            channels.append((self, self.ref))
            return None, state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.alive()
        channel, ref = channels[0]
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.push("never", {})
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.broadcast("never", {})
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.answer(ref, "never")
        with pytest.raises(EncodeError):
            await channel.answer(ref, "ok", object())
        await channel.push("text", {})
        await channel.answer(ref, "ok")
        assert [event for event, _ in await events(raw, 2)] == ["text", "phx_reply"]


# Failing hooks.


@pytest.mark.parametrize("hook", ["handle_in", "handle_out", "handle_cast"])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_an_exception_in_any_hook_ends_its_topic_only(
    hook: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("oh no")

    class Base(Recording):
        intercept = ("out",)

        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            if event == "cast":
                self.cast(None)
                return None, state
            return (Answer("ok") if event == "fine" else Broadcast("out", {})), state

    def fail(self: Any, *args: Any) -> Any:
        raise error

    async def fail_later(self: Any, *args: Any) -> Any:
        await trio.sleep(0)
        raise error

    Room: Any = type("Room", (Base,), {hook: fail if kind == "plain" else fail_later})  # noqa: N806
    event = {"handle_in": "x", "handle_out": "out", "handle_cast": "cast"}[hook]
    routes: Any = {"room:*": Room, "fine:*": Fine}
    async with serving_channels(routes) as site, site.dial() as raw:
        await raw.join()
        await raw.join("fine:1", "2")
        await raw.send("1", "3", "room:1", event, {})
        assert await raw.receive() == [
            "1",
            "1",
            "room:1",
            "phx_error",
            {"reason": "channel_crash"},
        ]
        assert (await raw.ask("2", "4", "fine:1", "x", {}))[4]["status"] == "ok"
        await raw.join("room:1", "5")
    assert Room.ends[0] == ("room:1", HookError(error=error), 0)
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    assert f"Room.{hook}" in failures[0].getMessage()
    assert "'room:1'" in failures[0].getMessage()


class Fine(Channel[None]):
    """Answers everything."""

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok"), state


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "must return a tuple"),
        (Answer("ok"), "must return a tuple"),
        (("ok", 0), "must return a result"),
        ((0, Answer("ok")), "not a state"),
        ((Push("phx_close", {}), 0), "event must be"),
        ((Push("x", object()), 0), ""),
        ((Answer("ok", object()), 0), ""),
        ((Answer(5, {}), 0), "status must be a str"),  # type: ignore[arg-type]
        ((Broadcast("x", object()), 0), ""),
        (((Answer("ok"), "more"), 0), "must return a result"),
        (({"a": 1}, 0), 'to answer a push, return Answer("ok", {...}), state'),
        ({"a": 1}, 'to answer a push, return Answer("ok", {...}), state'),
        ((SocketStop(), 0), "which is trioglock.Stop: return trioglock.channels.Stop"),
    ],
)
async def test_a_result_of_the_wrong_shape_is_like_an_exception(
    returned: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            return returned

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        event = ""
        while event != "phx_error":
            event = (await raw.receive())[3]
        await raw.alive()
    assert text in caplog.text
    assert len(Room.ends) == 1


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ("raise client's", "To refuse a client, raise trioglock.channels.JoinRefused"),
        (
            "raise client's with one argument",
            "To refuse a client, raise trioglock.channels.JoinRefused",
        ),
        ("return", "raise trioglock.channels.JoinRefused, do not return it"),
        ("return with state", "raise trioglock.channels.JoinRefused, do not return it"),
    ],
)
async def test_a_join_that_is_refused_in_another_way_crashes_with_a_hint(
    mistake: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Room(Recording):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            response = {"reason": "no"}
            if mistake == "raise client's":
                raise phoenix.JoinRefused(topic, response)
            if mistake == "raise client's with one argument":
                raise phoenix.JoinRefused(response)  # type: ignore[call-arg, arg-type]
            refused = JoinRefused(response)
            return refused if mistake == "return" else (refused, 0)

    async with serving_channels(Room) as site, site.dial() as raw:
        reply = await raw.ask("1", "1", "room:1", "phx_join", {})
        assert reply[4] == {"response": {"reason": "join crashed"}, "status": "error"}
        await raw.alive()
    assert hint in caplog.text
    assert Room.ends == []


async def test_a_channel_broadcasts_before_it_has_joined_and_after_its_end() -> None:
    ended = []

    class Room(Channel[str]):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            await self.broadcast("comes", {})
            return {}, ""

        async def terminate(self, reason: Any, state: str) -> None:
            await self.broadcast("goes", {})
            ended.append(self)

    async with serving_channels(Room) as site, site.dial() as one:
        await one.join()
        async with site.dial() as other:
            await other.join()
            assert await events(one, 1) == [("comes", {})]
        assert await events(one, 1) == [("goes", {})]
        await ended[0].broadcast("later", {})
        assert await events(one, 1) == [("later", {})]
        with pytest.raises(ChannelClosed):
            await ended[0].push("later", {})


async def test_only_handle_in_can_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            self.cast(None)
            return None, state

        def handle_cast(self, message: Any, state: int) -> Any:
            return Answer("ok"), state

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        assert (await events(raw, 1))[0][0] == "phx_error"
    assert "Room.handle_cast cannot return an Answer" in caplog.text


async def test_a_plain_hook_that_returns_a_coroutine_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def nothing() -> None:
        pass

    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            return nothing()

        def terminate(self, reason: Any, state: int) -> Any:
            return nothing()

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        assert (await events(raw, 1))[0][0] == "phx_error"
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert "declare it with async def" in caplog.text


@pytest.mark.parametrize("returned", [None, {}, ({}, 0, 1), ({}, Answer("ok"))])
async def test_a_join_that_returns_the_wrong_shape_has_crashed(
    returned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Room(Recording):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return returned

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert await events(raw, 1) == [("phx_reply", {"reason": "join crashed"})]
        await raw.send("1", "2", "room:1", "x", {})
        assert await events(raw, 1) == [("phx_reply", {"reason": "unmatched topic"})]
        assert site.channels.hub.statistics().subscribers == 0
    assert Room.ends == []


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_join_whose_response_cannot_be_encoded_has_crashed_and_terminates(
    kind: str,
) -> None:
    class Room(Recording):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return payload.get("response", object()), 5

    class Later(Room):
        async def terminate(self, reason: Any, state: int) -> None:  # type: ignore[override]
            await trio.sleep(0)
            super().terminate(reason, state)

    cls = Room if kind == "plain" else Later
    async with serving_channels(cls) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert await events(raw, 1) == [("phx_reply", {"reason": "join crashed"})]
        await raw.send("1", "2", "room:1", "x", {})
        assert await events(raw, 1) == [("phx_reply", {"reason": "unmatched topic"})]
        assert site.channels.hub.statistics().subscribers == 0
        while not cls.ends:
            await trio.sleep(0)
        await raw.send("3", "3", "room:1", "phx_join", {"response": {}})
        await raw.send("4", "4", "room:1", "phx_join", {})
        assert [event for event, _ in await events(raw, 3)] == [
            "phx_reply",
            "phx_reply",
            "phx_close",
        ]
    reasons = [(type(reason), state) for _, reason, state in cls.ends]
    assert reasons == [(HookError, 5), (Rejoined, 5), (HookError, 5)]


async def test_a_join_can_be_refused_without_a_response() -> None:
    class Room(Channel[None]):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            raise JoinRefused(None)

    async with serving_channels(Room) as site, site.dial() as raw:
        reply = await raw.ask("1", "1", "room:1", "phx_join", {})
        assert reply[4] == {"response": None, "status": "error"}


async def test_a_refusal_that_cannot_be_encoded_has_crashed() -> None:
    class Room(Recording):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            raise JoinRefused(object())

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert await events(raw, 1) == [("phx_reply", {"reason": "join crashed"})]


async def test_a_binary_response_to_a_join() -> None:
    class Room(Recording):
        def join(self, topic: str, payload: Any, user: Any) -> Any:
            return b"\x01", 0

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert await raw.raw() == bytes([1, 1, 1, 6, 2]) + b"11room:1ok\x01"


def test_invalid_channel_classes_are_refused_at_once() -> None:
    class Text(Channel[None]):
        intercept = "shout"

    class Generator(Channel[None]):
        async def handle_in(self, event: str, payload: Any, state: None) -> Any:
            yield None

    for kind in (Text, Generator):
        with pytest.raises(InvalidOption):
            Channels({"room:*": kind}, hub=Hub())


# The end.


async def test_terminate_runs_once_for_each_way_in_which_a_join_ends() -> None:
    class Room(Recording):
        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            if event == "stop":
                return Stop(), state
            raise LookupError(event)

    async with serving_channels(Room) as site:
        async with site.dial() as raw:
            for number, topic in enumerate(("left", "stopped", "crashed", "again", "open")):
                await raw.join(f"room:{topic}", str(number))
            await raw.send("0", "10", "room:left", "phx_leave", {})
            await raw.send("1", "11", "room:stopped", "stop", {})
            await raw.send("2", "12", "room:crashed", "boom", {})
            await raw.send("13", "13", "room:again", "phx_join", {})
            await events(raw, 6)
            await raw.alive()
            assert [topic for topic, _, _ in Room.ends] == [
                "room:left",
                "room:stopped",
                "room:crashed",
                "room:again",
            ]
        while len(Room.ends) < 6:
            await trio.sleep(0)
    reasons = [type(reason) for _, reason, _ in Room.ends]
    assert reasons[:4] == [Left, Stop, HookError, Rejoined]
    assert reasons[4:] == [RemoteClose, RemoteClose]


@MOCK_CLOCK
async def test_an_async_terminate_may_take_time_and_delays_nothing_else() -> None:
    class Room(Recording):
        async def terminate(self, reason: Any, state: int) -> None:  # type: ignore[override]
            await trio.sleep(3)
            self.ends.append((self.topic, reason, trio.current_time()))

    async with serving_channels(Room) as site:
        async with site.dial() as raw:
            await raw.join("room:1", "1")
            await raw.join("room:2", "2")
            await raw.join("room:3", "3")
            began = trio.current_time()
            await raw.send("1", "4", "room:1", "phx_leave", {})
            await raw.send("5", "5", "room:2", "phx_join", {})  # it waits for the first join
            assert [event for event, _ in await events(raw, 2)] == ["phx_reply", "phx_close"]
            await raw.join("room:1", "6")
            await raw.alive()
            assert trio.current_time() == began
            assert [event for event, _ in await events(raw, 2)] == ["phx_reply", "phx_close"]
            assert trio.current_time() == began + 3
        await trio.sleep(10)
    assert len(Room.ends) == 5


@MOCK_CLOCK
async def test_a_terminate_that_hangs_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    class Room(Recording):
        async def terminate(self, reason: Any, state: int) -> None:  # type: ignore[override]
            self.ends.append((self.topic, reason, state))
            await trio.sleep_forever()

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "phx_leave", {})
        await events(raw, 2)
        await trio.sleep(60)
        assert "Room.terminate was cancelled" in caplog.text
        await raw.join("room:1", "3")
    assert len(Room.ends) == 2


async def test_an_exception_in_terminate_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Room(Recording):
        def terminate(self, reason: Any, state: int) -> None:
            raise RuntimeError("at the end")

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "phx_leave", {})
        await events(raw, 2)
        await raw.alive()
    assert "Room.terminate failed" in caplog.text


async def test_terminate_runs_when_the_server_closes() -> None:
    class Room(Recording):
        pass

    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        site.server.close()
        assert [frame async for frame in raw.connection] == []
        await site.server.wait_closed()
        assert [type(reason) for _, reason, _ in Room.ends] == [LocalClose]


async def test_closing_the_hub_closes_the_clients() -> None:
    class Room(Recording):
        pass

    hub, listener = Hub(), MemoryListener()
    routes: Any = {"room:*": Room}
    channels = Channels(routes, hub=hub, id=lambda user: "al")
    async with (
        serve(channels.socket, listeners=[listener]) as server,
        trio.open_nursery() as nursery,
    ):
        site = ChannelsSite(channels, listener, server)
        scope = trio.CancelScope()

        async def run_hub(task_status: trio.TaskStatus[Hub]) -> None:
            with scope:
                await hub.run(task_status=task_status)

        await nursery.start(run_hub)
        async with site.dial() as raw:
            await raw.join()
            scope.cancel()
            assert [frame async for frame in raw.connection] == []
        assert raw.connection.close_code == 1001
    assert [type(reason) for _, reason, _ in Room.ends] == [LocalClose]


@pytest.mark.parametrize("identity", [None, "al"])
async def test_without_an_open_hub_clients_cannot_join(
    identity: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Room(Recording):
        pass

    listener, routes = MemoryListener(), {"room:*": Room}
    channels = Channels(routes, hub=Hub(), id=lambda user: identity)
    async with (
        serve(channels.socket, listeners=[listener]) as server,
    ):
        site = ChannelsSite(channels, listener, server)
        if identity is None:
            async with site.dial() as raw:
                await raw.send("1", "1", "room:1", "phx_join", {})
                assert await events(raw, 1) == [("phx_reply", {"reason": "join crashed"})]
            assert "is not open" in caplog.text
        else:
            with pytest.raises(HandshakeRefused, match="503"):
                async with site.dial():
                    pass
