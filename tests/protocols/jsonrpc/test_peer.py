"""Both sides of a connection: requests, notifications and batches in each direction."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock import (
    Backoff,
    Connection,
    EncodeError,
    InvalidOption,
    MemoryListener,
    MemoryTransport,
    RequestFailed,
    UsageError,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.protocols.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    TOO_MANY_REQUESTS,
    Notification,
    Peer,
    RPCError,
)
from trioglock.routing import RequestLost, RequestTimeout
from trioglock.testing import MockPeer, MockServer

Methods = Mapping[str, Any]


@asynccontextmanager
async def peers(
    offered: Methods, own: Methods | None = None, **options: Any
) -> AsyncIterator[tuple[Peer, Connection[None, Any], list[Peer]]]:
    """A client with the methods ``own``, and its server with the methods ``offered``."""
    servers: list[Peer] = []

    def serve_one() -> Peer:
        servers.append(Peer(offered, **options))
        return servers[-1]

    listener, peer = MemoryListener(), Peer(own)
    async with (
        serve(serve_one, listeners=[listener]),
        connect("ws://h/", peer, stream=listener.open_stream) as conn,
    ):
        yield peer, conn, servers


async def raw(conn: Connection[None, Any], *messages: Any) -> None:
    for message in messages:
        await conn.send_frame(message if isinstance(message, str) else json.dumps(message))


async def test_request_and_notification(autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    async with peers({"pow": pow, "log": seen.append}) as (peer, _, _):
        assert await peer.request("pow", [2, 10]) == 1024
        assert await peer.request("pow", {"base": 2, "exp": 3}) == 8
        await peer.notify("log", ["started"])
        assert await peer.request("log", [None]) is None
    assert seen == ["started", None]


async def test_an_unoffered_notification_is_delivered(autojump_clock: MockClock) -> None:
    async with peers({}) as (_, conn, servers):
        await servers[0].notify("price", {"of": "x"})
        batch = servers[0].batch()
        batch.notify("price", [1])
        batch.notify("closed")
        await batch.send()
        expected = [
            Notification("price", {"of": "x"}),
            Notification("price", [1]),
            Notification("closed"),
        ]
        assert [await conn.receive() for _ in range(3)] == expected


async def test_both_directions_at_once(autojump_clock: MockClock) -> None:
    """A method may itself send a request to the side that called it."""
    servers: list[Peer]

    async def greet() -> str:
        name = await servers[0].request("name")
        return f"hello {name}"

    async with peers({"greet": greet}, {"name": lambda: "ann"}) as (peer, _, servers):
        assert await peer.request("greet") == "hello ann"


async def fail_with_data() -> None:
    raise RPCError(7, "no money", {"missing": 3})


def fail_unexpectedly() -> None:
    raise ValueError("the password is s3cret")


@pytest.mark.parametrize(
    ("method", "params", "code", "data"),
    [
        ("absent", None, METHOD_NOT_FOUND, None),
        ("add", [1], INVALID_PARAMS, "missing a required argument: 'b'"),
        ("add", {"a": 1, "c": 1}, INVALID_PARAMS, "missing a required argument: 'b'"),
        ("add", [1, 2, 3], INVALID_PARAMS, "too many positional arguments"),
        ("fail", None, 7, {"missing": 3}),
        ("bug", None, INTERNAL_ERROR, None),
        ("unencodable", None, INTERNAL_ERROR, None),
    ],
)
async def test_errors(
    autojump_clock: MockClock, method: str, params: Any, code: int, data: Any
) -> None:
    """An unexpected exception is logged; the other side learns nothing about it."""
    methods: Methods = {
        "add": lambda a, b: a + b,
        "fail": fail_with_data,
        "bug": fail_unexpectedly,
        "unencodable": lambda: math.nan,
    }
    async with peers(methods) as (peer, _, _):
        with pytest.raises(RPCError) as caught:
            await peer.request(method, params)
        assert (caught.value.code, caught.value.data) == (code, data)
        assert "s3cret" not in str(caught.value)
        assert isinstance(caught.value, RequestFailed)
        assert caught.value.request == method
        assert caught.value.reply["error"] == caught.value.error
        assert await peer.request("add", [1, 2]) == 3


async def test_a_callback_that_fails(autojump_clock: MockClock) -> None:
    """The error of a method's own request is not the error of its caller."""
    servers: list[Peer]

    async def back() -> Any:
        return await servers[0].request("absent")

    async with peers({"back": back}) as (peer, _, servers):
        with pytest.raises(RPCError, match="Internal error"):
            await peer.request("back")


async def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def test_unencodable_results_of_a_batch(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the methods. The other results of the batch arrive."""
    methods: Methods = {"bad": lambda: {1, 2}, "nested": nested, "good": lambda: 1}
    async with peers(methods) as (peer, _, _):
        batch = peer.batch()
        bad, good = batch.request("bad"), batch.request("good")
        deep = batch.request("nested", [199])  # 200 levels in a response, 201 in a batch
        await batch.send()
        assert good.result() == 1
        for refused in (bad, deep):
            with pytest.raises(RPCError, match="Internal error"):
                refused.result()
    assert "the result of 'bad' cannot be encoded: " in caplog.text
    assert "the result of 'nested' cannot be encoded: " in caplog.text


async def test_batch(autojump_clock: MockClock) -> None:
    async def slow(value: int) -> int:
        await trio.sleep(value)
        return value

    async with peers({"slow": slow}) as (peer, _, _):
        batch = peer.batch()
        results = [batch.request("slow", [seconds]) for seconds in (3, 1, 2)]
        refused = batch.request("absent")
        with pytest.raises(UsageError, match="has no response yet"):
            results[0].result()
        started = trio.current_time()
        await batch.send()
        assert trio.current_time() - started == pytest.approx(3)
        assert [one.result() for one in results] == [3, 1, 2]
        with pytest.raises(RPCError, match="Method not found"):
            refused.result()
        with pytest.raises(UsageError, match="has been sent"):
            await batch.send()
        with pytest.raises(UsageError, match="empty"):
            await peer.batch().send()


@pytest.mark.parametrize("order", [("slow", "fast"), ("fast", "slow")])
@pytest.mark.parametrize("end", ["timeout", "loss", "cancellation"])
async def test_results_of_a_batch_that_was_not_answered_completely(
    order: tuple[str, str], end: str, autojump_clock: MockClock
) -> None:
    """Responses that have arrived are available; the other results raise as ``send`` did."""

    async def answer_fast(other: MockPeer) -> None:
        for call in json.loads(await other.receive()):
            if call["method"] == "fast":
                await other.send(json.dumps([{"jsonrpc": "2.0", "id": call["id"], "result": 7}]))
        if end == "loss":
            await trio.sleep(1)
            await other.abort()

    peer = Peer()
    async with (
        MockServer(memory=True) as server,
        connect(server.url, peer, stream=server.open_stream) as conn,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer_fast, await server.accept())
        batch = peer.batch()
        results = {method: batch.request(method) for method in order}
        if end == "cancellation":
            with trio.move_on_after(5):
                await batch.send()
            with pytest.raises(UsageError, match="'slow' has no response yet"):
                results["slow"].result()
        else:
            kind = RequestTimeout if end == "timeout" else RequestLost
            with pytest.raises(kind, match="slow"):
                await batch.send(timeout=5)
            assert results["fast"].result() == 7
            with pytest.raises(kind, match="slow"):
                results["slow"].result()
        conn.abort()


async def test_an_error_response_that_overtakes_the_send(autojump_clock: MockClock) -> None:
    """It belongs to its request, not to the batch."""
    async with peers({"one": lambda: 1}) as (peer, conn, _):
        batch = peer.batch()
        refused, one = batch.request("absent"), batch.request("one")
        send = conn.send

        async def send_slowly(message: Any) -> None:
            await send(message)
            await trio.sleep(1)

        conn.send = send_slowly  # type: ignore[method-assign]
        await batch.send()
        assert one.result() == 1
        with pytest.raises(RPCError, match="Method not found"):
            refused.result()


async def test_a_batch_of_notifications_that_cannot_be_sent(autojump_clock: MockClock) -> None:
    peer, transport = Peer(), MemoryTransport(capacity=0)
    async with connect("ws://h/", peer, transport=transport, write_limit=10) as conn:
        await transport.accept()
        with trio.move_on_after(1):
            while True:
                await peer.notify("filler")
        batch = peer.batch()
        batch.notify("late")
        with pytest.raises(RequestTimeout, match="late"):
            await batch.send(timeout=1)
        conn.abort()


async def test_a_batch_that_is_too_large(autojump_clock: MockClock) -> None:
    """It is refused as a whole. Responses to a batch of this side are not limited."""
    called: list[int] = []
    async with peers({"call": called.append}, max_batch=3) as (peer, conn, servers):
        call = {"jsonrpc": "2.0", "method": "call", "params": [1]}
        await raw(conn, [call] * 3, [call] * 4, [1] * 4)
        await peer.request("call", [2])
        assert called == [1, 1, 1, 2]
        assert servers[0].invalid.count == 2
        batch = servers[0].batch()
        results = [batch.request("absent") for _ in range(5)]
        await batch.send()
        for result in results:
            with pytest.raises(RPCError, match="Method not found"):
                result.result()


async def test_a_codec_that_raises_other_errors(autojump_clock: MockClock) -> None:
    class Strict(JSON):
        def decode(self, frame: Any, /) -> Any:
            return (
                {"known": super().decode("{}")}[frame] if frame == "bad" else super().decode(frame)
            )

    async with peers({"f": lambda: 1}, codec=Strict()) as (peer, conn, servers):
        await raw(conn, "bad")
        assert await peer.request("f") == 1
        assert servers[0].invalid.count == 1


class Doubler:
    async def __call__(self, value: int) -> int:
        return 2 * value


async def test_kinds_of_functions(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    doubler = Doubler()
    methods: Methods = {
        "object": doubler,
        "bound": doubler.__call__,
        "partial": partial(doubler, 4),
        "nested": partial(partial(doubler), 4),
        "hidden": lambda: doubler(4),
        "any": lambda **named: sorted(named),
    }
    async with peers(methods) as (peer, _, _):
        assert await peer.request("object", [4]) == 8
        assert await peer.request("bound", {"value": 4}) == 8
        assert await peer.request("partial") == 8
        assert await peer.request("nested") == 8
        names = ["args", "func", "function", "self"]
        assert await peer.request("any", dict.fromkeys(names)) == names
        with pytest.raises(RPCError, match="Internal error"):
            await peer.request("hidden")
    assert "declare it with async def" in caplog.text


async def test_methods_run_concurrently_within_a_bound(autojump_clock: MockClock) -> None:
    """Further requests wait, and are refused when too many wait; nothing blocks the reader."""
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    outcomes: list[int] = []

    async with peers({"work": work, "now": lambda: 1}, max_concurrent=2, max_waiting=3) as (
        peer,
        _,
        _,
    ):

        async def ask() -> None:
            try:
                await peer.request("work")
                outcomes.append(0)
            except RPCError as error:
                outcomes.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(ask)
            await trio.sleep(0.5)
            assert outcomes == [TOO_MANY_REQUESTS] * 2
            assert await peer.request("now") == 1
    assert outcomes == [TOO_MANY_REQUESTS] * 2 + [0] * 5
    assert most == 2


async def test_a_lost_link_cancels_methods_and_fails_requests(autojump_clock: MockClock) -> None:
    """A response never goes to another link, on which the identifiers may be others."""
    cancelled = 0

    async def work() -> None:
        nonlocal cancelled
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            cancelled += 1
            raise

    peer = Peer({"work": work})
    async with (
        MockServer(memory=True) as server,
        connect(server.url, peer, stream=server.open_stream, reconnect=Backoff(initial=0.1)),
    ):
        other = await server.accept()
        for call_id in range(100):
            await other.send(f'{{"jsonrpc": "2.0", "method": "work", "id": {call_id}}}')
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.abort)
            with pytest.raises(RequestLost):
                await peer.request("absent")
        other = await server.accept()
        assert cancelled == 64
        await trio.sleep(10)
        await other.send('{"jsonrpc": "2.0", "method": "absent", "id": "last"}')
        assert json.loads(await other.receive())["id"] == "last"


async def test_responses_that_fit_nothing(autojump_clock: MockClock) -> None:
    """They are not answered; a malformed error still ends its request."""
    peer = Peer()
    async with (
        MockServer(memory=True) as server,
        connect(server.url, peer, stream=server.open_stream),
    ):
        other = await server.accept()
        for ignored in (
            '{"jsonrpc": "2.0", "result": 1, "id": 99}',
            '{"jsonrpc": "2.0", "result": 1, "id": [1]}',
            '{"jsonrpc": "2.0", "error": {"code": 1, "message": "m"}, "id": null}',
        ):
            await other.send(ignored)

        async def answer(reply: dict[str, Any]) -> None:
            request = json.loads(await other.receive())
            # The text is no identifier of the number, and true is not 1.
            for wrong in (str(request["id"]), True):
                await other.send(json.dumps({"jsonrpc": "2.0", "result": 0, "id": wrong}))
            await other.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, {"result": 5, "error": None})
            assert await peer.request("a") == 5
            nursery.start_soon(answer, {"error": "text"})
            with pytest.raises(RPCError, match="malformed error object") as caught:
                await peer.request("b")
            assert caught.value.data == "text"
        assert peer.invalid.count == 7
        with pytest.raises(RequestTimeout):
            await peer.request("c", timeout=1)


async def test_late_responses(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A response to an earlier request of this peer is dropped; others count as malformed."""
    peer = Peer()
    async with (
        MockServer(memory=True) as server,
        connect(server.url, peer, stream=server.open_stream) as conn,
    ):
        other = await server.accept()

        async def respond(*ids: Any) -> None:
            for number in ids:
                await other.send(json.dumps({"jsonrpc": "2.0", "result": 0, "id": number}))
            await trio.sleep(1)

        for _ in range(2):
            with pytest.raises(RequestTimeout):
                await peer.request("slow", timeout=1)
        batch = peer.batch()
        batch.request("slow")
        with pytest.raises(RequestTimeout):
            await batch.send(timeout=1)
        await respond(1, 2, 2, 3)
        assert peer.invalid.count == 0
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
        await respond(0, -1, 4, "1", True, 1.5)
        assert peer.invalid.count == 6
        assert repr(peer.invalid) == "<InvalidMessages: 6>"
        conn.abort()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda peer: peer.request("m", "text"), "params must be a list of values or a dict"),
        (lambda peer: peer.notify("m", 5), "params must be a list of values or a dict"),
        (lambda peer: peer.request(5), "method must be a str"),
        (lambda peer: peer.request("m", timeout=0), "timeout must be more than 0"),
    ],
)
async def test_bad_arguments(
    autojump_clock: MockClock, call: Callable[[Peer], Any], text: str
) -> None:
    async with peers({}) as (peer, _, _):
        with pytest.raises(InvalidOption, match=text):
            await call(peer)
        with pytest.raises(EncodeError):
            await peer.request("m", [object()])


async def test_the_request_of_the_connection(autojump_clock: MockClock) -> None:
    async with peers({}) as (_, conn, _):
        with pytest.raises(UsageError, match=r"use the request\(\) of the Peer"):
            await conn.request({"method": "m"})


@pytest.mark.parametrize(
    ("create", "text"),
    [
        (lambda: Peer({"a": 5}), "'a' maps to 5"),
        (lambda: Peer([print]), "methods must be a dict of functions"),  # type: ignore[arg-type]
        (lambda: Peer(max_concurrent=0), "max_concurrent must be at least 1"),
        (lambda: Peer(max_waiting=-1), "max_waiting must be at least 0"),
        (lambda: Peer(max_batch=0), "max_batch must be at least 1"),
        (lambda: RPCError("1", "text"), "code must be an integer"),  # type: ignore[arg-type]
        (lambda: RPCError(1, None), "message must be a str"),  # type: ignore[arg-type]
    ],
)
def test_bad_options(create: Callable[[], object], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        create()


async def test_a_peer_without_a_connection() -> None:
    for call in (partial(Peer().request, "m"), partial(Peer().notify, "m")):
        with pytest.raises(UsageError, match=r"not connected"):
            await call()
