"""``serve()`` and ``serve_forever()``: what runs on each connection, and properties of a server."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.helpers import Echo, MakeTransport, Site, echo, on_both, serving
from trioglock import (
    Connection,
    ConnectionInfo,
    MemoryListener,
    MessageHeartbeat,
    Reply,
    Server,
    Socket,
    UsageError,
    connect,
    serve,
    serve_forever,
)


class Counting(Socket[int]):
    """Numbers received messages."""

    def __init__(self, first: int = 1) -> None:
        self.first = first

    def init_stream(self, info: ConnectionInfo) -> int:
        return self.first

    def handle_receive(self, frame: Any, state: int) -> tuple[object, int]:
        return Reply(f"{state} {frame}"), state + 1


@on_both
async def test_a_socket_class_is_made_for_each_connection(transport: MakeTransport) -> None:
    """Its hooks work like those of a client, and each connection has its own state."""
    async with (
        serving(Counting, transport=transport()) as site,
        site.dial() as first,
        site.dial() as second,
    ):
        await first.send("a")
        assert await first.receive() == "1 a"
        await first.send("b")
        assert await first.receive() == "2 b"
        await second.send("c")
        assert await second.receive() == "1 c"


async def test_a_function_that_makes_sockets_is_called_for_each_connection() -> None:
    """A lambda or partial passes arguments to the Socket."""
    with trio.fail_after(300):
        for target in (lambda: Counting(7), partial(Counting, 7), partial(Counting, first=7)):
            async with serving(target) as site, site.dial() as conn:
                await conn.send("x")
                assert await conn.receive() == "7 x"


@on_both
async def test_a_handler_gets_the_connection_and_closes_it_by_returning(
    transport: MakeTransport,
) -> None:
    """``async def handler(conn)`` receives, sends, and ends with 1000."""

    async def once(conn: Connection[None]) -> None:
        await conn.send(f"you said {await conn.receive()!s}")

    async with serving(once, transport=transport()) as site, site.dial() as conn:
        await conn.send("hello")
        assert [message async for message in conn] == ["you said hello"]
        assert conn.close_code == 1000


async def test_handlers_may_be_methods_partials_and_objects() -> None:
    """Any async callable with one argument is a handler."""

    class Answering:
        async def method(self, conn: Connection[None]) -> None:
            await conn.send("answer")

        async def __call__(self, conn: Connection[None]) -> None:
            await conn.send("answer")

    async def saying(word: str, conn: Connection[None]) -> None:
        await conn.send(word)

    with trio.fail_after(300):
        for target in (Answering().method, Answering(), partial(saying, "answer")):
            async with serving(target) as site, site.dial() as conn:
                assert await conn.receive() == "answer"


async def test_what_the_hooks_of_a_server_deliver_is_forgotten() -> None:
    """Delivered messages are discarded, so the queue never fills up."""
    async with serving(Socket, max_queue=2) as site, site.dial() as conn:
        for number in range(100):
            await conn.send(f"{number}")
            assert await conn.ping() >= 0


async def test_the_server_side_knows_what_the_client_asked_for() -> None:
    """URL with path and query, headers, subprotocol and peer are in the handshake."""
    seen: list[Connection[None]] = []

    async def note(conn: Connection[None]) -> None:
        seen.append(conn)
        assert conn.handshake is not None
        assert conn.handshake.request_headers["X-Question"] == "6x7"
        await conn.send(conn.url)

    async with (
        serving(note, subprotocols=["v2", "v1"]) as site,
        site.dial(
            "/room/7?who=me",
            subprotocols=["v1", "v2"],
            additional_headers={"X-Question": "6x7"},
        ) as conn,
    ):
        assert await conn.receive() == "ws://memory.test/room/7?who=me"
        assert conn.subprotocol == "v2"
    assert seen[0].subprotocol == "v2"
    assert seen[0].handshake is not None
    assert seen[0].handshake.extensions == ("permessage-deflate",)


async def test_a_server_cannot_reconnect() -> None:
    """It raises immediately, and the connection stays open."""

    async def handler(conn: Connection[None]) -> None:
        with pytest.raises(UsageError, match="its client can reconnect"):
            await conn.reconnect()
        await conn.send("still here")

    async with serving(handler) as site, site.dial() as conn:
        assert await conn.receive() == "still here"


async def test_the_server_lists_its_connections() -> None:
    """A connection is listed while it is open and its handler runs."""
    async with serving(Echo) as site:
        assert site.server.connections == frozenset()
        async with site.dial() as conn:
            await conn.ping()
            [listed] = site.server.connections
            assert listed.url == "ws://memory.test/"
        await trio.testing.wait_all_tasks_blocked()
        assert site.server.connections == frozenset()


async def test_serve_forever_starts_as_a_task_and_gives_the_server() -> None:
    """``nursery.start`` returns the listening server; ``close()`` ends the task."""
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve_forever, echo, "127.0.0.1", 0))
            async with connect(f"ws://127.0.0.1:{server.port}/") as conn:
                await conn.send("hello")
                assert await conn.receive() == "hello"
            assert server.addresses == (f"127.0.0.1:{server.port}",)
            server.close()


async def test_what_the_block_raises_comes_out_as_it_was_raised() -> None:
    """Without a group, and the server has ended."""
    listener = MemoryListener()
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with serve(Echo, listeners=[listener]):
            raise error
    assert caught.value is error
    with pytest.raises(ConnectionRefusedError):
        await listener.open_stream()


async def test_what_is_no_exception_comes_out_of_a_handler() -> None:
    """KeyboardInterrupt and the like end the server and are raised alone."""

    async def interrupted(conn: Connection[None]) -> None:
        raise KeyboardInterrupt

    listener = MemoryListener()
    with trio.fail_after(300), pytest.raises(KeyboardInterrupt):
        async with serve(interrupted, listeners=[listener]):
            stream = await listener.open_stream()
            async with connect("ws://memory.test/", stream=stream):
                await trio.sleep_forever()


async def test_two_failures_come_out_as_one_group() -> None:
    """The exception of the block, and a BaseException of a handler."""

    async def interrupted(conn: Connection[None]) -> None:
        raise KeyboardInterrupt

    listener = MemoryListener()
    with trio.fail_after(300), pytest.raises(BaseExceptionGroup) as caught:
        async with (
            serve(interrupted, listeners=[listener]),
            connect("ws://memory.test/", stream=listener.open_stream),
        ):
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError
    assert {type(error) for error in caught.value.exceptions} == {KeyboardInterrupt, KeyError}


async def test_a_group_of_the_blocks_own_comes_out_as_it_is(autojump_clock: object) -> None:
    """Only exceptions leave time for a graceful shutdown."""

    async def fail() -> None:
        raise KeyError

    async def stay(site: Site, task_status: trio.TaskStatus[Connection[None]]) -> None:
        async with site.dial() as conn:
            task_status.started(conn)
            await conn.wait_closed()

    async with trio.open_nursery() as outer:
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(Echo) as site:
                conn = await outer.start(stay, site)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail)
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        await conn.wait_closed()
        assert conn.close_code == 1001


async def test_a_listener_that_others_close_ends_nothing_else() -> None:
    """It is logged; connections and other listeners continue."""
    listeners = [MemoryListener(), MemoryListener()]
    with trio.fail_after(300):
        async with (
            serve(Echo, listeners=listeners),
            connect("ws://memory.test/", stream=listeners[0].open_stream) as conn,
        ):
            await listeners[0].aclose()
            await trio.testing.wait_all_tasks_blocked()
            await conn.ping()
            async with connect("ws://memory.test/", stream=listeners[1].open_stream) as other:
                await other.ping()


async def test_a_heartbeat_in_messages_works_on_a_server(autojump_clock: object) -> None:
    """A client that does not answer the heartbeat is dropped."""
    beat = MessageHeartbeat(message=lambda: "beat", is_answer=lambda message: message == "beating")
    async with serving(Echo, ping_interval=5, ping_timeout=5, heartbeat=beat) as site:
        began = trio.current_time()
        client = await site.upgraded()
        assert await client.frame() == (0x81, b"beat")
        assert await client.everything() == b""
        assert trio.current_time() - began == pytest.approx(10)
