"""The mock server answers raw frames like real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.protocols.clock import MOCK_CLOCK, REAL_CLOCK
from tests.protocols.phoenix.helpers import connected
from tests.transports.servers import client_context, server_context
from trioglock import Connection, ConnectionClosedError, HandshakeRefused, connect
from trioglock.channels import Answer, Channel
from trioglock.protocols import phoenix
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin
from trioglock.testing.phoenix import MockClient

pytestmark = MOCK_CLOCK

UNMATCHED = '{"response":{"reason":"unmatched topic"},"status":"error"}'


@asynccontextmanager
async def raw(**options: Any) -> AsyncIterator[Connection[None]]:
    """A connection that sends and receives frames."""
    async with (
        MockPhoenixServer(memory=True, **options) as server,
        connect(f"{server.url}/websocket?vsn=2.0.0", stream=server.open_stream) as conn,
    ):
        yield conn


async def exchange(conn: Connection[None], frame: str | bytes, *answers: str | bytes) -> None:
    """Send a frame and receive exactly these answers."""
    await conn.send(frame)
    assert [await conn.receive() for _ in answers] == list(answers)


async def join(conn: Connection[None], ref: str = "1", topic: str = "room:1") -> None:
    await exchange(
        conn,
        f'["{ref}","{ref}","{topic}","phx_join",{{}}]',
        f'["{ref}","{ref}","{topic}","phx_reply",'
        f'{{"response":{{"welcome":"{topic}"}},"status":"ok"}}]',
        f'["{ref}",null,"{topic}","hello",{{"topic":"{topic}"}}]',
    )


async def test_joining_twice_closes_the_old_channel() -> None:
    """After the reply to the second join, and before the new channel's first push."""
    async with raw() as conn:
        await join(conn)
        await exchange(
            conn,
            '["2","2","room:1","phx_join",{}]',
            '["2","2","room:1","phx_reply",{"response":{"welcome":"room:1"},"status":"ok"}]',
            '["1","1","room:1","phx_close",{}]',
            '["2",null,"room:1","hello",{"topic":"room:1"}]',
        )


async def test_topics_that_are_not_joined_are_unmatched() -> None:
    """The reply has no join_ref, and is text even if the push was binary."""
    async with raw() as conn:
        answer = f'[null,"3","room:e","phx_reply",{UNMATCHED}]'
        await exchange(conn, '["1","3","room:e","x",{}]', answer)
        await exchange(conn, b"\x00\x01\x01\x06\x0113room:ex", answer)
        await exchange(
            conn,
            '["11","11","nope:1","phx_join",{}]',
            f'[null,"11","nope:1","phx_reply",{UNMATCHED}]',
        )


async def test_joins_that_crash_or_exceed_the_limit() -> None:
    async with raw(max_channels=1) as conn:
        await exchange(
            conn,
            '["1","1","room:crash","phx_join",{}]',
            '["1","1","room:crash","phx_reply",'
            '{"response":{"reason":"join crashed"},"status":"error"}]',
        )
        await join(conn, "2")
        await exchange(
            conn,
            '["3","3","room:m","phx_join",{}]',
            '["3","3","room:m","phx_reply",'
            '{"response":{"reason":"too many channels joined"},"status":"error"}]',
        )


async def test_leaving_is_answered() -> None:
    """Also if there was nothing to leave."""
    async with raw() as conn:
        await join(conn)
        await exchange(
            conn,
            '["1","2","room:1","phx_leave",{}]',
            '["1","2","room:1","phx_reply",{"response":{},"status":"ok"}]',
            '["1","1","room:1","phx_close",{}]',
        )
        await exchange(
            conn,
            '["1","3","room:1","phx_leave",{}]',
            '["1","3","room:1","phx_reply",{"response":{},"status":"ok"}]',
        )


async def test_refs_may_be_numbers() -> None:
    """Phoenix does not look at them."""
    async with raw() as conn:
        welcome = '{"response":{"welcome":"room:1"},"status":"ok"}'
        await exchange(
            conn, '["1",2,"room:1","phx_join",{}]', f'["1",2,"room:1","phx_reply",{welcome}]'
        )


@pytest.mark.parametrize("end", ["ok", "error"])
async def test_a_slow_join_blocks_all_messages(end: str) -> None:
    """They are answered after it; a second join of the topic follows the first."""

    class Slow(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            await trio.sleep(20)
            if end == "error":
                raise RefuseJoin({})
            return {}

    async with raw(channels={"slow": Slow, "room:*": MockTopic}) as conn:
        reply = f'"phx_reply",{{"response":{{}},"status":"{end}"}}]'
        await conn.send('["1","1","slow","phx_join",{}]')
        await conn.send('[null,"2","phoenix","heartbeat",{}]')
        await conn.send('["3","3","slow","phx_join",{}]')
        await conn.send('[null,"4","phoenix","heartbeat",{}]')
        got = [await conn.receive(), await conn.receive()]
        assert trio.current_time() == pytest.approx(20)
        got += [await conn.receive() for _ in range(3 if end == "ok" else 2)]
        assert trio.current_time() == pytest.approx(40)
        assert got == [
            f'["1","1","slow",{reply}',
            '[null,"2","phoenix","phx_reply",{"response":{},"status":"ok"}]',
            f'["3","3","slow",{reply}',
            *(['["1","1","slow","phx_close",{}]'] if end == "ok" else []),
            '[null,"4","phoenix","phx_reply",{"response":{},"status":"ok"}]',
        ]


@pytest.mark.parametrize("join_ref", ['"0"', "null"])
@pytest.mark.parametrize("version", ["1.7", "1.8"])
async def test_a_stale_or_absent_join_ref(version: Any, join_ref: str) -> None:
    """Phoenix 1.7 delivers the push, 1.8 drops it silently."""
    answer = '["1","9","room:1","phx_reply",{"response":{},"status":"ok"}]'
    async with raw(version=version) as conn:
        await join(conn)
        await conn.send(f'[{join_ref},"9","room:1","bare",{{}}]')
        with trio.move_on_after(10) as patience:
            assert await conn.receive() == answer
        assert patience.cancelled_caught is (version == "1.8")


@pytest.mark.parametrize(
    ("version", "payload"), [("1.7", "{}"), ("1.8", '{"reason":"channel_crash"}')]
)
async def test_a_crash_has_a_reason_since_1_8(version: Any, payload: str) -> None:
    async with raw(version=version) as conn:
        await join(conn)
        await exchange(
            conn, '["1","2","room:1","?",{}]', f'["1","1","room:1","phx_error",{payload}]'
        )


@pytest.mark.parametrize("frame", ["{", "[]", "7", b"", b"\x01\x00", b"\x00\xff\x00\x00\x00"])
async def test_malformed_messages_close_with_1011(frame: Any) -> None:
    async with raw() as conn:
        await conn.send(frame)
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == 1011


@pytest.mark.parametrize(
    ("path", "status"),
    [("/websocket", 403), ("/websocket?vsn=1.0.0", 403), ("?vsn=2.0.0", 404)],
)
async def test_refused_handshakes(path: str, status: int) -> None:
    """An unsupported version or an unknown path; the body is empty."""
    async with MockPhoenixServer(memory=True) as server:
        with pytest.raises(HandshakeRefused) as caught:
            async with connect(f"{server.url}{path}", stream=server.open_stream):
                raise AssertionError("let in")
        assert (caught.value.status, caught.value.body) == (status, b"")


@REAL_CLOCK
async def test_the_fixture_of_the_plugin(mock_phoenix_server: MockPhoenixServer) -> None:
    with trio.fail_after(300):
        async with phoenix.connect(mock_phoenix_server.url) as socket:
            channel = await socket.join("room:1")
            assert (await channel.push("echo", {"a": 1})).response == {"a": 1}


@pytest.mark.parametrize(
    "frame",
    [
        '[[],{},"room:1","phx_join",{}]',
        '["1","1",["x"],"phx_join",{}]',
        '["1","1","room:1",{"x":1},{}]',
        "[" * 100_000,
    ],
)
async def test_fault_62_a_malformed_message_does_not_end_the_server(frame: str) -> None:
    """The socket process of a real server crashes as well; a TypeError came out of the block."""
    async with raw() as conn:
        await conn.send(frame)
        with pytest.raises(ConnectionClosedError):
            await conn.receive()
        assert conn.close_code == 1011


# What a test can do beyond a real server.


@asynccontextmanager
async def raw_client(
    server: MockPhoenixServer, **options: Any
) -> AsyncIterator[tuple[Connection[None], MockClient]]:
    url = f"{server.url}/websocket?vsn=2.0.0&a=1"
    async with connect(url, stream=server.open_stream, **options) as conn:
        yield conn, await server.client()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("stop", '["1","1","room:1","phx_close",{}]'),
        ("crash", '["1","1","room:1","phx_error",{"reason":"channel_crash"}]'),
    ],
)
async def test_a_channel_may_push_and_end_at_any_time(end: str, message: str) -> None:
    """Before its join is answered, while a hook waits, and after its end."""
    cancelled: list[str] = []

    class Early(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            await self.push("early", b"\x01")
            return {}

        async def on_event(self, event: str, payload: Any) -> Any:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(event)

    async with (
        MockPhoenixServer({"room:*": Early}, memory=True) as server,
        raw_client(server) as (conn, client),
    ):
        await exchange(
            conn,
            '["1","1","room:1","phx_join",{}]',
            b"\x00\x01\x06\x051room:1early\x01",
            '["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]',
        )
        await conn.send('["1","2","room:1","hang",{}]')
        await trio.sleep(1)
        channel = client.channels["room:1"]
        assert channel.alive
        await (channel.stop() if end == "stop" else channel.crash())
        assert not channel.alive
        assert client.channels == {}
        await channel.crash()  # has no effect
        await channel.reply("2", "ok", {"late": True})
        await channel.push("phx_close", {})
        assert [await conn.receive() for _ in range(3)] == [
            message,
            '["1","2","room:1","phx_reply",{"response":{"late":true},"status":"ok"}]',
            '["1",null,"room:1","phx_close",{}]',
        ]
        assert cancelled == ["hang"]


async def test_a_channel_may_end_itself_in_a_hook() -> None:
    """What it has sent before is sent, and what it returns is not."""

    class Brief(MockPhoenixChannel):
        async def on_event(self, event: str, payload: Any) -> Any:
            await self.push("last", {})
            await self.stop()
            return "ok"

    async with raw(channels={"room:*": Brief}) as conn:
        await exchange(
            conn,
            '["1","1","room:1","phx_join",{}]',
            '["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]',
        )
        await exchange(
            conn,
            '["1","2","room:1","x",{}]',
            '["1",null,"room:1","last",{}]',
            '["1","1","room:1","phx_close",{}]',
        )
        await exchange(
            conn, '["1","3","room:1","x",{}]', f'[null,"3","room:1","phx_reply",{UNMATCHED}]'
        )


async def test_a_client_has_a_peer() -> None:
    """It shows the handshake and all messages, and sends and closes."""
    async with MockPhoenixServer(memory=True) as server:
        server.accept_with({"X-Room": "7"})
        async with raw_client(server, additional_headers={"X-Mine": "8"}) as (conn, client):
            assert conn.handshake is not None
            assert conn.handshake.response_headers["X-Room"] == "7"
            assert client.params == {"a": "1"}
            assert client.peer.path == "/socket/websocket?vsn=2.0.0&a=1"
            assert client.peer.request_headers["X-Mine"] == "8"
            assert "Sec-WebSocket-Key" not in client.peer.request_headers
            await join(conn)
            await server.broadcast("room:1", "phx_error", {})
            await client.send("not a message")
            await client.peer.send(b"\xff")
            got = [await conn.receive() for _ in range(3)]
            assert got == ['[null,null,"room:1","phx_error",{}]', "not a message", b"\xff"]
            assert client.peer.received == ['["1","1","room:1","phx_join",{}]']
            assert client.peer.sent[2:] == got
            await client.peer.ping()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.peer.expect_close, 4001)
                await conn.aclose(4001)
        assert server.peers == [client.peer]
        assert server.past_clients == [client]


@REAL_CLOCK
async def test_a_server_with_tls() -> None:
    with trio.fail_after(300):
        async with (
            MockPhoenixServer(ssl_context=server_context()) as server,
            phoenix.connect(server.url, ssl_context=client_context()) as socket,
        ):
            assert server.url.startswith("wss://")
            assert (await (await socket.join("room:1")).push("echo", 1)).response == 1


async def test_the_channels_of_an_application() -> None:
    """Their user is the client."""

    class Room(Channel[int]):
        def join(self, topic: str, payload: Any, user: MockClient) -> Any:
            return user.params, 0

        def handle_in(self, event: str, payload: Any, state: int) -> Any:
            return Answer("ok", state), state + 1

    async with connected({"room:*": Room}, params={"b": 2}) as (server, socket):
        room = await socket.join("room:1")
        assert room.response == {"b": "2"}
        assert [(await room.push("x")).response for _ in range(3)] == [0, 1, 2]
        assert isinstance((await server.client()).channels["room:1"], Room)


@pytest.mark.parametrize("diff_first", [False, True])
async def test_the_order_of_diff_and_state(diff_first: bool) -> None:
    class Lobby(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.track("al", diff_first=diff_first, here=True)

    async with connected({"room:*": Lobby}) as (_, socket):
        room = await socket.join("room:1")
        got = [await room.receive() for _ in range(1 + diff_first)]
        [ref] = {entry["phx_ref"] for entry in got[-1][1]["al"]["metas"]}
        al = {"al": {"metas": [{"phx_ref": ref, "here": True}]}}
        diff = ("presence_diff", {"joins": al, "leaves": {}})
        assert got == [*([diff] if diff_first else []), ("presence_state", al)]
        await trio.sleep(1)
        with pytest.raises(trio.WouldBlock):
            room.receive_nowait()
