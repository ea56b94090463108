"""A channel: its queue, its end, its presence, and calls that cannot work."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioglock import ConnectionClosedError, EncodeError, InvalidOption, UsageError
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import (
    AlreadyJoined,
    BufferFull,
    ChannelClosed,
    ChannelCrashed,
    ChannelOverflow,
    Disconnected,
    InvalidMessage,
    PhoenixMessage,
    NotJoined,
    Presence,
    PushReply,
)
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer

# The queue.


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [2, 3, 4]), ("drop_newest", [0, 1, 2])]
)
async def test_a_full_queue_drops_what_it_is_told_to(
    autojump_clock: MockClock, overflow: Any, kept: list[int]
) -> None:
    """Each channel has a bound of its own, and counts what it loses."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


async def test_by_default_a_full_queue_leaves_the_topic(autojump_clock: MockClock) -> None:
    """Loudly: what waits can be read, then comes the error; other channels go on."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    """And several tasks may receive: each message goes to one of them."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


# Its end.


async def test_nothing_can_be_done_with_a_channel_that_was_left(autojump_clock: MockClock) -> None:
    """Pushes raise, receiving raises, iterating ends, leaving again is harmless."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


async def test_a_lost_connection_that_does_not_come_back_raises_in_the_loop(
    autojump_clock: MockClock,
) -> None:
    """As the connection's own loop does."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream, reconnect=False) as socket,
    ):
        channel = await socket.join("room:1")
        await channel.receive()
        await server.kill()
        with pytest.raises(ConnectionClosedError):
            async for _ in channel:
                pass
        with pytest.raises(ConnectionClosedError):
            await channel.push("x")


async def test_without_delays_channels_end_with_a_crash_or_the_connection(
    autojump_clock: MockClock,
) -> None:
    """rejoin_delays=() leaves it to the program to join again."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream, rejoin_delays=()) as socket,
    ):
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


async def test_a_payload_function_that_raises_fails_the_join_alone(
    autojump_clock: MockClock,
) -> None:
    """At the first join it is raised there; at a later one the channel ends with it."""
    works: list[dict[str, Any]] = [{}, {}]

    def payload() -> Any:
        return works.pop()

    async def slow_payload() -> Any:
        await trio.sleep(1)
        raise KeyError("slow")

    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


# What cannot work.


async def test_bad_arguments_are_refused_at_the_call(autojump_clock: MockClock) -> None:
    """Each names what is wrong, and leaves everything as it was."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream, max_buffer=1) as socket,
    ):
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


async def test_a_cancelled_push_is_withdrawn(autojump_clock: MockClock) -> None:
    """One that waits is never sent; the reply to one that was sent is ignored."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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


async def test_a_callback_must_not_wait(autojump_clock: MockClock) -> None:
    """A presence callback that calls the socket is told so, and the error comes out."""
    calls: list[Any] = []
    presence = Presence(on_sync=lambda: calls[0].send(None))

    class Lobby(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.track("al")

    with pytest.raises(UsageError):
        async with (
            MockPhoenixServer({"room:*": Lobby}, memory=True) as server,
            phoenix.connect(server.url, stream=server.open_stream) as socket,
        ):
            channel = await socket.join_soon("room:1", presence=presence)
            calls.append(channel.push("x"))
            await channel.wait_joined()
            await trio.sleep(1)


# Serializers.


async def test_a_serializer_of_ones_own(autojump_clock: MockClock) -> None:
    """Two functions, around the default or instead of it."""
    seen: list[PhoenixMessage] = []

    class Watching(phoenix.V2Serializer):
        def encode(self, message: PhoenixMessage) -> Any:
            seen.append(message)
            return super().encode(message)

    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream, serializer=Watching()) as socket,
    ):
        channel = await socket.join("room:1")
        assert await channel.push("echo", 1) == PushReply("ok", 1)
    assert PhoenixMessage("1", "2", "room:1", "echo", 1) in seen


# Presence, as in the JavaScript client.


def entry(*refs: str, **more: Any) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref} for ref in refs], **more}


def test_presence_tells_who_comes_and_who_goes() -> None:
    """A key joins with its first connection and goes with its last."""
    told: list[Any] = []
    presence = Presence(
        on_join=lambda key, known, come: told.append(("+", key, known, come)),
        on_leave=lambda key, left, gone: told.append(("-", key, left, gone)),
        on_sync=lambda: told.append("sync"),
    )
    assert presence.receive("presence_state", {"al": entry("1")}, "5")
    assert presence.receive("presence_diff", {"joins": {"al": entry("2")}, "leaves": {}}, "5")
    assert presence.receive("presence_diff", {"joins": {}, "leaves": {"al": entry("1")}}, "5")
    assert presence.receive("presence_diff", {"leaves": {"al": entry("2"), "zz": entry("9")}}, "5")
    assert not presence.receive("other", {}, "5")
    assert told == [
        ("+", "al", None, entry("1")),
        "sync",
        ("+", "al", entry("1"), entry("2")),
        "sync",
        ("-", "al", entry("2"), entry("1")),
        "sync",
        ("-", "al", entry(), entry("2")),
        "sync",
    ]
    assert presence.list() == []


def test_presence_after_a_rejoin_tells_only_what_has_changed() -> None:
    """Diffs of the new join wait for its state; the rest is compared by phx_ref."""
    told: list[Any] = []
    presence = Presence(
        on_join=lambda key, known, come: told.append(("+", key, come)),
        on_leave=lambda key, left, gone: told.append(("-", key, gone)),
    )
    presence.receive("presence_state", {"al": entry("1", "2"), "bo": entry("3")}, "5")
    told.clear()
    presence.receive("presence_diff", {"joins": {"cy": entry("6")}, "leaves": {}}, "7")
    assert "cy" not in presence
    presence.receive("presence_state", {"al": entry("2", "4", name="Al")}, "7")
    assert told == [
        ("+", "al", entry("4", name="Al")),
        ("-", "bo", entry("3")),
        ("-", "al", entry("1")),
        ("+", "cy", entry("6")),
    ]
    assert presence.list(lambda key, found: (key, len(found["metas"]))) == [("al", 2), ("cy", 1)]
    assert len(presence) == 2


@pytest.mark.parametrize(
    "payload",
    [None, [], {"al": None}, {"al": {}}, {"al": {"metas": [{}]}}, {"al": {"metas": [1]}}],
)
async def test_presence_that_is_none_is_counted_and_changes_nothing(
    autojump_clock: MockClock, payload: Any
) -> None:
    """As any malformed message is."""
    presence = Presence()
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
        await socket.join("room:1", presence=presence)
        await server.broadcast("room:1", "presence_state", {"bo": entry("1")})
        await server.broadcast("room:1", "presence_state", payload)
        await server.broadcast("room:1", "presence_diff", {"joins": payload})
        await server.broadcast("room:1", "presence_diff", [])
        await trio.testing.wait_all_tasks_blocked()
        assert presence.state == {"bo": entry("1")}
        assert socket.statistics().invalid == 3


async def test_cancellation_may_strike_anywhere(autojump_clock: MockClock) -> None:
    """At whichever step of joining, pushing and leaving: nothing is left, and all works again."""
    finished = 0
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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
                # Cancelled between two calls, with the channel in hand.
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


async def test_what_a_callback_of_presence_raises_is_not_the_servers_fault(
    autojump_clock: MockClock,
) -> None:
    """A ValueError of the program's own comes out of the block; it is no malformed message."""

    def fails(*args: Any) -> None:
        raise ValueError("mine")

    class Room(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("presence_state", {"al": entry("1")})

    with pytest.raises(ValueError, match="mine"):
        async with (
            MockPhoenixServer({"room:*": Room}, memory=True) as server,
            phoenix.connect(server.url, stream=server.open_stream) as socket,
        ):
            await socket.join("room:1", presence=Presence(on_join=fails))
            await trio.sleep(1)
            pytest.fail("the error is lost")  # pragma: no cover


async def test_a_function_for_the_payload_that_hangs_does_not_pile_up(
    autojump_clock: MockClock,
) -> None:
    """Each attempt to join ends the asking of the one before; so does leaving."""
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

    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
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
async def test_options_that_cannot_work_are_refused_at_the_call(option: dict[str, Any]) -> None:
    """By both faces, before anything is dialled."""
    with pytest.raises(InvalidOption, match="|".join(option)):
        phoenix.connect("ws://127.0.0.1:1", **option)
    with pytest.raises(InvalidOption, match="|".join(option)):
        await phoenix.run("ws://127.0.0.1:1", phoenix.ChannelClient[None](), **option)


@pytest.mark.parametrize("event", ["phx_join", "phx_leave", "phx_close", "phx_error", "phx_reply"])
async def test_events_of_phoenix_itself_cannot_be_pushed(
    event: str, autojump_clock: MockClock
) -> None:
    """A join within a join would end the channel behind the program's back."""
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
        channel = await socket.join("room:1")
        with pytest.raises(InvalidOption, match=event):
            await channel.push(event)
        await channel.push("echo")
