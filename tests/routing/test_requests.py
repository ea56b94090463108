"""Requests: each is settled once, by its answer, by time, or by the end of its link."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock import (
    Backoff,
    Close,
    ConnectionClosed,
    ConnectionLost,
    InvalidOption,
    TrioWebsocketTransport,
    UsageError,
)
from trioglock.routing import (
    EventConnection,
    EventSocket,
    RequestLost,
    RequestTimeout,
    Router,
    connect,
)
from trioglock.testing import MockPeer, MockServer


@asynccontextmanager
async def pair(
    socket: EventSocket[Any] | Router | None = None, **options: Any
) -> AsyncIterator[tuple[EventConnection[Any], MockPeer, MockServer]]:
    """A connection in memory and its server's end."""
    async with (
        MockServer(memory=True) as server,
        connect(server.url, socket, stream=server.open_stream, **options) as conn,
    ):
        yield conn, await server.accept(), server


async def asked(peer: MockPeer) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await peer.receive())
    return message


async def answer(peer: MockPeer, request: dict[str, Any], **more: Any) -> None:
    await peer.send(json.dumps({"event": request["event"], "ref": request["ref"], **more}))


async def test_each_request_gets_its_own_answer(autojump_clock: MockClock) -> None:
    """In whatever order they come; events in between go to the router."""
    answers: dict[str, Any] = {}
    async with pair() as (conn, peer, _), trio.open_nursery() as nursery:

        async def ask(event: str) -> None:
            answers[event] = await conn.request(event, {"n": event})

        for event in ("a", "b", "c"):
            nursery.start_soon(ask, event)
        requests = [await asked(peer) for _ in range(3)]
        assert {r["event"]: r["payload"] for r in requests} == {x: {"n": x} for x in "abc"}
        assert len({r["ref"] for r in requests}) == 3
        await peer.send('{"event":"news"}')
        for request in reversed(requests):
            await answer(peer, request, status=request["event"].upper())
        assert await conn.receive() == {"event": "news"}
    assert {event: got["status"] for event, got in answers.items()} == {
        "a": "A", "b": "B", "c": "C",
    }  # fmt: skip
    assert not conn.socket.requests


async def test_no_answer_in_time(autojump_clock: MockClock) -> None:
    """RequestTimeout names the event; the late answer and a second one are plain events."""
    async with pair() as (conn, peer, _):
        began = trio.current_time()
        with pytest.raises(RequestTimeout, match="no answer to 'a' within 3 seconds") as caught:
            await conn.request("a", timeout=3)
        assert (caught.value.event, caught.value.timeout) == ("a", 3)
        assert isinstance(caught.value, TimeoutError)
        assert trio.current_time() - began == 3
        request = await asked(peer)
        assert "payload" not in request
        assert not conn.socket.requests
        await answer(peer, request, status="late")
        assert (await conn.receive())["status"] == "late"


async def test_a_second_answer_is_an_event(autojump_clock: MockClock) -> None:
    """So is one with a ref that never was, or that is no text."""
    async with pair() as (conn, peer, _), trio.open_nursery() as nursery:

        async def ask() -> None:
            assert (await conn.request("a"))["n"] == 1

        nursery.start_soon(ask)
        request = await asked(peer)
        refs: list[Any] = ["never", 3, [], {}, None]
        for ref in refs:
            await peer.send(json.dumps({"event": "a", "ref": ref}))
        await answer(peer, request, n=1)
        await answer(peer, request, n=2)
        for _ in range(5):
            assert (await conn.receive())["event"] == "a"
        assert (await conn.receive())["n"] == 2


async def test_a_cancelled_request_leaves_nothing(autojump_clock: MockClock) -> None:
    """Whenever it is cancelled, while it sends or while it waits."""
    async with pair() as (conn, _, __):
        with trio.move_on_after(1):
            await conn.request("a", timeout=None)
        assert not conn.socket.requests
        with trio.CancelScope() as scope:
            scope.cancel()
            await conn.request("a")
        assert not conn.socket.requests
        assert conn.connection.statistics().messages_sent == 1


async def test_requests_end_with_their_link(autojump_clock: MockClock) -> None:
    """RequestLost at once, with the reason; asked again over the next link, it is answered."""
    backoff = Backoff(initial=1, jitter="none")
    async with pair(reconnect=backoff) as (conn, peer, server), trio.open_nursery() as nursery:

        async def break_it() -> None:
            await asked(peer)
            await peer.abort()

        nursery.start_soon(break_it)
        with pytest.raises(RequestLost, match="before 'a' was answered") as caught:
            await conn.request("a", timeout=None)
        assert isinstance(caught.value.reason, ConnectionLost)

        async def serve() -> None:
            second = await server.accept()
            await answer(second, await asked(second))

        nursery.start_soon(serve)
        assert (await conn.request("b"))["event"] == "b"  # waits for the link, and goes over it


async def test_a_request_during_an_outage_survives_failed_attempts(
    autojump_clock: MockClock,
) -> None:
    """It was not sent yet, so a refused handshake is not its end; time is."""
    backoff = Backoff(initial=1, multiplier=1, jitter="none")
    async with pair(reconnect=backoff) as (conn, peer, server), trio.open_nursery() as nursery:
        server.reject(503, times=3)
        await peer.abort()
        while conn.status.value == "open":
            await trio.sleep(0.1)

        async def serve() -> None:
            second = await server.accept()
            for _ in range(2):
                await answer(second, await asked(second))

        with pytest.raises(RequestTimeout):
            await conn.request("a", timeout=0.5)
        nursery.start_soon(serve)
        assert (await conn.request("b", timeout=60))["event"] == "b"
        # The first one was queued, so it went out all the same; its answer is an event now.
        assert (await conn.receive())["event"] == "a"
        assert conn.connection.statistics().reconnects == 1


async def test_the_end_of_the_connection_ends_requests(autojump_clock: MockClock) -> None:
    """Closed by us, closed by the peer, aborted: no request hangs, and later ones say so."""
    for end in ("close", "peer", "abort"):
        async with pair() as (conn, peer, _), trio.open_nursery() as nursery:

            async def ask(conn: EventConnection[Any] = conn) -> None:
                with pytest.raises(RequestLost):
                    await conn.request("a", timeout=None)

            nursery.start_soon(ask)
            await asked(peer)
            if end == "close":
                nursery.start_soon(conn.aclose)
                await peer.expect_close()
            elif end == "peer":
                await peer.close(1000)
            else:
                conn.connection.abort()
            await conn.wait_closed()
            with pytest.raises(ConnectionClosed):
                await conn.request("b")
            assert not conn.socket.requests


async def test_one_socket_serves_two_connections(autojump_clock: MockClock) -> None:
    """The end of one does not touch the requests of the other."""
    socket = EventSocket[Any]()
    async with (
        pair(socket) as (one, first, _),
        pair(socket) as (two, second, __),
        trio.open_nursery() as nursery,
    ):
        done = trio.Event()

        async def ask() -> None:
            assert (await two.request("b"))["status"] == "fine"
            done.set()

        nursery.start_soon(ask)
        request = await asked(second)
        await first.close(1000)
        await one.wait_closed()
        await trio.sleep(1)
        assert not done.is_set()
        await answer(second, request, status="fine")
        await done.wait()


async def test_requests_inside_handlers_are_refused(autojump_clock: MockClock) -> None:
    """They would wait for themselves: UsageError at once."""
    router = Router()
    inside: list[EventConnection[Any]] = []

    @router.on("ask")
    async def ask(event: Any, state: Any) -> tuple[Any, Any]:
        with pytest.raises(UsageError):
            await inside[0].request("a")
        return "refused", state

    async with pair(router) as (conn, peer, _):
        inside.append(conn)
        await peer.send('{"event":"ask"}')
        assert await conn.receive() == "refused"
        assert not conn.socket.requests


async def test_arguments_are_checked(autojump_clock: MockClock) -> None:
    """Before anything is sent."""
    async with pair() as (conn, _, __):
        for event in ("", 3, None):
            with pytest.raises(InvalidOption, match="event"):
                await conn.request(event)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="timeout"):
            await conn.request("a", timeout=-1)
        assert conn.connection.statistics().messages_sent == 0


async def test_it_is_a_connection(autojump_clock: MockClock) -> None:
    """Send, cast, call, iterate, close: as usual."""

    class Asked(EventSocket[int]):
        def init_stream(self, info: Any) -> int:
            return 1

        def handle_cast(self, message: Any, state: int) -> tuple[Any, int]:
            return ("cast", message), state + 1

        def handle_call(self, request: Any, state: int) -> tuple[Any, int]:
            return state, state

    async with pair(Asked()) as (conn, peer, _):
        await conn.send([1])
        await peer.expect("[1]")
        conn.cast("x")
        assert [await conn.receive(), await conn.call("?")] == [("cast", "x"), 2]
        conn.cast("y")
        async for message in conn:
            assert message == ("cast", "y")
            break
        assert "over <Connection" in repr(conn)
        await peer.close(1000)
        assert [m async for m in conn] == []


@pytest.mark.parametrize("transport", [None, TrioWebsocketTransport()], ids=["native", "trio-ws"])
async def test_over_real_sockets(transport: Any) -> None:
    """Both real transports carry a thousand requests, twenty at a time."""

    async def serve(peer: MockPeer) -> None:
        for _ in range(1000):
            await answer(peer, await asked(peer), status="success")

    with trio.fail_after(20):
        async with (
            MockServer(serve) as server,
            connect(server.url, transport=transport) as conn,
            trio.open_nursery() as nursery,
        ):

            async def ask() -> None:
                for _ in range(50):
                    assert (await conn.request("a", {"x": 1}))["status"] == "success"

            for _ in range(20):
                nursery.start_soon(ask)


def test_a_close_code_is_not_encoded() -> None:
    """Close passes the codec."""
    assert EventSocket[None]().handle_send(Close(1001), None) == (Close(1001), None)
