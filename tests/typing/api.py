"""Uses of the public interface, which ``mypy --strict`` checks. The code is never run.

``assert_type`` checks an inferred type. An incorrect use has a ``type: ignore`` comment with the
expected error code: ``warn_unused_ignores`` reports it if there is no such error.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, assert_type

import trio

from trioglock import (
    BadHookResult,
    CallTimeout,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionInfo,
    ConnectOptions,
    Deliver,
    Disconnect,
    Handshake,
    HandshakeRefused,
    HeartbeatTimeout,
    LocalClose,
    MemoryTransport,
    NativeTransport,
    Ping,
    Reconnect,
    RemoteClose,
    Reply,
    Response,
    Socket,
    Stalled,
    Statistics,
    Status,
    Stop,
    Transport,
    TrioWebsocketTransport,
    connect,
    run,
    serve,
)
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    ChannelResult,
    Channels,
    ConnectRequest,
    History,
    Left,
    Push,
    Rejoined,
)
from trioglock.channels import Stop as StopChannel
from trioglock.codecs import JSON, Msgpack
from trioglock.pubsub import Gap, Hub
from trioglock.routing import EventSocket, Router


@dataclass(frozen=True)
class Count:
    """The state of the hooks."""

    sent: int = 0
    received: int = 0


class Counter(Socket[Count]):
    """All hooks as plain functions."""

    def init_stream(self, info: ConnectionInfo) -> Count:
        assert_type(info.subprotocol, str | None)
        assert_type(info.attempt, int)
        assert_type(info.response_headers["x"], str)
        info.connection.cast("begin")
        assert_type(info.connection.cast_after(1, "later"), trio.CancelScope)
        info.connection.start_soon(trio.sleep, 1)
        return Count()

    def handle_connect(self, info: ConnectionInfo, state: Count) -> tuple[Reply, Count]:
        return Reply("login", b"\0", Ping(b"x"), Close(), deliver=None), state

    def handle_send(self, message: object, state: Count) -> tuple[str, Count]:
        return json.dumps(message), replace(state, sent=state.sent + 1)

    def handle_receive(self, frame: str | bytes, state: Count) -> tuple[Any, Count]:
        return json.loads(frame), replace(state, received=state.received + 1)

    def handle_ping(self, payload: bytes, state: Count) -> tuple[None, Count]:
        return None, state

    def handle_pong(self, payload: bytes, state: Count) -> tuple[Deliver, Count]:
        return Deliver(payload), state

    def handle_cast(self, message: str, state: Count) -> tuple[Close | None, Count]:
        return (Close(1000, message) if message else None), state

    def handle_call(self, request: str, state: Count) -> tuple[int, Count]:
        return state.sent, state

    def handle_disconnect(
        self, reason: Disconnect, state: Count
    ) -> tuple[Reconnect | Stop | None, Count]:
        match reason:
            case RemoteClose(code=code):
                assert_type(code, int)
                return Reconnect(delay=1.5), state
            case LocalClose(clean=clean):
                assert_type(clean, bool)
                return Stop(), state
            case HeartbeatTimeout(silence=silence):
                assert_type(silence, float)
            case Stalled(seconds=seconds):
                assert_type(seconds, float)
        return None, state

    def terminate(self, reason: Disconnect, state: Count) -> None:
        print(reason.attempt, state.sent)


class AsyncCounter(Socket[Count]):
    """All hooks as async functions."""

    async def init_stream(self, info: ConnectionInfo) -> Count:
        return Count()

    async def handle_connect(self, info: ConnectionInfo, state: Count) -> tuple[None, Count]:
        return None, state

    async def handle_send(self, message: object, state: Count) -> tuple[list[str], Count]:
        return [json.dumps(message)], state

    async def handle_receive(self, frame: str | bytes, state: Count) -> tuple[Any, Count]:
        return frame, state

    async def handle_call(self, request: str, state: Count) -> tuple[int, Reply, Count]:
        return state.sent, Reply(request), state

    async def handle_disconnect(self, reason: Disconnect, state: Count) -> tuple[None, Count]:
        return None, state

    async def terminate(self, reason: Disconnect, state: Count) -> None:
        await trio.sleep(1)


class Wrong(Socket[Count]):
    """Hooks that return no state or a state of the wrong type."""

    def init_stream(self, info: ConnectionInfo) -> int:  # type: ignore[override]
        return 1

    def handle_receive(self, frame: str, state: Count) -> Count:  # type: ignore[override]
        return state

    def handle_send(self, message: str, state: Count) -> tuple[str, int]:  # type: ignore[override]
        return message, 1

    def handle_disconnect(  # type: ignore[override]
        self, reason: Disconnect, state: Count
    ) -> tuple[bool, Count]:
        return True, state


async def with_a_socket() -> None:
    """The connection has the state type of the socket."""
    async with connect("ws://memory.test/", Counter()) as conn:
        assert_type(conn, Connection[Count])
        assert_type(conn.state, Count)
        assert_type(conn.state.sent, int)
        print(conn.state.absent)  # type: ignore[attr-defined]
        conn.state = Count()  # type: ignore[misc]
    async with connect("ws://memory.test/", AsyncCounter(), name="x", trace=True) as other:
        assert_type(other, Connection[Count])


async def with_the_default_socket() -> None:
    """A connection without a socket has no state."""
    async with connect("ws://memory.test/") as conn:
        assert_type(conn, Connection[None])
        assert_type(conn.state, None)
    async with connect("ws://memory.test/", None, ping_interval=None) as same:
        assert_type(same, Connection[None])


async def all_of_a_connection(conn: Connection[Count]) -> None:
    """The methods and properties of a connection."""
    assert_type(await conn.send({"any": "message"}), None)
    conn.send_nowait("x")
    await conn.send_frame(bytearray(b"x"))
    await conn.send_frame(Ping())
    await conn.send_frame({"no": "frame"})  # type: ignore[arg-type]
    await conn.flush()
    await conn.receive()
    conn.receive_nowait()
    assert_type(await conn.receive_batch(), list[str | bytes])
    async for _message in conn:
        break
    assert_type(conn.cast("x"), None)
    assert_type(conn.cast_after(1, "x"), trio.CancelScope)
    assert_type(await conn.call("x", timeout=1), Any)
    assert_type(await conn.ping(), float)
    assert_type(conn.latency, float | None)
    await conn.aclose()
    await conn.aclose(1000, "reason")
    await conn.aclose("1000")  # type: ignore[arg-type]
    conn.abort()
    await conn.wait_closed()
    assert_type(conn.status, Status)
    assert_type(conn.url, str)
    assert_type(conn.name, str)
    assert_type(conn.subprotocol, str | None)
    assert_type(conn.handshake, Handshake | None)
    assert_type(conn.close_code, int | None)
    assert_type(conn.close_reason, str | None)
    assert_type(conn.statistics(), Statistics)
    assert_type(conn.statistics().messages_sent, int)
    conn.trace()
    conn.trace(False)
    conn.start_soon(conn.send, "x")
    conn.start_soon(conn.abort)  # type: ignore[arg-type]


async def programs_of_hooks() -> None:
    """``run()`` returns the state; ``nursery.start`` returns the connection."""
    assert_type(await run("ws://memory.test/", Counter()), Count)
    assert_type(await run("ws://memory.test/", AsyncCounter(), close_timeout=1), Count)
    async with trio.open_nursery() as nursery:
        conn: Connection[Count] = await nursery.start(run, "ws://memory.test/", Counter())
        assert_type(conn.state, Count)
        await nursery.start(partial(run, "ws://memory.test/", Counter(), ping_interval=None))


@dataclass
class Candle:
    """A message."""

    close: float


class Trades(Socket[None, Candle]):
    """Delivers Candles."""


class Bare(Socket):
    """Both parameters have defaults (PEP 696)."""


class Events(EventSocket[Count]):
    """Its events may have any type."""


async def messages() -> None:
    """The types of received messages."""
    async with connect("ws://memory.test/") as text:
        assert_type(text, Connection[None, str | bytes])
        assert_type(await text.receive(), str | bytes)
        async for message in text:
            assert_type(message, str | bytes)
    async with connect("ws://memory.test/", codec=JSON(Candle), max_queue=5) as candles:
        assert_type(candles, Connection[None, Candle])
        assert_type(candles.receive_nowait(), Candle)
        assert_type(await candles.receive_batch(), list[Candle])
        assert_type(await candles.request({"last": 1}), Candle)
        async for candle in candles:
            candle.close += 1
            candle.open  # type: ignore[attr-defined]  # noqa: B018
    async with connect("ws://memory.test/", codec=Msgpack(Candle)) as packed:
        assert_type(await packed.receive(), Candle)
    async with connect("ws://memory.test/", codec=JSON()) as untyped:
        assert_type(untyped, Connection[None, Any])
    async with connect("ws://memory.test/", codec=JSON(Candle | Count)) as union:
        assert_type(await union.receive(), Any)
    async with connect("ws://memory.test/", Trades()) as trades:
        assert_type(trades, Connection[None, Candle])
    async with connect("ws://memory.test/", Trades(), codec=JSON(Candle)) as both:
        assert_type(both, Connection[None, Candle])
    async with connect("ws://memory.test/", Bare()) as bare:
        assert_type(bare, Connection[None, str | bytes])
    async with connect("ws://memory.test/", Events()) as events:
        assert_type(events, Connection[Count, Any])


async def own_codec() -> None:
    """A codec needs no base class."""

    class Lines:
        def encode(self, message: list[str], /) -> str:
            return "\n".join(message)

        def decode(self, frame: str | bytes, /) -> list[str]:
            return str(frame).split("\n")

    async with connect("ws://memory.test/", codec=Lines()) as conn:
        assert_type(await conn.receive(), list[str])


async def handler(conn: Connection[None, Candle]) -> None:
    """A handler of a server."""
    assert_type(await conn.receive(), Candle)
    await conn.send(Candle(1.5))
    assert_type(conn.http_request.data, dict[str, Any])


async def servers() -> None:
    """Targets with every kind of parameters."""
    serve(handler, codec=JSON(Candle))
    serve(Trades, codec=JSON(Candle))
    serve(Bare)
    serve(lambda: Counter())
    serve({"/handler": handler, "/live/*": Bare, "/new": lambda: Counter(), "/": Response(200)})


async def options_passed_on(**options: Any) -> None:
    """Wrappers accept the same arguments."""
    named: ConnectOptions = {"ping_interval": 5, "subprotocols": ["a"], "overflow": "drop_oldest"}
    async with connect("ws://memory.test/", Counter(), **named):
        pass
    transports: list[Transport] = [NativeTransport(), TrioWebsocketTransport(), MemoryTransport()]
    for transport in transports:
        async with connect("ws://memory.test/", transport=transport):
            pass
    connect("ws://memory.test/", additional_headers={"a": "b"})
    connect("ws://memory.test/", additional_headers=[("a", "b"), ("a", "c")])


class Room(Channel[Count]):
    """The hooks of a channel, plain and async."""

    intercept = ("shout",)
    history = History(size=100, seconds=3600, id_field="event_id")

    async def join(self, topic: str, payload: Any, user: str) -> tuple[Any, Count]:
        assert_type(self.topic, str)
        return {"welcome": topic, "user": user}, Count()

    def handle_in(self, event: str, payload: Any, state: Count) -> tuple[ChannelResult, Count]:
        assert_type(self.ref, str | None)
        self.cast("message")
        if event == "both":
            return (Broadcast("shout", payload, to_self=False), Answer("ok")), state
        return StopChannel("reason"), replace(state, received=state.received + 1)

    async def handle_out(self, event: str, payload: Any, state: Count) -> tuple[Push, Count]:
        await self.push("text", {})
        await self.broadcast("text", b"binary")
        return Push(event, payload), state

    def terminate(
        self, reason: Left | Rejoined | StopChannel | Gap | Disconnect, state: Count
    ) -> None:
        print(reason, state)


class RoutedRoom(Channel[Count]):
    """A Router takes the place of a hook."""

    handle_in = Router()


class WrongRoom(Channel[Count]):
    """The hooks have one state."""

    def handle_in(  # type: ignore[override]
        self, event: str, payload: Any, state: str
    ) -> tuple[ChannelResult, str]:
        return Broadcast("shout", payload, keep=False), state


def authenticate(request: ConnectRequest) -> str | None:
    """What ``connect`` gets."""
    assert_type(request.token, str | None)
    return request.params["user"]


async def channels_server(hub: Hub) -> None:
    """A server for Phoenix Channels."""
    channels = Channels({"room:*": Room}, hub=hub, connect=authenticate, id=str)
    async with hub, serve(channels.socket, "127.0.0.1", 0):
        await channels.broadcast("room:1", "shout", {})
        await channels.broadcast("room:1", "typing", {}, keep=False)
        await channels.disconnect("user:1")
    Channels({"room:*": Room()}, hub=hub)  # type: ignore[dict-item]
    Channels({"room:*": Counter}, hub=hub)  # type: ignore[dict-item]
    Channels({"room:*": Room})  # type: ignore[call-arg]


def wrong_arguments() -> None:
    """Arguments that raise an exception at run time are also type errors."""
    connect("ws://memory.test/", Counter)  # type: ignore[arg-type]
    connect("ws://memory.test/", overflow="drop")  # type: ignore[arg-type]
    connect("ws://memory.test/", ping_intervall=5)  # type: ignore[call-arg]
    connect("ws://memory.test/", compression="gzip")  # type: ignore[arg-type]
    connect("ws://memory.test/", max_queue="16")  # type: ignore[arg-type]
    Close("1000")  # type: ignore[arg-type]


async def errors() -> None:
    """The attributes of errors."""
    try:
        await run("ws://memory.test/", Counter())
    except ConnectionClosed as error:
        assert_type(error.code, int)
        assert_type(error.received, Close | None)
        assert_type(error.cause, Disconnect | None)
    except HandshakeRefused as refused:
        assert_type(refused.status, int)
        assert_type(refused.body, bytes)
    except (BadHookResult, CallTimeout) as error:
        print(error)


def generic_helper(conn: Connection[Any], socket: Socket[Any]) -> Awaitable[None]:
    """Functions can be generic over sockets."""
    return conn.send(socket)
