"""Clients that do not read: nothing is lost silently, and nobody else has to wait."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from tests.server.helpers import LockstepListener
from trioglock.channels import Answer, Broadcast, Channel
from trioglock.errors import ConnectionClosedError
from trioglock.pubsub import Hub


class Room(Channel[None]):
    """Echoes, and pushes as many events as a client wants."""

    channels: list[Room]

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        self.channels.append(self)
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


@pytest.fixture(autouse=True)
def channels() -> list[Room]:
    Room.channels = []
    return Room.channels


def serving_slow(**options: Any) -> AbstractAsyncContextManager[ChannelsSite]:
    """A server whose streams have no buffers."""
    return serving_channels(
        Room, listener=LockstepListener(), serve_options={"write_limit": 10_000}, **options
    )


BIG = {"text": "x" * 10_000}


@MOCK_CLOCK
async def test_broadcasts_wait_for_a_client_that_pauses_and_arrive_in_order() -> None:
    async with (
        serving_channels(
            Room, listener=LockstepListener(), serve_options={"write_limit": 10_000}
        ) as site,
        site.dial(max_queue=1) as slow,
        site.dial() as fast,
    ):
        await slow.join()
        await fast.join()
        for number in range(200):
            await site.channels.broadcast("room:1", "news", {"n": number, **BIG})
            assert (await fast.receive())[4]["n"] == number
        await wait_all_tasks_blocked()
        await slow.send("1", "2", "room:1", "echo", {})
        numbers = [(await slow.receive())[4]["n"] for _ in range(200)]
        assert numbers == list(range(200))
        assert (await slow.receive())[1] == "2"


@MOCK_CLOCK
async def test_a_client_whose_queue_is_full_is_closed_with_1013_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        serving_slow(hub=Hub(max_queue=10)) as site,
        site.dial(max_queue=1) as slow,
        site.dial() as fast,
    ):
        await slow.join()
        await fast.join()
        for number in range(300):
            await site.channels.broadcast("room:1", "news", {"n": number, **BIG})
            assert (await fast.receive())[4]["n"] == number
        with pytest.raises(ConnectionClosedError):
            while True:
                await slow.receive()
        assert slow.connection.close_code == 1013
        await fast.alive()
    assert "is too slow" in caplog.text


@MOCK_CLOCK
async def test_a_push_waits_for_a_slow_client(channels: list[Room]) -> None:
    async with (
        serving_channels(Room, listener=LockstepListener()) as site,
        site.dial(max_queue=1) as slow,
    ):
        await slow.join()
        sent = 0

        async def push() -> None:
            nonlocal sent
            for _ in range(300):
                await channels[0].push("news", BIG)
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await wait_all_tasks_blocked()
            assert sent < 250
            for _ in range(300):
                assert (await slow.receive())[3] == "news"
        assert sent == 300


@pytest.mark.slow
@MOCK_CLOCK
async def test_a_client_that_does_not_read_its_replies_is_not_read_either() -> None:
    """A client that pushes a lot and reads later gets all replies."""
    async with (
        serving_channels(Room, listener=LockstepListener()) as site,
        site.dial(max_queue=1) as slow,
    ):
        await slow.join()

        async def send() -> None:
            for number in range(1000):
                await slow.send("1", str(number), "room:1", "echo", BIG)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            refs = [(await slow.receive())[1] for _ in range(1000)]
        assert refs == list(map(str, range(1000)))


class SlowRoom(Channel[None]):
    """Every hook waits, and answers with a lot."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(0)
        return BIG, None

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep(0)
        return Answer("ok", BIG), state


@MOCK_CLOCK
@pytest.mark.parametrize("kind", ["pushes", "joins"])
async def test_the_replies_of_async_hooks_to_a_client_that_does_not_read_are_bounded(
    kind: str,
) -> None:
    async with (
        serving_channels(
            SlowRoom,
            listener=LockstepListener(),
            serve_options={"write_limit": 10_000, "max_queue": 16},
            message_rate=None,
            join_rate=None,
        ) as site,
        site.dial(max_queue=1) as slow,
    ):
        await slow.join()

        async def send() -> None:
            for number in range(3000):
                ref = f"x{number}"
                if kind == "pushes":
                    await slow.send("1", ref, "room:1", "x", {})
                else:
                    await slow.send(ref, ref, "room:1", "phx_join", {})
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            (connection,) = site.server.connections
            assert connection.statistics().send_queue_bytes < 500_000
            nursery.cancel_scope.cancel()


@MOCK_CLOCK
async def test_a_disconnect_closes_a_client_that_does_not_read() -> None:
    async with (
        serving_slow(connect=lambda _: "al", id=lambda user: user) as site,
        site.dial(max_queue=1, ping_interval=None) as slow,
    ):
        await slow.join()
        for _ in range(100):
            await site.channels.broadcast("room:1", "news", BIG)
        await site.channels.disconnect("al")
        while site.channels.hub.statistics().subscribers:
            await trio.sleep(1)
        assert trio.current_time() < 60


class Library(Channel[None]):
    """Its answers are much larger than the pushes."""

    handled: int

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        Library.handled = 0
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        Library.handled += 1
        return Answer("ok", {"text": "x" * 100_000}), state


def push_at_once(raw: RawPhoenix, count: int) -> None:
    """Send many pushes in one write."""
    for ref in range(count):
        raw.connection.send_nowait(f'["1","{ref}","room:1","x",{{}}]')


@MOCK_CLOCK
async def test_small_pushes_with_large_answers_wait_for_a_client_that_does_not_read() -> None:
    listener = LockstepListener()
    async with (
        serving_channels(Library, listener=listener) as site,
        site.dial(max_queue=1) as slow,
        site.dial() as other,
    ):
        await slow.join()
        push_at_once(slow, 200)
        await wait_all_tasks_blocked()
        assert Library.handled < 10
        await other.alive()
        for ref in range(200):
            message = await slow.receive()
            assert (message[1], message[4]["status"]) == (str(ref), "ok")
        await slow.alive()


@MOCK_CLOCK
@pytest.mark.parametrize("ends", ["client", "server"])
async def test_a_connection_ends_while_pushes_wait_for_its_client(ends: str) -> None:
    reasons: list[Any] = []

    class Reported(Library):
        def terminate(self, reason: Any, state: None) -> None:
            reasons.append(reason)

    async with (
        serving_channels(Reported, listener=LockstepListener()) as site,
        site.dial(max_queue=1) as slow,
    ):
        await slow.join()
        push_at_once(slow, 1000)
        await wait_all_tasks_blocked()
        assert Library.handled < 10
        assert not reasons
        if ends == "client":
            slow.connection.abort()
        else:
            site.server.abort()
        await wait_all_tasks_blocked()
        assert len(reasons) == 1


async def test_other_clients_get_their_turn_while_a_client_broadcasts_without_a_pause() -> None:
    seen: list[int] = []

    class Studio(Channel[None]):
        intercept = ("news",)

        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            return Broadcast("news", {}), state

        def handle_out(self, event: str, payload: Any, state: None) -> Any:
            seen.append(len(seen))
            time.sleep(0.001)
            return None, state

    async with serving_channels(Studio) as site, site.dial() as raw, site.dial() as other:
        await raw.join()
        await raw.alive()
        push_at_once(raw, 100)
        await other.alive()
        assert len(seen) < 60
        await raw.alive()
        assert len(seen) == 100


async def test_pushes_before_a_close_are_handled_even_if_they_have_to_wait_their_turn() -> None:
    class Studio(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            time.sleep(0.001)
            return Broadcast("news", {}), state

    async with serving_channels(Studio) as site, site.dial() as raw, site.dial() as other:
        await raw.join()
        await other.join()
        push_at_once(raw, 100)
        await raw.connection.aclose()
        for _ in range(100):
            assert (await other.receive())[3] == "news"
