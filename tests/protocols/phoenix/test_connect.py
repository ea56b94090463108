"""The connection: its end, its heartbeat, and how it is opened."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.protocols.phoenix.helpers import (
    JOIN,
    JOINED,
    KINDS,
    Scripted,
    connected,
    recv,
    sent,
    transport_of,
)
from trioglock import (
    Backoff,
    ConnectionClosed,
    ConnectionClosedOK,
    HandshakeRefused,
    HeartbeatTimeout,
    InvalidOption,
    InvalidURL,
    MemoryTransport,
)
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import Disconnected, JoinTimeout, PushTimeout
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer

PUSHED = sent('["1","2","room:1","x",{}]')
AGAIN = [
    *sent('["3","3","room:1","phx_join",{}]'),
    *recv('["3","3","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    *recv('["3",null,"room:1","back",{}]'),
]


# Ends.


@pytest.mark.parametrize("end", ["1001", "1002", "1009", "1011", "1012", "kill"])
async def test_it_reconnects_after_every_end_but_1000(scripted: Scripted, end: str) -> None:
    """Topics are joined again; only pending pushes fail."""
    how: Any = ("kill", "") if end == "kill" else ("close", end)
    async with scripted([*JOIN, *JOINED, *PUSHED, how], AGAIN) as socket:
        channel = await socket.join("room:1")
        with pytest.raises(Disconnected):
            await channel.push("x")
        assert await channel.receive() == ("back", {})
        assert channel.join_count == 2


async def test_a_close_with_1000_is_final(scripted: Scripted) -> None:
    """Iteration ends quietly, joins and pushes fail."""
    async with scripted([*JOIN, *JOINED, ("close", "1000")]) as socket:
        channel = await socket.join("room:1")
        assert [message async for message in channel] == []
        with pytest.raises(ConnectionClosedOK):
            await channel.receive()
        with pytest.raises(ConnectionClosedOK):
            await channel.push("x")
        with pytest.raises(ConnectionClosedOK):
            await socket.join("room:2")
        await channel.leave()
        await socket.wait_closed()


async def test_leaving_the_block_wakes_waiting_tasks(
    in_memory: Scripted, autojump_clock: MockClock
) -> None:
    ended: list[str] = []

    async def wait(name: str, call: Any, *args: Any) -> None:
        with pytest.raises((Disconnected, ConnectionClosedOK)):
            await call(*args)
        ended.append(name)

    async with trio.open_nursery() as nursery, in_memory([*JOIN, *JOINED]) as socket:
        channel = await socket.join("room:1")
        nursery.start_soon(wait, "push", channel.push, "x")
        nursery.start_soon(wait, "receive", channel.receive)
        nursery.start_soon(wait, "join", socket.join, "room:2")
        await trio.sleep(1)
    assert sorted(ended) == ["join", "push", "receive"]


# Heartbeats.


async def test_a_missing_heartbeat_answer_reconnects(autojump_clock: MockClock) -> None:
    """The heartbeat is sent every 30 s and answered within 30 s."""
    async with MockPhoenixServer(memory=True) as server:
        server.answers_heartbeats = False
        async with phoenix.connect(server.url, stream=server.open_stream) as socket:
            channel = await socket.join("room:1")
            await trio.sleep(59)
            assert channel.join_count == 1
            await trio.sleep(6)
            assert channel.join_count == 2
            assert [m.event for m in server.past_clients[0].received] == ["phx_join", "heartbeat"]


async def test_without_reconnect_a_heartbeat_timeout_is_an_error(autojump_clock: MockClock) -> None:
    async with MockPhoenixServer(memory=True) as server:
        server.answers_heartbeats = False
        async with phoenix.connect(
            server.url, stream=server.open_stream, reconnect=False
        ) as socket:
            channel = await socket.join("room:1")
            await channel.receive()
            with pytest.raises(phoenix.PhoenixError):
                await channel.push("silent", timeout=1000)
            await socket.wait_closed()
            with pytest.raises(ConnectionClosed) as caught:
                socket.connection.receive_nowait()
            assert isinstance(caught.value.cause, HeartbeatTimeout)


async def test_a_slow_join_does_not_kill_the_connection(autojump_clock: MockClock) -> None:
    """It blocks the server's whole socket, heartbeats included."""

    class Slow(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            await trio.sleep(45)
            return "late"

    async with connected({"slow:*": Slow}) as (_server, socket):
        channel = await socket.join("slow:1", timeout=60)
        assert channel.response == "late"
        assert socket.connection.statistics().reconnects == 0


async def test_websocket_pings_are_answered(scripted: Scripted) -> None:
    async with scripted([]) as socket:
        assert await socket.connection.ping() >= 0


# Connecting.


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_the_url_contains_path_version_and_params(kind: str) -> None:
    """The version comes first; nested params are in the format of Plug."""
    with trio.fail_after(300):
        async with MockPhoenixServer() as server:
            params = {"user": "al & bo", "ids": [1, 2], "more": {"deep": {"x": True}}, "no": None}
            async with phoenix.connect(
                server.url, params=params, transport=transport_of(kind)
            ) as socket:
                client = await server.client()
                assert client.peer.path == (
                    "/socket/websocket?vsn=2.0.0&user=al%20%26%20bo&ids%5B%5D=1&ids%5B%5D=2"
                    "&more%5Bdeep%5D%5Bx%5D=true&no="
                )
                await socket.join("room:1")


async def test_fault_07_path_and_query_are_encoded_once(autojump_clock: MockClock) -> None:
    """What is encoded in the URL stays as it is; only the params are encoded."""
    async with MockPhoenixServer(memory=True) as server:
        for url, query in (
            (
                "%20\u00fc/socket?sig=%FF&a=b+c&flag&x=%zz\u20ac",
                "sig=%FF&a=b+c&flag&x=%zz%E2%82%AC",
            ),
            ("%20\u00fc/socket/websocket/?%76sn=2.0.0&a=%26", "a=%26"),
        ):
            base = server.url.removesuffix("socket")
            async with phoenix.connect(
                f"{base}{url}", params={"p": "%26"}, stream=server.open_stream
            ):
                pass
            path = f"/%20%C3%BC/socket/websocket?vsn=2.0.0&{query}&p=%2526"
            assert server.past_clients[-1].peer.path == path


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("version", ["1.7", "1.8"])
async def test_the_token_is_sent_as_a_subprotocol(kind: str, version: Any) -> None:
    """Phoenix 1.8 selects ``phoenix``, 1.7 selects none; both are accepted."""
    with trio.fail_after(300):
        async with MockPhoenixServer(
            version=version, authorize=lambda _, token: token == "sécret"
        ) as server:
            async with phoenix.connect(
                server.url, auth_token="sécret", transport=transport_of(kind)
            ) as socket:
                channel = await socket.join("room:1")
                assert socket.connection.subprotocol == (None if version == "1.7" else "phoenix")
                assert (await channel.push("echo", 1)).ok
            assert server.past_clients[0].peer.subprotocols == (
                "phoenix",
                "base64url.bearer.phx.c8OpY3JldA",
            )


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_403_and_404_are_final_and_429_is_not(kind: str) -> None:
    transport = transport_of(kind)
    soon = Backoff(initial=0.01)
    with trio.fail_after(300):
        async with MockPhoenixServer(authorize=lambda params, _: "t" in params) as server:
            for params, status in [({}, 403), ({"t": 1}, 404)]:
                if status == 404:
                    server.reject(404)
                with pytest.raises(HandshakeRefused) as caught:
                    async with phoenix.connect(server.url, params=params, transport=transport):
                        raise AssertionError("let in")
                assert (caught.value.status, caught.value.body) == (status, b"")
            server.reject(429, times=2)
            async with phoenix.connect(
                server.url, params={"t": 1}, transport=transport, reconnect=soon
            ) as socket:
                assert (await socket.join("room:1")).joined


async def test_functions_are_called_before_every_attempt(autojump_clock: MockClock) -> None:
    """For URL, params, token and payload, plain and async."""
    fresh = itertools.count(1)

    async def token() -> str:
        await trio.sleep(0.1)
        return f"token{next(fresh)}"

    async def payload() -> dict[str, int]:
        await trio.sleep(0.1)
        return {"n": next(fresh)}

    tokens: list[Any] = []

    def authorize(params: dict[str, str], token: str | None) -> bool:
        tokens.append((params["n"], token))
        return True

    async with (
        MockPhoenixServer(memory=True, authorize=authorize) as server,
        phoenix.connect(
            lambda: server.url,
            params=lambda: {"n": next(fresh)},
            auth_token=token,
            stream=server.open_stream,
        ) as socket,
    ):
        channel = await socket.join("room:1", payload)
        await server.kill()
        while channel.join_count < 2:
            await trio.sleep(0.1)
        clients = [*server.past_clients, *server.clients]
        joins = [m.payload for c in clients for m in c.received if m.event == "phx_join"]
    assert tokens == [("1", "token2"), ("4", "token5")]
    assert joins == [{"n": 3}, {"n": 6}]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"params": {"vsn": "1.0.0"}}, "vsn"),
        ({"params": [("a", "b")]}, "params"),
        ({"params": {"a": object()}}, "'a'"),
        ({"auth_token": b"x"}, "auth_token"),
        ({"auth_token": "??????"}, "slash"),
        ({"auth_token": "x", "subprotocols": ["y"]}, "subprotocols"),
        ({"auth_token": "x", "transport": "tcp"}, "transport"),
        ({"timeout": 0}, "timeout"),
        ({"rejoin_delays": (1, 0)}, "rejoin_delays"),
        ({"rejoin_delays": 5}, "rejoin_delays"),
        ({"rejoin_delays": (1, None)}, "rejoin_delays"),
        ({"max_buffer": -1}, "max_buffer"),
        ({"heartbeat": object()}, "heartbeat"),
        ({"reconnect": 3}, "reconnect"),
    ],
)
def test_invalid_arguments_of_connect(options: Any, wrong: str) -> None:
    """They raise before connecting; the text names the argument."""
    with pytest.raises(InvalidOption, match=wrong):
        phoenix.connect("ws://example.org/socket", **options)
    with pytest.raises(InvalidURL):
        phoenix.connect("http://[/socket")
    with pytest.raises(InvalidURL):
        phoenix.connect("ftp://example.org/socket")
    with pytest.raises(InvalidOption):
        phoenix.connect(7)  # type: ignore[arg-type]


def test_the_delays_between_attempts() -> None:
    """Short at first, at most 5 seconds, without a limit of attempts."""
    delays = list(itertools.islice(phoenix.RECONNECT.delays(), 50))
    assert delays[0] <= 0.02
    assert max(delays) <= 5
    assert len(delays) == 50


async def test_a_server_that_does_not_read_delays_no_call_past_its_timeout(
    autojump_clock: MockClock,
) -> None:
    """Pushes, leaves and joins time out while the send queue is full."""
    transport = MemoryTransport(capacity=1)
    async with phoenix.connect("ws://memory.test/", transport=transport, timeout=1) as socket:
        server = await transport.accept()
        channel = await socket.join_soon("room:1")
        await server.receive()
        await server.write(['["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]'])
        await channel.wait_joined()
        began = trio.current_time()
        for _ in range(5):
            with pytest.raises(PushTimeout):
                await channel.push("x", "x" * 2**15)
        with pytest.raises(PushTimeout):
            await channel.leave()
        with pytest.raises(JoinTimeout):
            await socket.join("room:2")
        assert trio.current_time() - began == pytest.approx(7)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.closed
        assert socket.statistics().channels == 0
        socket.connection.abort()


async def test_frames_of_a_lost_connection_are_not_sent_on_the_next(
    autojump_clock: MockClock,
) -> None:
    """A stale phx_join or phx_leave would end the channel that was joined again."""
    transport = MemoryTransport(capacity=1)
    async with phoenix.connect("ws://memory.test/", transport=transport) as socket:
        first = await transport.accept()
        channel = await socket.join_soon("room:1")
        await first.receive()
        await first.write(['["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]'])
        await channel.wait_joined()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(fails_with_disconnected, channel.push, "x", "x" * 1000)
                await trio.testing.wait_all_tasks_blocked()
            left = await socket.join_soon("room:2")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(left.leave)
            await trio.testing.wait_all_tasks_blocked()
            await first.aclose()
        second = await transport.accept()
        got: list[Any] = []
        with trio.move_on_after(5):
            while True:
                for event in await second.receive():
                    got += event if isinstance(event, list) else [event]
        assert [frame[:40] for frame in got] == ['["24","24","room:1","phx_join",{}]']
        socket.connection.abort()


async def fails_with_disconnected(call: Any, *args: Any) -> None:
    with pytest.raises(Disconnected):
        await call(*args)
