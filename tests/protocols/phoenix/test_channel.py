"""Channels: the queue, the end, payloads, invalid calls, cancellation."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.protocols.clock import MOCK_CLOCK
from tests.protocols.phoenix.helpers import connected
from trioglock import (
    ConnectionClosedError,
    EncodeError,
    HandshakeRefused,
    InvalidOption,
    RemoteClose,
)
from trioglock.codecs import JSON
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import (
    AlreadyJoined,
    BufferFull,
    ChannelClosed,
    ChannelCrashed,
    ChannelOverflow,
    Disconnected,
    InvalidMessage,
    JoinTimeout,
    NotJoined,
    PhoenixMessage,
    PushReply,
)
from trioglock.testing import MockTopic

pytestmark = MOCK_CLOCK

# The queue.


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [2, 3, 4]), ("drop_newest", [0, 1, 2])]
)
async def test_a_full_queue_drops_messages(overflow: Any, kept: list[int]) -> None:
    """Each channel has its own limit and counts its dropped messages."""
    async with connected() as (server, socket):
        full = await socket.join("room:1", max_queue=3, overflow=overflow)
        other = await socket.join("room:2")
        await full.receive()
        for number in range(5):
            await server.broadcast("room:1", "n", number)
            await server.broadcast("room:2", "n", number)
        await trio.testing.wait_all_tasks_blocked()
        assert [full.receive_nowait() for _ in kept] == [("n", number) for number in kept]
        assert (full.dropped, other.dropped) == (2, 0)
        assert [await other.receive() for _ in range(6)][-1] == ("n", 4)


async def test_by_default_a_full_queue_leaves_the_topic() -> None:
    """The error follows the waiting messages; other channels are not affected."""
    async with connected() as (server, socket):
        full = await socket.join("room:1", max_queue=2)
        other = await socket.join("room:2")
        await server.broadcast("room:1", "n", 1)
        await server.broadcast("room:1", "n", 2)
        await trio.testing.wait_all_tasks_blocked()
        got = []
        with pytest.raises(ChannelOverflow):
            async for event, _ in full:
                got.append(event)
        assert got == ["hello", "n"]
        assert full.dropped == 1
        with pytest.raises(ChannelOverflow):
            await full.receive()
        client = await server.client()
        assert list(client.channels) == ["room:2"]
        assert (await other.push("echo")).ok


async def test_a_cancelled_receive_loses_nothing() -> None:
    """Several tasks may receive: each message goes to one of them."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        await channel.receive()
        with trio.move_on_after(1):
            await channel.receive()
        got: list[Any] = []

        async def take() -> None:
            got.append(await channel.receive())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                await server.broadcast("room:1", "n", number)
        assert sorted(got) == [("n", 0), ("n", 1), ("n", 2)]


# The end.


async def test_a_left_channel() -> None:
    """Pushing and receiving raise, iteration ends, leaving again has no effect."""
    async with connected() as (_server, socket):
        channel = await socket.join("room:1")
        await trio.testing.wait_all_tasks_blocked()
        await channel.leave()
        await channel.leave()
        with pytest.raises(NotJoined):
            await channel.push("x")
        with pytest.raises(NotJoined):
            await channel.send("x")
        assert await channel.receive() == ("hello", {"topic": "room:1"})
        with pytest.raises(ChannelClosed):
            await channel.receive()
        with pytest.raises(ChannelClosed):
            channel.receive_nowait()
        assert [message async for message in channel] == []
        assert "closed" in repr(channel)


async def test_iteration_raises_when_the_connection_is_lost() -> None:
    """Like the iteration of a connection."""
    async with connected(reconnect=False) as (server, socket):
        channel = await socket.join("room:1")
        await channel.receive()
        await server.kill()
        with pytest.raises(ConnectionClosedError):
            async for _ in channel:
                pass
        with pytest.raises(ConnectionClosedError):
            await channel.push("x")


async def test_without_rejoin_delays_channels_end() -> None:
    """After a crash, and when the connection is lost."""
    async with connected(rejoin_delays=()) as (server, socket):
        first = await socket.join("room:1")
        with pytest.raises(ChannelCrashed):
            await first.push("no such event")
        second = await socket.join("room:1")
        await server.kill()
        with pytest.raises(Disconnected):
            await second.push("echo")
        assert first.closed
        assert second.closed
        third = await socket.join("room:1")
        assert (await third.push("echo")).ok
        with pytest.raises(Disconnected):
            async for _ in second:
                pass


# Payloads of joins.


async def test_an_exception_of_a_payload_function() -> None:
    """The first join raises it; on a later join, it ends the channel."""
    works: list[dict[str, Any]] = [{}, {}]

    def payload() -> Any:
        return works.pop()

    async def slow_payload() -> Any:
        await trio.sleep(1)
        raise KeyError("slow")

    async with connected() as (server, socket):
        with pytest.raises(KeyError, match="slow"):
            await socket.join("room:1", slow_payload)
        with pytest.raises(EncodeError):
            await socket.join("room:1", object)
        with pytest.raises(EncodeError):
            await socket.join("room:1", object())
        channel = await socket.join("room:1", payload)
        other = await socket.join("room:2", payload)
        await server.kill()
        assert await channel.receive() == ("hello", {"topic": "room:1"})
        for one in (channel, other):
            with pytest.raises(IndexError):
                async for _ in one:
                    pass
        assert (await socket.join("room:3")).joined


async def test_fault_24_an_oserror_of_a_payload_function_is_retried() -> None:
    """At a rejoin, like the same error of a function for the URL; the first join raises it."""
    errors: list[Exception] = []

    def payload() -> dict[str, Any]:
        if errors:
            raise errors.pop()
        return {}

    async def slow_payload() -> dict[str, Any]:
        await trio.sleep(0.1)
        return payload()

    async with connected(rejoin_delays=(1, 2)) as (server, socket):
        for function in (payload, slow_payload):
            errors[:] = [ConnectionRefusedError("no tokens")]
            with pytest.raises(ConnectionRefusedError):
                await socket.join("room:1", function)
            channel = await socket.join("room:1", function)
            errors[:] = [TimeoutError("no tokens"), OSError("no tokens")]
            await server.kill()
            await trio.sleep(0.9)
            assert isinstance(channel.last_error, OSError)
            await trio.sleep(10)
            assert channel.joined
            assert channel.join_count == 2
            await channel.leave()


# The status.


async def test_fault_26_outages_and_rejoins_can_be_watched() -> None:
    """With the response of every join and the reason of every interruption."""
    responses = iter(range(10))

    class Numbered(MockTopic):
        async def on_join(self, payload: Any) -> Any:
            return next(responses)

    async with connected({"room:*": Numbered}) as (server, socket):
        channel = await socket.join("room:1")
        seen: list[Any] = []

        async def watch() -> None:
            seen.extend([status async for status in channel.watch()])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            server.reject(503)
            await server.disconnect(1012)
            await trio.sleep(10)
            await (await server.client()).channels["room:1"].crash()
            await trio.sleep(10)
            await channel.leave()
        short = [(s.joined, s.join_count, s.response, type(s.error).__name__) for s in seen]
        assert short == [
            (True, 1, 0, "NoneType"),
            (False, 1, 0, "Disconnected"),
            (False, 1, 0, "Disconnected"),
            (True, 2, 1, "NoneType"),
            (False, 2, 1, "ChannelCrashed"),
            (True, 3, 2, "NoneType"),
            (False, 3, 2, "NoneType"),
        ]
        assert [s.ended for s in seen] == [False] * 6 + [True]
        assert "1012" in str(seen[1].error)
        assert "503" in str(seen[2].error)
        assert [status async for status in channel.watch()] == seen[-1:]


async def test_a_slow_watcher_gets_the_latest_status() -> None:
    """And a cancelled one loses none."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        statuses = channel.watch()
        assert (await anext(statuses)).joined
        with trio.move_on_after(1):
            await anext(statuses)
        await server.kill()
        await trio.sleep(10)
        assert (await anext(statuses)).join_count == 2
    assert (await anext(statuses)).ended
    with pytest.raises(StopAsyncIteration):
        await anext(statuses)


async def test_fault_27_errors_say_why_the_connection_was_lost() -> None:
    """In their text, as a value, and as the cause; also after a failed attempt."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        caught: list[Disconnected] = []

        async def push() -> None:
            try:
                await channel.push("silent")
            except Disconnected as error:
                caught.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await trio.testing.wait_all_tasks_blocked()
            server.reject(503, times=100)
            await server.disconnect(1012)
        [error] = caught
        assert error.reason == RemoteClose(code=1012, attempt=1)
        assert "1012" in str(error)
        await trio.sleep(1)
        last = channel.last_error
        assert isinstance(last, Disconnected)
        assert isinstance(last.__cause__, HandshakeRefused)
        assert "503" in str(last)
        with pytest.raises(JoinTimeout, match="503"):
            await socket.join("room:2", timeout=1)

    async with connected(reconnect=False) as (server, socket):
        channel = await socket.join("room:1")
        waiting = await socket.join_soon("room:2", lambda: trio.sleep(5))
        await server.kill()
        with pytest.raises(Disconnected, match="connection has ended: connection lost"):
            await waiting.wait_joined()
        assert isinstance(channel.last_error, Disconnected)


# Invalid calls.


async def test_invalid_arguments() -> None:
    """They raise immediately and change nothing."""
    async with connected(max_buffer=1) as (_server, socket):
        channel = await socket.join("room:1")
        with pytest.raises(AlreadyJoined):
            await socket.join("room:1")
        bad: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
            (socket.join, (7,), {}),
            (socket.join, ("",), {}),
            (socket.join, ("phoenix",), {}),
            (socket.join, ("room:2",), {"timeout": -1}),
            (socket.join, ("room:2",), {"max_queue": 0}),
            (socket.join, ("room:2",), {"overflow": "wait"}),
            (socket.join, ("room:2",), {"presence": True}),
            (channel.push, (7,), {}),
            (channel.push, ("",), {}),
            (channel.push, ("x",), {"timeout": 0}),
            (channel.leave, (), {"timeout": "soon"}),
        ]
        for call, arguments, options in bad:
            with pytest.raises(InvalidOption):
                await call(*arguments, **options)
        with pytest.raises(EncodeError):
            await channel.push("x", object())
        with pytest.raises(EncodeError):
            await channel.send("x", {"deep": [object()]})
        for event in ("e" * 256, "\ud800"):
            with pytest.raises(InvalidMessage):
                await channel.push(event, b"")
        assert (await channel.push("echo", "fine")).response == "fine"
        assert socket.statistics().pending == 0

        waiting = await socket.join_soon("room:2", lambda: trio.sleep(5))
        with pytest.raises(EncodeError):
            await waiting.push("x", object())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.push, "echo")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BufferFull):
                await waiting.push("x")


async def test_a_cancelled_push_is_withdrawn() -> None:
    """A waiting push is never sent; the reply to a sent one is ignored."""
    async with connected() as (server, socket):
        channel = await socket.join_soon("room:1", lambda: trio.sleep(5))
        with trio.move_on_after(1):
            await channel.push("echo", "never")
        await channel.wait_joined()
        with trio.move_on_after(0):
            await channel.push("echo", "sent")
        await trio.sleep(1)
        assert socket.statistics().pending == 0
        client = await server.client()
        assert "never" not in [m.payload for m in client.received]


# Serializers.


class LooseCodec:
    """Does not notice what cannot be sent."""

    def encode(self, message: Any, /) -> str:
        return json.dumps(message, ensure_ascii=False)

    def decode(self, frame: Any, /) -> Any:
        return json.loads(frame)


class NoFrameSerializer(phoenix.V2Serializer):
    def encode(self, message: PhoenixMessage) -> Any:
        return 3 if message.event == "x" else super().encode(message)


@pytest.mark.parametrize(
    "serializer",
    [
        phoenix.V2Serializer(JSON(library="json")),
        phoenix.V2Serializer(JSON(library="orjson")),
        phoenix.V2Serializer(JSON(library="msgspec")),
        phoenix.V2Serializer(LooseCodec()),
        NoFrameSerializer(),
    ],
    ids=["json", "orjson", "msgspec", "loose codec", "not a frame"],
)
async def test_fault_22_the_call_raises_what_cannot_be_encoded(
    serializer: phoenix.V2Serializer,
) -> None:
    """Of pushes that are sent at once or later, joins and leaves; the connection stays."""
    async with connected(serializer=serializer) as (_server, socket):
        channel = await socket.join("room:1")
        waiting = await socket.join_soon("room:2", lambda: trio.sleep(5))
        for bad in ("\ud800", {"a": ["\udfff"]}, {"a": {1}}, [b"a"]):
            for one in (channel, waiting):
                with pytest.raises(EncodeError):
                    await one.push("x", bad)
                with pytest.raises(EncodeError):
                    await one.send("x", bad)
            if not isinstance(serializer, NoFrameSerializer):
                with pytest.raises(EncodeError):
                    await channel.leave(bad)
            with pytest.raises(EncodeError):
                await socket.join("room:3", bad)
            with pytest.raises(EncodeError):
                await socket.join("room:3", partial(copy.copy, bad))
        await waiting.wait_joined()
        assert (await waiting.push("echo")).ok
        assert (await channel.push("echo")).ok
        assert socket.statistics().pending == 0


async def test_fault_22_a_payload_that_changes_while_it_waits() -> None:
    """The push raises the error, and the others are sent."""
    payload: dict[str, Any] = {}
    async with connected() as (_server, socket):
        channel = await socket.join_soon("room:1", lambda: trio.sleep(5))
        async with trio.open_nursery() as nursery:
            for call in (channel.push, channel.send):
                nursery.start_soon(fails_to_encode, call, payload)
            await trio.testing.wait_all_tasks_blocked()
            payload["late"] = {1}
            assert (await channel.push("echo")).ok
        assert channel.joined


async def fails_to_encode(call: Any, payload: Any) -> None:
    with pytest.raises(EncodeError):
        await call("x", payload)


async def test_a_custom_serializer() -> None:
    seen: list[PhoenixMessage] = []

    class Watching(phoenix.V2Serializer):
        def encode(self, message: PhoenixMessage) -> Any:
            seen.append(message)
            return super().encode(message)

    async with connected(serializer=Watching()) as (_server, socket):
        channel = await socket.join("room:1")
        assert await channel.push("echo", 1) == PushReply("ok", 1)
    assert PhoenixMessage("1", "2", "room:1", "echo", 1) in seen


@pytest.mark.slow
async def test_cancellation_at_every_checkpoint() -> None:
    """Nothing is left behind, and everything works again."""
    finished = 0
    async with connected() as (server, socket):
        for steps in range(60):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, steps, scope)
                    channel = await socket.join("room:1")
                    assert (await channel.push("echo")).ok
                    await channel.send("silent")
                    await channel.leave()
                    finished += 1
            await trio.testing.wait_all_tasks_blocked()
            if channel_of(socket):
                # Cancelled between two calls.
                await channel.leave()
            assert socket.statistics().pending == 0
            assert socket.statistics().channels == 0
            client = await server.client()
            assert client.channels == {}
    assert 0 < finished < 60


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def channel_of(socket: phoenix.PhoenixSocket) -> bool:
    return socket.statistics().channels > 0


async def test_a_hanging_payload_function_is_cancelled() -> None:
    """By the next attempt, and by leaving."""
    running, most = 0, 0
    hangs = False

    async def payload() -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if hangs:
                await trio.sleep_forever()
        finally:
            running -= 1
        return {}

    async with connected() as (server, socket):
        channel = await socket.join("room:1", payload)
        hangs = True
        await (await server.client()).channels["room:1"].crash()
        await trio.sleep(300)
        assert most == 1
        await channel.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert running == 0


@pytest.mark.parametrize(
    "option",
    [{"timeout": None}, {"timeout": 0}, {"serializer": 3}, {"serializer": phoenix.V2Serializer}],
)
async def test_invalid_options(option: dict[str, Any]) -> None:
    """Both interfaces raise before connecting."""
    with pytest.raises(InvalidOption, match="|".join(option)):
        phoenix.connect("ws://127.0.0.1:1", **option)
    with pytest.raises(InvalidOption, match="|".join(option)):
        await phoenix.run("ws://127.0.0.1:1", phoenix.ChannelClient[None](), **option)


@pytest.mark.parametrize("event", ["phx_join", "phx_leave", "phx_close", "phx_error", "phx_reply"])
async def test_reserved_events_cannot_be_pushed(event: str) -> None:
    async with connected() as (_server, socket):
        channel = await socket.join("room:1")
        with pytest.raises(InvalidOption, match=event):
            await channel.push(event)
        await channel.push("echo")
