"""``codec=``: the messages of a connection are encoded and decoded."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock import (
    BadHookResult,
    Close,
    Connection,
    ConnectionClosed,
    DecodeError,
    Deliver,
    EncodeError,
    InvalidFrame,
    InvalidOption,
    MemoryTransport,
    MessageHeartbeat,
    Ping,
    PreparedMessage,
    RemoteClose,
    Reply,
    Socket,
    connect,
    run,
    serve,
)
from trioglock.codecs import JSON, Msgpack
from trioglock.protocols import gossip, phoenix
from trioglock.protocols.gossip import ChannelsCallbacks
from trioglock.pubsub import Hub
from trioglock.routing import EventSocket

URL = "ws://codec/"


class Recorder(Socket[int]):
    """Counts its messages in the state, and answers each."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.received: list[Any] = []

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        self.sent.append(message)
        return (None if message == "drop" else message), state

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        self.received.append(frame)
        return Reply({"count": state}, Ping(b"raw"), deliver=frame), state + 1


async def test_messages_are_encoded_and_decoded() -> None:
    async with serve(Recorder, "127.0.0.1", 0, codec=JSON()) as server:  # noqa: SIM117
        async with connect(f"ws://127.0.0.1:{server.port}/", codec=JSON()) as conn:
            for count, message in enumerate([{"a": [1, None]}, [1, 2], (3,), "text", None, 1.5]):
                await conn.send(message)
                assert await conn.receive() == {"count": count}
            conn.send_nowait("now")
            assert [message async for message in first(conn)] == [{"count": 6}]


async def first(conn: Connection[Any]) -> AsyncIterator[Any]:
    async for message in conn:
        yield message
        return


@pytest.mark.parametrize("is_async", [False, True])
async def test_hooks_see_messages(is_async: bool) -> None:
    transport = MemoryTransport()
    socket = Recorder()
    if is_async:
        handle_receive, handle_send = socket.handle_receive, socket.handle_send

        async def receive(frame: Any, state: int) -> tuple[Any, int]:
            return handle_receive(frame, state)

        async def send(message: Any, state: int) -> tuple[Any, int]:
            return handle_send(message, state)

        socket.handle_receive, socket.handle_send = receive, send  # type: ignore[method-assign, assignment]
    async with connect(URL, socket, transport=transport, codec=JSON()) as conn:
        far = await transport.accept()
        await far.write(["[1]", b'{"a": 2}'])
        assert [await conn.receive(), await conn.receive()] == [[1], {"a": 2}]
        await conn.send("drop")
        await conn.send({"b": 3})
        await conn.flush()
        texts: list[Any] = []
        while '{"b":3}' not in texts:
            for event in await far.receive():
                texts += event if isinstance(event, list) else []
        assert texts == ['{"count":0}', '{"count":1}', '{"b":3}']
        conn.abort()
    assert (socket.sent, socket.received) == (["drop", {"b": 3}], [[1], {"a": 2}])


async def test_frames_pass_unchanged() -> None:
    """Control frames, prepared messages, fragments and ``send_frame``."""
    transport = MemoryTransport()

    async def fragments() -> AsyncIterator[str]:
        yield "{"
        yield "}"

    async with connect(URL, transport=transport, codec=JSON()) as conn:
        far = await transport.accept()
        await conn.send(PreparedMessage("raw"))
        assert await far.receive() == [["raw"]]
        await conn.send_frame("not json")
        assert await far.receive() == [["not json"]]
        await conn.send(Ping(b"x"))
        assert await far.receive() == [Ping(b"x")]
        await conn.send(Close(4000))
        assert await far.receive() == [Close(4000)]
        conn.abort()


async def test_an_error_of_the_codec_is_raised_by_send() -> None:
    transport = MemoryTransport()
    async with connect(URL, Recorder(), transport=transport, codec=JSON()) as conn:
        far = await transport.accept()
        with pytest.raises(EncodeError, match="set is not a JSON type"):
            await conn.send({1, 2})
        with pytest.raises(EncodeError):
            conn.send_nowait(b"bytes")
        await conn.send(1)
        assert await far.receive() == [["1"]]
        conn.abort()


class Wrong:
    """A codec with errors in it."""

    def encode(self, message: Any) -> Any:
        return [message]

    def decode(self, frame: Any) -> Any:
        raise RuntimeError("a bug")


async def test_a_wrong_codec() -> None:
    transport = MemoryTransport()
    with pytest.raises(RuntimeError, match="a bug"):
        async with connect(URL, transport=transport, codec=Wrong(), close_timeout=0.1) as conn:
            far = await transport.accept()
            with pytest.raises(InvalidFrame, match="the codec must return str or bytes"):
                await conn.send("x")
            await far.write(["y"])
            await conn.receive()


async def test_a_reply_that_cannot_be_encoded_ends_the_connection() -> None:
    class Unencodable(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply({frame}), None

    transport = MemoryTransport()
    with pytest.raises(BadHookResult, match=r"Unencodable.handle_receive: not expressible as JSON"):
        async with connect(
            URL, Unencodable(), transport=transport, codec=JSON(), close_timeout=0.1
        ) as conn:
            await (await transport.accept()).write(["1"])
            await conn.receive()


# Malformed messages.


async def test_a_malformed_message_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = MemoryTransport()
    with caplog.at_level(logging.WARNING, "trioglock.connection"):
        async with connect(URL, transport=transport, codec=JSON()) as conn:
            far = await transport.accept()
            await far.write(["1", "{bad", "2", "NaN", b"\xff", "3"])
            assert [await conn.receive() for _ in range(3)] == [1, 2, 3]
            assert conn.statistics().invalid == 3
            conn.abort()
    [record] = caplog.records
    assert "invalid message: DecodeError" in record.getMessage()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.slow
async def test_malformed_messages_go_to_a_hook_in_order(
    is_async: bool, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class Strict(Socket[tuple[Any, ...]]):
        def init_stream(self, info: Any) -> tuple[Any, ...]:
            return ()

        def handle_receive(self, frame: Any, state: tuple[Any, ...]) -> Any:
            return None, (*state, frame)

        def handle_invalid(self, error: DecodeError, frame: Any, state: tuple[Any, ...]) -> Any:
            if frame == "end":
                return Close(1007), state
            return Deliver(frame), (*state, type(error))

    class AsyncStrict(Strict):
        async def handle_receive(self, frame: Any, state: tuple[Any, ...]) -> Any:
            await trio.sleep(0)
            return super().handle_receive(frame, state)

    transport = MemoryTransport()
    socket = AsyncStrict() if is_async else Strict()
    async with connect(URL, socket, transport=transport, codec=JSON()) as conn:
        far = await transport.accept()
        await far.write(["1", "{bad", "2"])
        assert await conn.receive() == "{bad"
        await far.write(["end"])
        assert await far.receive() == [Close(1007)]
        await far.write([Close(1007)])
        await conn.wait_closed()
    assert conn.state == (1, DecodeError, 2)
    assert conn.statistics().invalid == 2
    assert not caplog.records


async def test_a_codec_of_the_user_may_raise_other_errors() -> None:
    class Pairs:
        def encode(self, message: tuple[str, str]) -> str:
            return " ".join(message)

        def decode(self, frame: str | bytes) -> tuple[str, str]:
            first, second = str(frame).split(" ")  # ValueError
            return first, {"ok": second}[second[:2]]  # KeyError

    transport = MemoryTransport()
    async with connect(URL, transport=transport, codec=Pairs()) as conn:
        far = await transport.accept()
        await far.write(["a", "a b", "a ok"])
        assert await conn.receive() == ("a", "ok")
        assert conn.statistics().invalid == 2
        conn.abort()


async def test_messages_before_an_error_of_the_codec_are_received(
    autojump_clock: MockClock,
) -> None:
    class Faulty:
        def encode(self, message: Any) -> str:
            return str(message)

        def decode(self, frame: str | bytes) -> str:
            if frame == "deep":
                raise RecursionError
            return str(frame) if frame != "bug" else str(1 // 0)

    socket, transport = Recorder(), MemoryTransport()
    with pytest.raises(ZeroDivisionError):
        async with connect(URL, socket, transport=transport, codec=Faulty()) as conn:
            far = await transport.accept()
            await far.write(["one", "deep", "two", "bug", "three"])
            await trio.sleep_forever()
    assert socket.received == ["one", "two"]
    assert conn.statistics().invalid == 1


async def test_heartbeat_answers_are_not_decoded() -> None:
    transport = MemoryTransport()
    heartbeat = MessageHeartbeat(message=lambda: "ping", is_answer=lambda frame: frame == "pong")
    async with connect(URL, transport=transport, codec=JSON(), heartbeat=heartbeat) as conn:
        far = await transport.accept()
        await far.write(["pong", "1"])
        assert await conn.receive() == 1
        assert conn.statistics().invalid == 0
        conn.abort()


# Options.


@pytest.mark.parametrize(
    ("socket", "instead"),
    [(EventSocket, r"EventSocket\(\.\.\., codec=\.\.\.\)"), (lambda: EventSocket(), "EventSocket")],
)
async def test_a_socket_with_its_own_codec(
    socket: Callable[[], Socket[Any]], instead: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidOption, match=f"EventSocket encodes its own messages.*{instead}"):
        connect(URL, socket(), codec=JSON())
    if isinstance(socket, type):
        with pytest.raises(InvalidOption, match="EventSocket encodes its own messages"):
            serve(socket, "127.0.0.1", 0, codec=JSON())
        return
    async with serve(socket, "127.0.0.1", 0, codec=JSON()) as server:  # noqa: SIM117
        async with connect(f"ws://127.0.0.1:{server.port}/") as conn:
            with pytest.raises(ConnectionClosed) as caught:
                await conn.receive()
    assert caught.value.cause == RemoteClose(code=1011, reason="internal error")
    assert "EventSocket encodes its own messages" in caplog.text


async def test_protocols_refuse_a_codec() -> None:
    with pytest.raises(InvalidOption, match="use the serializer option"):
        async with phoenix.connect("ws://h/socket", codec=JSON()):
            pass
    with pytest.raises(InvalidOption, match=r"GossipSocket encodes .*: the protocol uses JSON"):
        gossip.connect(
            client_id="id",
            client_secret="secret",
            channels=ChannelsCallbacks(),
            codec=JSON(),
        )
    with pytest.raises(InvalidOption, match="encode the messages that you publish"):
        serve(Hub().socket, "127.0.0.1", 0, codec=JSON())


def test_the_class_of_a_codec() -> None:
    with pytest.raises(InvalidOption, match=r"codec must be .* the class JSON: write JSON\(\)"):
        connect(URL, codec=JSON)  # type: ignore[arg-type]


async def test_run_and_handlers() -> None:
    """``run`` passes the codec on; a handler of a server gets messages."""
    received: list[Any] = []

    class Client(Socket[list[Any]]):
        def init_stream(self, info: Any) -> list[Any]:
            return []

        def handle_connect(self, info: Any, state: list[Any]) -> tuple[Any, list[Any]]:
            return Reply({"hello": 1}), state

        def handle_receive(self, frame: Any, state: list[Any]) -> tuple[Any, list[Any]]:
            return Close(), [*state, frame]

    async def handler(conn: Connection[None]) -> None:
        received.append(await conn.receive())
        await conn.send({"welcome": 2})
        await conn.wait_closed()

    async with serve(handler, "127.0.0.1", 0, codec=Msgpack()) as server:
        state = await run(f"ws://127.0.0.1:{server.port}/", Client(), codec=Msgpack())
    assert (received, state) == ([{"hello": 1}], [{"welcome": 2}])
