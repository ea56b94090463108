"""``conn.request()``: each request ends once, by its reply, a timeout or the end of its link."""

from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.strategies import CHARACTERS
from trioglock import (
    Aborted,
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    EncodeError,
    InvalidOption,
    LocalClose,
    MemoryTransport,
    Rate,
    RemoteClose,
    RequestFailed,
    RequestFormat,
    RequestLost,
    RequestTimeout,
    Socket,
    Subscriptions,
    UsageError,
    connect,
    serve,
)
from trioglock.codecs import JSON, Msgpack
from trioglock.connection.requests import key_of
from trioglock.testing import MemoryLink

URL = "ws://requests/"
NO_DELAY = Backoff(initial=1, multiplier=1, jitter="none")


def pair(transport: MemoryTransport, socket: Socket[Any, Any] | None = None, **options: Any) -> Any:
    options = {"codec": JSON(), "ping_interval": None, **options}
    return connect(URL, socket, transport=transport, **options)


class Peer:
    """The far end of a connection in memory."""

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.messages: list[Any] = []

    @classmethod
    async def accept(cls, transport: MemoryTransport) -> Peer:
        return cls(await transport.accept())

    async def receive(self) -> Any:
        while not self.messages:
            for event in await self.link.receive():
                if isinstance(event, list):
                    self.messages += map(json.loads, event)
        return self.messages.pop(0)

    async def send(self, *messages: Any) -> None:
        await self.link.write([json.dumps(message) for message in messages])


async def test_replies_are_matched_in_any_order(autojump_clock: MockClock) -> None:
    """The whole reply is returned; other messages are received."""
    transport = MemoryTransport()
    async with pair(transport) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        replies: dict[str, Any] = {}

        async def ask(method: str) -> None:
            replies[method] = await conn.request({"method": method})

        for method in "abc":
            nursery.start_soon(ask, method)
        requests = [await peer.receive() for _ in range(3)]
        assert [request["id"] for request in requests] == [1, 2, 3]
        await peer.send({"event": "news"}, *({**request, "ok": True} for request in requests[::-1]))
        assert await conn.receive() == {"event": "news"}
    assert replies == {r["method"]: {**r, "ok": True} for r in requests}


async def test_thousands_in_flight() -> None:
    """Over a socket: each gets its own reply, while others are cancelled."""

    async def handler(conn: Connection[None, Any]) -> None:
        async for message in conn:
            await conn.send({"id": message["id"], "result": message["n"] * 2})

    results: dict[int, int] = {}
    async with serve(handler, "127.0.0.1", 0, codec=JSON()) as server:  # noqa: SIM117
        async with connect(f"ws://127.0.0.1:{server.port}/", codec=JSON()) as conn:

            async def ask(n: int) -> None:
                with trio.CancelScope() as scope:
                    if n % 7 == 0:
                        scope.deadline = trio.current_time() + 0.001 * (n % 50)
                    results[n] = (await conn.request({"n": n}, timeout=50))["result"]

            async def discard() -> None:
                """Receive the replies to cancelled requests."""
                async for message in conn:
                    assert "result" in message

            async with trio.open_nursery() as outer:
                outer.start_soon(discard)
                async with trio.open_nursery() as nursery:
                    for n in range(3000):
                        nursery.start_soon(ask, n)
                outer.cancel_scope.cancel()
            assert not conn._session.requests
    assert all(result == 2 * n for n, result in results.items())
    assert len(results) >= 3000 * 6 // 7


# Errors in replies.


async def test_an_error_reply(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with pair(transport) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        reply = {"id": 1, "error": {"code": -32601, "message": "no such method"}}
        nursery.start_soon(peer.send, reply)
        with pytest.raises(RequestFailed, match="no such method") as caught:
            await conn.request({"method": "x"})
        assert caught.value.request == {"method": "x"}
        assert (caught.value.reply, caught.value.error) == (reply, reply["error"])
        # Not an error: JSON-RPC 1.0 has "error": null in each reply.
        nursery.start_soon(peer.send, {"id": 2, "error": None, "result": 5})
        assert (await conn.request({"method": "x"}))["result"] == 5


async def test_a_function_finds_errors(autojump_clock: MockClock) -> None:
    """An exception that it raises is raised by the request."""

    def error(reply: Any) -> Any:
        return None if reply["success"] else reply["text"]

    transport = MemoryTransport()
    form = RequestFormat(error=error)
    async with pair(transport, requests=form) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        replies = [{"id": 1, "success": True}, {"id": 2, "success": False, "text": ""}, {"id": 3}]
        nursery.start_soon(peer.send, *replies[:1])
        assert await conn.request({}) == replies[0]
        nursery.start_soon(peer.send, *replies[1:2])
        with pytest.raises(RequestFailed) as caught:
            await conn.request({})
        assert caught.value.error == ""
        nursery.start_soon(peer.send, *replies[2:])
        with pytest.raises(KeyError, match="success"):
            await conn.request({})


# Ids.


class Color(Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    "ids",
    [[7, "7", "a"], [UUID], [Color.RED], [(1, "x")], [1.5], [Text("t")], [0, False, ""], [-1]],
)
async def test_ids_of_any_type(ids: list[Any], autojump_clock: MockClock) -> None:
    """Whatever JSON makes of an id, the reply with it ends the request."""
    transport = MemoryTransport()
    async with pair(transport, requests=RequestFormat(ids=ids)) as conn:
        peer = await Peer.accept(transport)
        async with trio.open_nursery() as nursery:
            for n in range(len(ids)):
                nursery.start_soon(ask_for, conn, n)
            requests = [await peer.receive() for _ in ids]
            # Equal in Python, or similar.
            others: list[Any] = ["1", True, None, [[]], {}, 7.25]
            await peer.send(*({"id": ref} for ref in others))
            await peer.send(*requests[::-1])
        assert [await conn.receive() for _ in range(6)]


async def ask_for(conn: Connection[None, Any], n: int) -> None:
    assert (await conn.request({"n": n}))["n"] == n


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(CHARACTERS) | st.uuids(), st.tuples
    )
)
def test_the_key_of_an_id_survives_json(ref: Any) -> None:
    """The id in the reply has the same key, and no other JSON value has."""
    key = key_of(ref)
    there = json.loads(JSON().encode(ref))
    assert key_of(there) == key
    for other in (True, False, 0, 1, "0", "1", "true", None, [], [1], [True]):
        same = type(other) is type(there) and json.dumps(other) == json.dumps(there)
        assert key is None or same == (key_of(other) == key)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ([1], "no more ids"),
        ([1, None], "must be hashable and must not be None: None"),
        ([1, {}], "must be hashable and must not be None"),
        ([1, 1], "the id 1 belongs to a request that is waiting: {'first': 1}"),
        ([1, 1.0], "belongs to a request that is waiting"),
    ],
)
async def test_ids_that_cannot_be_used(
    ids: list[Any], error: str, autojump_clock: MockClock
) -> None:
    """UsageError; nothing is sent, and the other request continues."""
    transport = MemoryTransport()
    async with pair(transport, requests=RequestFormat(ids=ids)) as conn:
        peer = await Peer.accept(transport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.request, {"first": 1})
            request = await peer.receive()
            with pytest.raises(UsageError, match=error):
                await conn.request({"second": 2})
            assert len(conn._session.requests) == 1
            await peer.send(request)
        assert conn.statistics().messages_sent == 1


async def test_where_the_ids_are(autojump_clock: MockClock) -> None:
    """Request and reply may have them in different places."""
    form = RequestFormat(
        ids=(f"r{n}" for n in itertools.count()),
        id=lambda message, ref: [ref, *message],
        ref=lambda message: message[1] if message[0] == "reply" else None,
        error=lambda message: message[2] if message[2:] else None,
    )
    transport = MemoryTransport()
    async with pair(transport, requests=form) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        nursery.start_soon(peer.send, ["event", "r0"], [], ["reply"], 5, ["reply", "r0"])
        assert await conn.request(["go"]) == ["reply", "r0"]
        assert await peer.receive() == ["r0", "go"]
        assert [await conn.receive() for _ in range(4)] == [["event", "r0"], [], ["reply"], 5]


class Ask(msgspec.Struct):
    text: str
    id: int = 0


class Answer(msgspec.Struct):
    text: str
    id: int | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class AskAgain:
    text: str
    id: int = 0


async def test_typed_messages(autojump_clock: MockClock) -> None:
    """Structs and dataclasses: the id is an attribute."""
    transport = MemoryTransport()
    async with pair(transport, codec=JSON(Answer)) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        for ref, kind in enumerate((Ask, AskAgain), 1):
            nursery.start_soon(peer.send, {"text": "news"}, {"text": "yes", "id": ref})
            assert await conn.request(kind("ok?")) == Answer("yes", ref)
            assert await peer.receive() == {"text": "ok?", "id": ref}
            assert await conn.receive() == Answer("news")
        nursery.start_soon(peer.send, {"text": "", "id": 3, "error": "no"})
        with pytest.raises(RequestFailed, match="no"):
            await conn.request(Ask("ok?"))


@pytest.mark.parametrize("message", [[1], "x", 3, None, Ask, {"id": 5}])
async def test_messages_without_a_place_for_the_id(message: Any, autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with pair(transport) as conn:
        with pytest.raises(UsageError, match="'id'"):
            await conn.request(message)
        with pytest.raises(EncodeError):
            await conn.request({"x": object()})
        assert not conn._session.requests
        conn.abort()


# The end of a wait.


async def test_a_timeout(autojump_clock: MockClock) -> None:
    """A late reply, a second one and an unknown one are received like any message."""
    transport = MemoryTransport()
    async with pair(transport) as conn:
        peer = await Peer.accept(transport)
        with pytest.raises(
            RequestTimeout, match=r"no reply to {'a': 1} within 3 sec\w+$"
        ) as caught:
            await conn.request({"a": 1}, timeout=3)
        assert isinstance(caught.value, TimeoutError)
        assert trio.current_time() == 3
        late = await peer.receive()
        await peer.send(late, late, {"id": 99})
        assert [await conn.receive() for _ in range(3)] == [late, late, {"id": 99}]


async def test_a_timeout_while_nothing_is_read(autojump_clock: MockClock) -> None:
    """The error says that received messages are waiting."""
    transport = MemoryTransport()
    async with pair(transport, max_queue=3) as conn:
        peer = await Peer.accept(transport)
        await peer.send(1, 2, 3)
        await trio.sleep(1)
        await peer.send({"id": 1})
        with pytest.raises(RequestTimeout, match=r"the receive queue is full \(3 waiting\)"):
            await conn.request({}, timeout=5)


async def test_a_timeout_while_a_hook_runs(autojump_clock: MockClock) -> None:
    class Slow(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            await trio.sleep(100)
            return None, None

    transport = MemoryTransport()
    async with pair(transport, Slow(), max_queue=1, close_timeout=1) as conn:
        peer = await Peer.accept(transport)
        await peer.send(1)
        await trio.sleep(1)
        with pytest.raises(RequestTimeout):
            await conn.request({}, timeout=5)
        conn.abort()


async def test_replies_overtake_slow_hooks(autojump_clock: MockClock) -> None:
    """A task that a hook waits for may make requests."""

    class Slow(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            await trio.sleep(5)
            return frame, None

    transport = MemoryTransport()
    async with pair(transport, Slow()) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)
        nursery.start_soon(conn.request, {})
        request = await peer.receive()
        await peer.send("first", request)
        await trio.sleep(1)
        assert not conn._session.requests
        assert await conn.receive() == "first"


async def test_cancellation_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with pair(transport) as conn:
        peer = await Peer.accept(transport)
        with trio.move_on_after(1):
            await conn.request({}, timeout=None)
        with trio.CancelScope() as scope:
            scope.cancel()
            await conn.request({})
        assert not conn._session.requests
        assert conn.statistics().messages_sent == 1
        # The reply and the cancellation in the same round of the scheduler.
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(conn.request, {})
                await peer.receive()
                await peer.send({"id": 3})
                scope.cancel()
        assert not conn._session.requests


@pytest.mark.parametrize("end", ["lost", "aclose", "peer", "abort", "hook"])
async def test_the_end_of_the_link(end: str, autojump_clock: MockClock) -> None:
    """The reason is that of the link."""

    class Closing(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Close(4000), None

    transport = MemoryTransport()
    async with pair(transport, Closing(), close_timeout=2) as conn:
        peer = await Peer.accept(transport)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(RequestLost, match=r"before {'a': 1} was answered") as caught:
                    await conn.request({"a": 1}, timeout=None)
                assert (
                    type(caught.value.reason)
                    is {
                        "lost": ConnectionLost,
                        "aclose": LocalClose,
                        "peer": RemoteClose,
                        "abort": Aborted,
                        "hook": LocalClose,
                    }[end]
                )

            await peer.receive()
            if end == "lost":
                await peer.link.aclose()
            elif end == "aclose":
                await conn.aclose()
            elif end == "peer":
                await peer.link.write([Close(4001)])
            elif end == "abort":
                conn.abort()
            else:
                await peer.send("close")
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed):
            await conn.request({})
        assert not conn._session.requests


async def test_a_reply_during_the_closing_handshake(autojump_clock: MockClock) -> None:
    """It still arrives."""
    transport = MemoryTransport()
    async with pair(transport) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)

        @nursery.start_soon
        async def ask() -> None:
            assert await conn.request({}) == {"id": 1}

        await peer.receive()
        nursery.start_soon(conn.aclose)
        await trio.sleep(1)
        await peer.send({"id": 1})
        await trio.sleep(1)
        await peer.link.write([Close(1000)])
        await peer.link.aclose()


async def test_reconnecting(autojump_clock: MockClock) -> None:
    """The reply on the next link does not answer a request of the previous one."""
    transport = MemoryTransport()
    async with pair(transport, reconnect=NO_DELAY) as conn:
        peer = await Peer.accept(transport)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(RequestLost):
                    await conn.request({"n": 1})

            await peer.receive()
            await peer.link.aclose()
        # During the outage a request waits for the next link. If it times out, it is not sent.
        transport.refuse_next(OSError("down"))
        with pytest.raises(
            RequestTimeout, match=r"0\.5 seconds; the request was not sent, because the"
        ):
            await conn.request({"n": 2}, timeout=0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_for, conn, 3)
            peer = await Peer.accept(transport)
            await peer.send({"id": 1, "n": 1})
            assert await conn.receive() == {"id": 1, "n": 1}
            assert await peer.receive() == {"id": 2, "n": 3}
            await peer.send({"id": 2, "n": 3})
        conn.abort()


async def test_a_lost_request_is_not_sent_over_the_next_link(autojump_clock: MockClock) -> None:
    """A request that was still in the send queue is removed from it; other messages stay."""
    transport = MemoryTransport(capacity=1)
    async with pair(transport, reconnect=NO_DELAY) as conn:
        peer = await Peer.accept(transport)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(RequestLost):
                    await conn.request({"n": 1})

            for number in range(3):
                await conn.send({"message": number})
            await trio.testing.wait_all_tasks_blocked()
            for number in range(2):

                @nursery.start_soon
                async def ask_more(number: int = number) -> None:
                    with pytest.raises(RequestLost):
                        await conn.request({"more": number})

            await trio.testing.wait_all_tasks_blocked()
            await conn.send({"message": 3})
            await peer.link.aclose()
        peer = await Peer.accept(transport)
        received = []
        with trio.move_on_after(1):
            while True:
                received.append(await peer.receive())
        # Those that were being written when the link ended are in doubt.
        assert received[-1] == {"message": 3}
        assert all("message" in message for message in received)
        conn.abort()


async def test_ids_are_sent_in_their_order(autojump_clock: MockClock) -> None:
    """Also with those of other messages, while requests wait for ``send_rate``."""
    ids = itertools.count(1)

    class Feed(Subscriptions[str, Any]):
        def subscribe(self, keys: Sequence[str]) -> list[Any]:
            return [{"id": next(ids), "keys": list(keys)}]

        def unsubscribe(self, keys: Sequence[str]) -> list[Any]:
            return []

        def key_of(self, message: Any) -> None:
            return None

    transport = MemoryTransport()
    options: dict[str, Any] = {
        "send_rate": Rate(2, margin=0),
        "subscriptions": Feed(),
        "requests": RequestFormat(ids=ids),
    }
    async with pair(transport, **options) as conn, trio.open_nursery() as nursery:
        peer = await Peer.accept(transport)

        async def subscribe(key: str) -> None:
            async with conn.subscribe(key):
                await trio.sleep_forever()

        async def ask() -> None:
            await conn.request({})

        for number in range(10):
            nursery.start_soon(ask)
            nursery.start_soon(subscribe, str(number))
            await trio.sleep(0.1)
        received = [await peer.receive() for _ in range(12)]
        assert [message["id"] for message in received] == list(range(1, 13))
        with pytest.raises(
            RequestTimeout, match="the request was not sent, because send_rate was used up"
        ):
            await conn.request({}, timeout=0.1)
        conn.abort()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "end", [lambda conn: conn.abort(), lambda conn: conn._session.close(Close())]
)
async def test_the_end_during_an_outage(
    end: Callable[[Connection[None, Any]], None], autojump_clock: MockClock
) -> None:
    transport = MemoryTransport()
    async with pair(transport, reconnect=Backoff(initial=1000, jitter="none")) as conn:
        await (await Peer.accept(transport)).link.aclose()
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ConnectionClosed):
                    await conn.request({}, timeout=None)

            await trio.sleep(1)
            end(conn)


# Options and contexts.


async def test_servers_make_requests_too() -> None:
    """Each connection has its own ids."""
    replies: list[Any] = []

    async def handler(conn: Connection[None, Any]) -> None:
        replies.append(await conn.request({"who": "are you?"}))

    async with serve(
        handler, "127.0.0.1", 0, codec=Msgpack(), requests=RequestFormat(ids=["a"])
    ) as server:
        for name in ("x", "y"):
            async with connect(f"ws://127.0.0.1:{server.port}/", codec=Msgpack()) as conn:
                await conn.send({**await conn.receive(), "name": name})
                await conn.wait_closed()
    assert replies == [{"who": "are you?", "id": "a", "name": name} for name in ("x", "y")]


async def test_usage(autojump_clock: MockClock) -> None:
    errors: list[Exception] = []

    class Asks(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            try:
                await conn.request({})
            except UsageError as error:
                errors.append(error)
            return frame, None

    transport = MemoryTransport()
    async with pair(transport, Asks()) as conn:
        peer = await Peer.accept(transport)
        await peer.send(1)
        assert await conn.receive() == 1
        assert "request() cannot be used inside" in str(errors[0])
        with pytest.raises(InvalidOption, match="timeout"):
            await conn.request({}, timeout=-1)
        conn.abort()
    async with connect(URL, transport=transport) as conn:
        with pytest.raises(
            UsageError, match=r"needs a codec, as in connect\(url, codec=JSON\(\)\)"
        ):
            await conn.request({})
        conn.abort()
    with pytest.raises(InvalidOption, match="requests needs a codec"):
        connect(URL, requests=RequestFormat())
    with pytest.raises(InvalidOption, match="requests must be a RequestFormat"):
        connect(URL, codec=JSON(), requests={"id": "id"})  # type: ignore[arg-type]
    for wrong in ({"ids": 5}, {"ids": "abc"}, {"id": 5}, {"ref": None}, {"error": 1}):
        with pytest.raises(InvalidOption):
            RequestFormat(**wrong)
