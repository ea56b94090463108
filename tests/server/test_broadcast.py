"""``server.broadcast()``: to every connection, without waiting."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.server.helpers import Echo, LockstepListener, MakeTransport, frame, on_both, serving
from trioglock import (
    Close,
    Connection,
    ConnectionInfo,
    InvalidFrame,
    MemoryListener,
    Ping,
    Reply,
    Request,
    Socket,
    broadcast,
    connect,
    serve,
)


@on_both
async def test_every_connection_gets_a_frame_as_it_is(transport: MakeTransport) -> None:
    """Text, bytes or a ping, without ``handle_send``; returns the number of connections."""

    class Loud(Echo):
        def handle_send(self, message: str, state: None) -> tuple[str, None]:
            return message.upper(), state

    async with (
        serving(Loud, transport=transport()) as site,
        site.dial() as one,
        site.dial() as two,
    ):
        await trio.testing.wait_all_tasks_blocked()
        assert site.server.broadcast("news") == 2
        assert site.server.broadcast(bytearray(b"bytes")) == 2
        assert site.server.broadcast(Ping(b"there?")) == 2
        for conn in (one, two):
            assert await conn.receive() == "news"
            assert await conn.receive() == b"bytes"


async def stay(conn: Connection[None]) -> None:
    """A handler."""
    await conn.wait_closed()


@on_both
@pytest.mark.parametrize("target", [Echo, stay])
async def test_fault_05_a_connection_is_registered_before_its_client_knows_that_it_is_open(
    target: Any, transport: MakeTransport
) -> None:
    """A broadcast right after ``connect()`` reaches it, over TCP and in memory."""
    memory = MemoryListener()
    [tcp] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(300):
        async with serve(target, listeners=[memory, tcp], transport=transport()) as server:
            for number in range(20):
                stream: trio.abc.Stream
                if number % 2:
                    stream = await memory.open_stream()
                else:
                    stream = await trio.testing.open_stream_to_socket_listener(tcp)
                async with connect("ws://memory.test/", stream=stream) as conn:
                    assert len(server.connections) == 1
                    assert server.broadcast("news") == 1
                    assert await conn.receive() == "news"
                while server.connections:
                    await trio.sleep(0.001)


@on_both
async def test_fault_05_the_response_waits_for_an_async_init_stream(
    transport: MakeTransport, autojump_clock: object
) -> None:
    """It may subscribe the client somewhere; if it raises, the client gets 1011."""
    initialized = False

    class Slow(Socket[int]):
        async def init_stream(self, info: ConnectionInfo) -> int:
            nonlocal initialized
            await trio.sleep(2)
            initialized = True
            if info.url.endswith("fail"):
                raise ValueError
            return 1

    async with serving(Slow, transport=transport()) as site:
        async with site.dial():
            assert initialized
            assert site.server.broadcast("news") == 1
        async with site.dial("/fail") as conn:
            await conn.wait_closed()
            assert conn.close_code == 1011


async def test_many_broadcasts_in_a_row_stay_in_order() -> None:
    """Over TCP, between the frames of the connection's hooks."""
    with trio.fail_after(300):
        async with (
            serve(Echo, "127.0.0.1", 0, write_limit=2**20) as server,
            connect(f"ws://127.0.0.1:{server.port}/") as conn,
        ):
            await conn.ping()
            for turn in range(20):
                await conn.send("mine")
                for number in range(50):
                    assert server.broadcast(str(50 * turn + number)) == 1
                await trio.sleep(0.002)
            got = [await conn.receive() for _ in range(20 * 51)]
            assert got.count("mine") == 20
            assert [text for text in got if text != "mine"] == [str(n) for n in range(1000)]


async def test_nobody_is_no_mistake() -> None:
    """Nor does a connection that has just closed."""
    async with serving(Echo) as site:
        assert site.server.broadcast("anybody?") == 0
        async with site.dial():
            await trio.testing.wait_all_tasks_blocked()
            assert site.server.broadcast("there you are") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert site.server.broadcast("anybody?") == 0


async def test_scenario_23_a_slow_client_holds_nobody_up() -> None:
    """23: it is skipped while its send queue is full; the others get everything."""
    async with serving(Echo, LockstepListener(), write_limit=5000) as site:
        slow = await site.upgraded()
        async with site.dial() as quick:
            await trio.testing.wait_all_tasks_blocked()
            counts = []
            for number in range(20):
                counts.append(site.server.broadcast(f"{number:1000}"))
                assert int(await quick.receive()) == number
            assert counts[0] == 2
            assert counts[-1] == 1
            assert 1 <= counts.index(1) <= 8
            held = [conn.statistics().send_queue_bytes for conn in site.server.connections]
            assert max(held) < 7000
        await slow.stream.aclose()


async def test_a_broadcast_comes_behind_the_greeting(autojump_clock: object) -> None:
    """A connection is included at once, and gets its greeting first."""

    class Polite(Socket[None]):
        async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
            await trio.sleep(1)
            return Reply("welcome"), state

    async with serving(Polite) as site, site.dial() as conn:
        assert site.server.broadcast("early") == 1
        assert [await conn.receive() for _ in range(2)] == ["welcome", "early"]


async def test_a_message_for_all_but_its_sender(autojump_clock: object) -> None:
    async def chat(conn: Connection[None]) -> None:
        async for message in conn:
            assert broadcast(site.server.connections - {conn}, message) == (2, 0, 0)

    async with serving(chat) as site, site.dial() as one, site.dial() as two, site.dial() as three:
        for sender, text in ((one, "from one"), (two, "from two")):
            await sender.send(text)
            for receiver in {one, two, three} - {sender}:
                assert await receiver.receive() == text
        for conn in (one, two, three):
            with pytest.raises(trio.WouldBlock):
                conn.receive_nowait()


async def test_a_message_for_the_connections_of_one_user(autojump_clock: object) -> None:
    """In every tab."""

    def identify(request: Request) -> None:
        request.data["user"] = request.query

    async with (
        serving(Echo, process_request=identify) as site,
        site.dial("/?al") as tab,
        site.dial("/?al") as other_tab,
        site.dial("/?bo") as other_user,
    ):
        connections = site.server.connections
        of_al = (conn for conn in connections if conn.http_request.data["user"] == "al")
        assert broadcast(of_al, "for al") == (2, 0, 0)
        assert await tab.receive() == await other_tab.receive() == "for al"
        assert broadcast(connections, "for all") == (3, 0, 0)
        assert await other_user.receive() == "for all"


async def test_one_that_is_closing_is_passed_over(autojump_clock: object) -> None:
    """It gets nothing after its Close frame."""
    async with serving(Echo) as site:
        client = await site.upgraded()
        await trio.testing.wait_all_tasks_blocked()
        [conn] = site.server.connections
        with trio.move_on_after(1):
            await conn.aclose()
        assert site.server.broadcast("too late") == 0
        assert await client.close_code() == 1000
        await client.send(frame(0x88, b"\x03\xe8"))
        assert await client.everything() == b""


@pytest.mark.parametrize("wrong", [5, None, ["a"], Close(1000)])
async def test_what_is_no_frame_is_refused_immediately(wrong: object) -> None:
    """Also without connections."""
    async with serving(Echo) as site:
        with pytest.raises(InvalidFrame):
            site.server.broadcast(wrong)  # type: ignore[arg-type]
