"""Handshakes, messages and pings with servers of other libraries."""

from __future__ import annotations

import json

import pytest
import trio

from tests.interop.peers import Dialer
from trioglock import Connection, Deliver, HandshakeRefused, Socket

pytestmark = pytest.mark.slow

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 2**20]

# aiohttp sends every message in one frame.
fragmenting = pytest.mark.parametrize("server", ["websockets", "node"], indirect=True)
compressing = pytest.mark.parametrize("client", ["deflate"], indirect=True)
uncompressing = pytest.mark.parametrize("client", ["native", "trio-websocket"], indirect=True)
# Only ws selects the parameters of the compression for each connection.
only_ws = pytest.mark.parametrize("server", ["node"], indirect=True)


class Diary(Socket[tuple[str, ...]]):
    """Records the calls of its hooks in its state."""

    def init_stream(self, info: object) -> tuple[str, ...]:
        return ("init",)

    def handle_connect(
        self, info: object, state: tuple[str, ...]
    ) -> tuple[object, tuple[str, ...]]:
        return None, (*state, "connect")

    def handle_ping(self, payload: bytes, state: tuple[str, ...]) -> tuple[object, tuple[str, ...]]:
        return None, (*state, f"ping {payload.decode()}")

    def handle_receive(
        self, frame: str | bytes, state: tuple[str, ...]
    ) -> tuple[object, tuple[str, ...]]:
        return Deliver(frame), (*state, "message")


async def test_both_sides_know_the_handshake(dial: Dialer) -> None:
    """The request reaches the server, and the response the client; nothing is made up."""
    url = dial.url("subprotocol", x=1)
    async with dial(
        url,
        additional_headers={"X-Question": "6x7"},
        origin="https://example.org",
        subprotocols=["chat.v9", "chat.v2"],
    ) as conn:
        assert json.loads(await conn.receive()) == {
            "path": "/subprotocol?x=1",
            "subprotocol": "chat.v2",
            "origin": "https://example.org",
            "question": "6x7",
        }
        assert conn.subprotocol == "chat.v2"
        assert conn.handshake is not None
        assert conn.handshake.url == url
        assert conn.handshake.peer == f"127.0.0.1:{dial.port}"
        assert conn.handshake.request_headers["x-question"] == "6x7"
        assert conn.handshake.response_headers["sec-websocket-protocol"] == "chat.v2"
    async with dial("subprotocol") as conn:
        assert json.loads(await conn.receive())["subprotocol"] is None
        assert conn.subprotocol is None


async def test_a_refusal_has_the_status(dial: Dialer) -> None:
    """A server's 404 is a HandshakeRefused."""
    with pytest.raises(HandshakeRefused) as refused:
        async with dial("nowhere"):
            pass
    assert refused.value.status == 404


async def test_a_message_right_behind_the_handshake_waits_its_turn(dial: Dialer) -> None:
    """A message sent immediately by the server finds the state of the earlier hooks."""
    async with dial("subprotocol", Diary()) as conn:
        await conn.receive()
        assert conn.state == ("init", "connect", "message")


async def test_messages_are_echoed(dial: Dialer) -> None:
    """Text and binary of every length encoding, characters of one to four bytes, and NUL."""
    messages: list[str | bytes] = ["\0 a \u00e9 \u20ac \U0001f40d"]
    for size in SIZES:
        messages += ["x" * size, bytes(n % 251 for n in range(size))]
    async with dial("echo") as conn:
        for message in messages:
            await conn.send(message)
            assert await conn.receive() == message


async def test_a_thousand_messages_stay_in_order(dial: Dialer) -> None:
    """What is sent while messages are received comes back complete and in its order."""

    async def send_all(conn: Connection[object]) -> None:
        for number in range(1000):
            await conn.send(str(number))

    async with dial("echo") as conn, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, conn)
        assert [await conn.receive() for _ in range(1000)] == [str(n) for n in range(1000)]


@fragmenting
async def test_a_ping_between_fragments_is_answered_immediately(dial: Dialer) -> None:
    """The server sends the rest of the message after the pong; a character is cut in two."""
    text = "price: 5 \u20ac"
    shown = dial.client.transport.capabilities.ping_events
    between = ("ping between",) if shown else ()
    for kind, message in (("text", text), ("binary", text.encode())):
        url = dial.url("fragments", message=text, cut=len(text.encode()) - 1, kind=kind)
        async with dial(url, Diary()) as conn:
            assert await conn.receive() == message
            assert conn.state == ("init", "connect", *between, "message")


async def test_a_ping_of_the_client_is_answered(dial: Dialer) -> None:
    """``ping`` returns the seconds of the round trip, again and again."""
    async with dial("echo") as conn:
        for _ in range(3):
            seconds = await conn.ping()
            assert 0 < seconds < 30
            assert conn.latency == pytest.approx(seconds, abs=1)


async def test_a_ping_of_the_server_is_answered(dial: Dialer) -> None:
    """The server gets a pong with the payload of its ping."""
    async with dial(dial.url("ping", payload="are you there")) as conn:
        assert await conn.receive() == "ponged"


async def exchange_alike(conn: Connection[object]) -> None:
    """Send and receive 300 messages of 1,000 bytes that compress well; check that they did."""
    for number in range(300):
        text = f"{number:3} {'the same again and again' * 42}"
        message = text if number % 2 else text.encode()
        await conn.send(message)
        assert await conn.receive() == message
    statistics = conn.statistics()
    assert statistics.bytes_sent < 300 * 1000 / 5
    assert statistics.bytes_received < 300 * 1000 / 5


@compressing
async def test_compression_is_negotiated_and_carries_many_messages(dial: Dialer) -> None:
    """permessage-deflate shortens both directions; no message is harmed."""
    async with dial("echo") as conn:
        assert conn.handshake is not None
        assert conn.handshake.extensions == ("permessage-deflate",)
        await exchange_alike(conn)


@only_ws
@compressing
async def test_compression_works_without_context_takeover(dial: Dialer) -> None:
    """Where it is agreed, each message is compressed for itself, in both directions."""
    async with dial(dial.url("echo", forgetful=1)) as conn:
        assert conn.handshake is not None
        agreed = conn.handshake.response_headers["sec-websocket-extensions"]
        assert "client_no_context_takeover" in agreed
        assert "server_no_context_takeover" in agreed
        await exchange_alike(conn)


@uncompressing
async def test_compression_is_not_negotiated_unasked(dial: Dialer) -> None:
    """Without ``compression`` there is no extension, and messages have their full length."""
    async with dial("echo") as conn:
        assert conn.handshake is not None
        assert conn.handshake.extensions == ()
        await conn.send("x" * 1000)
        assert await conn.receive() == "x" * 1000
        assert conn.statistics().bytes_received > 1000
