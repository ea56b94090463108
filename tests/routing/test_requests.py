"""Requests: each ends once, by its answer, a timeout or the end of its link."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.routing.streams import FaultyStream, pair
from trioglock import (
    Backoff,
    ConnectionClosed,
    ConnectionLost,
    InvalidOption,
    UsageError,
    connect,
)
from trioglock.routing import EventSocket, RequestLost, RequestTimeout, Router
from trioglock.testing import MockPeer, MockServer


@pytest.fixture
def socket() -> EventSocket[Any]:
    return EventSocket()


async def next_request(peer: MockPeer) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await peer.receive())
    return message


async def answer(peer: MockPeer, request: dict[str, Any], **more: Any) -> None:
    await peer.send(json.dumps({"event": request["event"], "ref": request["ref"], **more}))


async def test_each_request_gets_its_own_answer(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """In any order of the answers; other events go to the router."""
    answers: dict[str, Any] = {}
    async with pair(socket) as (conn, peer, _), trio.open_nursery() as nursery:

        async def ask(event: str) -> None:
            answers[event] = await socket.request(event, {"n": event})

        for event in ("a", "b", "c"):
            nursery.start_soon(ask, event)
        requests = [await next_request(peer) for _ in range(3)]
        assert {r["event"]: r["payload"] for r in requests} == {x: {"n": x} for x in "abc"}
        assert len({r["ref"] for r in requests}) == 3
        await peer.send('{"event":"news"}')
        for request in reversed(requests):
            await answer(peer, request, status=request["event"].upper())
        assert await conn.receive() == {"event": "news"}
    assert {event: got["status"] for event, got in answers.items()} == {
        "a": "A", "b": "B", "c": "C",
    }  # fmt: skip
    assert not socket.requests


class JSONRPC(EventSocket[Any]):
    """Numbers its requests. Neither answers have a method, nor notifications an id."""

    def __init__(self, router: Router | None = None) -> None:
        super().__init__(router, key=lambda m: m["method"], ref=lambda m: m["id"])
        self.numbers = itertools.count(1)

    def make_ref(self) -> int:
        return next(self.numbers)

    def make_request(self, event: str, payload: Any, ref: str | int) -> Any:
        return {"id": ref, "method": event, "params": payload}


@pytest.mark.parametrize("style", ["plain", "async"])
async def test_fault_28_an_answer_needs_no_name(autojump_clock: MockClock, style: str) -> None:
    """As in JSON-RPC: requests end by their number, and events without one are events."""
    router = Router()

    if style == "async":

        @router.on("news")
        async def later(event: Any, state: Any) -> Any:
            await trio.sleep(0.1)
            return event, state

    else:
        router.on("news")(lambda event, state: (event, state))
    socket = JSONRPC(router)
    answers: dict[str, Any] = {}

    async def ask(method: str) -> None:
        answers[method] = await socket.request(method)

    async with pair(socket) as (conn, peer, _), trio.open_nursery() as nursery:
        nursery.start_soon(ask, "a")
        nursery.start_soon(ask, "b")
        requests = [await next_request(peer) for _ in range(2)]
        assert {request["id"] for request in requests} == {1, 2}
        await peer.send('{"method": "news"}')
        for ref in ("true", "null", '"1"', "[1]", "1.5"):
            await peer.send(f'{{"method": "news", "id": {ref}}}')
        for request in requests:
            await peer.send(json.dumps({"id": request["id"], "result": request["method"]}))
        news = [await conn.receive() for _ in range(6)]
        assert [event.get("id") for event in news] == [None, True, None, "1", [1], 1.5]
    assert {method: answer["result"] for method, answer in answers.items()} == {"a": "a", "b": "b"}
    assert socket.invalid.count == 0


async def test_timeout(autojump_clock: MockClock, socket: EventSocket[Any]) -> None:
    """RequestTimeout names the event; a late answer is an event."""
    async with pair(socket) as (conn, peer, _):
        began = trio.current_time()
        with pytest.raises(RequestTimeout, match="no reply to 'a' within 3 seconds") as caught:
            await socket.request("a", timeout=3)
        assert (caught.value.request, caught.value.timeout) == ("a", 3)
        assert isinstance(caught.value, TimeoutError)
        assert trio.current_time() - began == 3
        request = await next_request(peer)
        assert "payload" not in request
        assert not socket.requests
        await answer(peer, request, status="late")
        assert (await conn.receive())["status"] == "late"


async def test_a_second_answer_is_an_event(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """Like a message with an unknown ref, or a ref that is not a string."""
    async with pair(socket) as (conn, peer, _), trio.open_nursery() as nursery:

        async def ask() -> None:
            assert (await socket.request("a"))["n"] == 1

        nursery.start_soon(ask)
        request = await next_request(peer)
        refs: list[Any] = ["never", 3, [], {}, None]
        for ref in refs:
            await peer.send(json.dumps({"event": "a", "ref": ref}))
        await answer(peer, request, n=1)
        await answer(peer, request, n=2)
        for _ in range(5):
            assert (await conn.receive())["event"] == "a"
        assert (await conn.receive())["n"] == 2


async def test_cancellation(autojump_clock: MockClock, socket: EventSocket[Any]) -> None:
    """Cancelled while sending or waiting, a request leaves nothing behind."""
    async with pair(socket) as (conn, _, __):
        with trio.move_on_after(1):
            await socket.request("a", timeout=None)
        assert not socket.requests
        with trio.CancelScope() as scope:
            scope.cancel()
            await socket.request("a")
        assert not socket.requests
        assert conn.statistics().messages_sent == 1


async def test_requests_end_with_their_link(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """RequestLost with the reason; the next request goes over the next link."""
    backoff = Backoff(initial=1, jitter="none")
    async with (
        pair(socket, reconnect=backoff) as (_, peer, server),
        trio.open_nursery() as nursery,
    ):

        async def break_it() -> None:
            await next_request(peer)
            await peer.abort()

        nursery.start_soon(break_it)
        with pytest.raises(RequestLost, match="before 'a' was answered") as caught:
            await socket.request("a", timeout=None)
        assert isinstance(caught.value.reason, ConnectionLost)

        async def serve() -> None:
            second = await server.accept()
            await answer(second, await next_request(second))

        nursery.start_soon(serve)
        assert (await socket.request("b"))["event"] == "b"  # waits for the link, and goes over it


async def test_a_request_during_an_outage_survives_failed_attempts(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """It is not sent yet, so that a refused handshake does not end it."""
    backoff = Backoff(initial=1, multiplier=1, jitter="none")
    async with (
        pair(socket, reconnect=backoff) as (conn, peer, server),
        trio.open_nursery() as nursery,
    ):
        server.reject(503, times=3)
        await peer.abort()
        while conn.status.value == "open":
            await trio.sleep(0.1)

        async def serve() -> None:
            second = await server.accept()
            for _ in range(2):
                await answer(second, await next_request(second))

        with pytest.raises(RequestTimeout):
            await socket.request("a", timeout=0.5)
        nursery.start_soon(serve)
        assert (await socket.request("b", timeout=60))["event"] == "b"
        # The first one was queued, so it went out all the same; its answer is an event now.
        assert (await conn.receive())["event"] == "a"
        assert conn.statistics().reconnects == 1


async def test_the_end_of_the_connection_ends_requests(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """Waiting requests raise RequestLost, later ones ConnectionClosed, whichever side ends it."""
    for end in ("close", "peer", "abort"):
        async with pair(socket) as (conn, peer, _), trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RequestLost):
                    await socket.request("a", timeout=None)

            nursery.start_soon(ask)
            await next_request(peer)
            if end == "close":
                nursery.start_soon(conn.aclose)
                await peer.expect_close()
            elif end == "peer":
                await peer.close(1000)
            else:
                conn.abort()
            await conn.wait_closed()
            with pytest.raises(ConnectionClosed):
                await socket.request("b")
            assert not socket.requests


async def test_a_second_connection_is_refused(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """UsageError while the first one lasts, which is not affected; afterwards it is allowed."""
    async with pair(socket) as (_, peer, __), trio.open_nursery() as nursery:

        async def serve() -> None:
            await answer(peer, await next_request(peer), status="fine")

        with pytest.raises(UsageError, match=r"belongs to <Connection.*create another one"):
            async with pair(socket) as (second, _, __):
                await second.wait_closed()
        nursery.start_soon(serve)
        assert (await socket.request("a"))["status"] == "fine"
    async with pair(socket) as (_, peer, __), trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert (await socket.request("a"))["status"] == "fine"


async def test_requests_inside_handlers_raise(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """UsageError instead of waiting for themselves."""
    router = Router()

    @router.on("ask")
    async def ask(event: Any, state: Any) -> tuple[Any, Any]:
        with pytest.raises(UsageError):
            await socket.request("a")
        return "refused", state

    socket = EventSocket[Any](router)
    async with pair(socket) as (conn, peer, _):
        await peer.send('{"event":"ask"}')
        assert await conn.receive() == "refused"
        assert not socket.requests


async def test_arguments_are_checked(autojump_clock: MockClock, socket: EventSocket[Any]) -> None:
    """Invalid arguments raise InvalidOption before anything is sent."""
    async with pair(socket) as (conn, _, __):
        for event in ("", 3, None):
            with pytest.raises(InvalidOption, match="event"):
                await socket.request(event)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="timeout"):
            await socket.request("a", timeout=-1)
        assert conn.statistics().messages_sent == 0


class PlainOverrides(EventSocket[int]):
    """Overrides the hooks that EventSocket relies on, without calling super()."""

    def init_stream(self, info: Any) -> int:
        return 1

    def handle_connect(self, info: Any, state: int) -> tuple[Any, int]:
        return None, state + 1

    def handle_disconnect(self, reason: Any, state: int) -> tuple[Any, int]:
        return None, state

    def terminate(self, reason: Any, state: int) -> None: ...


class AsyncOverrides(EventSocket[int]):
    """The same with async hooks."""

    def init_stream(self, info: Any) -> int:
        return 1

    async def handle_connect(self, info: Any, state: int) -> tuple[Any, int]:
        await trio.sleep(1)
        return None, state + 1

    async def handle_disconnect(self, reason: Any, state: int) -> tuple[Any, int]:
        return None, state

    async def terminate(self, reason: Any, state: int) -> None: ...


@pytest.mark.parametrize("kind", [PlainOverrides, AsyncOverrides])
async def test_overridden_hooks_need_no_super(autojump_clock: MockClock, kind: Any) -> None:
    """Requests are answered and lost as usual, and the hooks still run."""
    socket = kind()
    async with pair(socket) as (conn, peer, _), trio.open_nursery() as nursery:

        async def serve() -> None:
            await answer(peer, await next_request(peer), n=1)
            await next_request(peer)
            await peer.close(1000)

        nursery.start_soon(serve)
        assert (await socket.request("a"))["n"] == 1
        with pytest.raises(RequestLost):
            await socket.request("b", timeout=None)
        assert conn.state == 2


async def test_a_request_blocked_in_sending_ends_with_its_link(
    autojump_clock: MockClock, socket: EventSocket[Any]
) -> None:
    """RequestLost immediately, also where the send queue stays full over the outage."""
    streams: list[FaultyStream] = []
    async with MockServer(memory=True) as server:

        async def open_stream() -> FaultyStream:
            streams.append(FaultyStream(await server.open_stream()))
            return streams[-1]

        backoff = Backoff(initial=1, jitter="none")
        async with (
            connect(
                server.url, socket, stream=open_stream, reconnect=backoff, write_limit=50
            ) as conn,
            trio.open_nursery() as nursery,
        ):
            peer = await server.accept()
            streams[0].stuck = True
            await conn.send("x" * 1000)

            async def lose_link() -> None:
                await trio.sleep(1)
                await peer.abort()

            nursery.start_soon(lose_link)
            began = trio.current_time()
            with pytest.raises(RequestLost):
                await socket.request("a", timeout=None)
            assert trio.current_time() - began == pytest.approx(1)
            assert not socket.requests


def test_a_request_without_a_connection_raises(socket: EventSocket[Any]) -> None:
    """UsageError says to connect first."""
    with pytest.raises(UsageError, match="not connected"):
        trio.run(socket.request, "a")


class Numbered(EventSocket[Any]):
    """Uses the references of a list."""

    def __init__(self, *refs: Any) -> None:
        super().__init__()
        self.refs = list(refs)

    def make_ref(self) -> Any:
        return self.refs.pop(0)


@pytest.mark.parametrize("ref", [None, True, 1.5, b"x", ["x"]])
async def test_fault_28_a_reference_that_no_answer_can_have(
    ref: Any, autojump_clock: MockClock
) -> None:
    """It is an error at the call; the request timed out, or ended with a TypeError."""
    socket = Numbered(ref)
    async with pair(socket):
        with pytest.raises(InvalidOption, match=r"make_ref\(\) must return a str or an int"):
            await socket.request("a")
        assert len(socket.requests) == 0


async def test_fault_28_two_requests_never_share_a_reference(autojump_clock: MockClock) -> None:
    """The second one is an error; it got the answer to the first one."""
    socket = Numbered(1, 1, 1)
    async with pair(socket) as (_, peer, _), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask(event: str) -> None:
            answers.append((await socket.request(event))["event"])

        nursery.start_soon(ask, "a")
        first = await next_request(peer)
        with pytest.raises(UsageError, match="the id 1 belongs to a request that is waiting: 'a'"):
            await socket.request("b")
        await answer(peer, first)
        while len(socket.requests):
            await trio.sleep(0)
        # The first task has not woken up yet.
        nursery.start_soon(ask, "c")
        await answer(peer, await next_request(peer))
    assert answers == ["a", "c"]


async def test_fault_28_a_number_is_the_same_with_a_fraction_of_zero(
    autojump_clock: MockClock,
) -> None:
    """JSON has one type for numbers: some peers write 1.0."""
    socket = Numbered(1)
    async with pair(socket) as (_, peer, _), trio.open_nursery() as nursery:

        async def respond() -> None:
            await next_request(peer)
            await peer.send('{"event": "a", "ref": 1.0}')

        nursery.start_soon(respond)
        assert (await socket.request("a"))["ref"] == 1
