"""Cancellation, with scenarios that fail in other libraries."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    HOST,
    URL,
    MakeTransport,
    RawPeer,
    every_transport,
    lockstep,
    raw_connection,
    shared_tls,
    unbounded,
)
from trioglock import connect


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    """Three tasks with deadlines at all times receive each message once."""
    total = 100
    got: list[str | bytes] = []
    async with raw_connection() as (conn, peer), trio.open_nursery() as nursery:

        async def impatient(seconds: float) -> None:
            while len(got) < total:
                with trio.move_on_after(seconds):
                    got.append(await conn.receive())

        for seconds in (0.25, 0.5, 0.75):
            nursery.start_soon(impatient, seconds)
        for number in range(total):
            await peer.text(str(number))
            await trio.sleep(0.25)
    assert sorted(map(int, got)) == list(range(total))


async def test_a_send_cancelled_while_it_waits_for_space_sends_nothing(
    autojump_clock: MockClock,
) -> None:
    """A message whose send was cancelled at a full send queue is never sent."""
    async with raw_connection(streams=lockstep, write_limit=10) as (conn, peer):
        await conn.send("0123456789")
        for _ in range(5):
            with trio.move_on_after(1) as scope:
                await conn.send("given up")
            assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.send, "kept")
            payloads = [(await peer.next()).payload for _ in range(2)]
        assert payloads == [b"0123456789", b"kept"]


async def give_up_connecting(transport: MakeTransport, stream: trio.abc.Stream, url: str) -> None:
    with trio.move_on_after(1) as scope:
        async with connect(
            url,
            transport=transport(),
            stream=stream,
            open_timeout=None,
            ssl_context=shared_tls().client if url.startswith("wss") else None,
        ):
            pytest.fail("nobody answers")
    assert scope.cancelled_caught


@pytest.mark.parametrize("url", [URL, f"wss://{HOST}/"], ids=["plain", "tls"])
@every_transport
async def test_cancelling_the_handshake_closes_the_stream(
    transport: MakeTransport, url: str, autojump_clock: MockClock
) -> None:
    """The server reads the request and does not answer."""
    near, far = unbounded()
    await give_up_connecting(transport, near, url)
    assert await far.receive_some()
    with trio.fail_after(1):
        assert await far.receive_some() == b""


async def test_cancelling_the_handshake_closes_the_socket() -> None:
    """The listener sees the end of the TCP stream."""
    with trio.fail_after(300):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def dial() -> None:
                    with scope:
                        async with connect(url):
                            pytest.fail("nobody answers")

                nursery.start_soon(dial)
                async with await listener.accept() as stream:
                    assert await stream.receive_some()
                    scope.cancel()
                    assert await stream.receive_some() == b""


@every_transport
async def test_connecting_in_a_cancelled_scope(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The body does not run, and the given stream is closed."""
    near, far = unbounded()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with connect(URL, transport=transport(), stream=near):
            pytest.fail("cancelled before")
    assert scope.cancelled_caught
    with trio.fail_after(1):
        while await far.receive_some():
            pass


@every_transport
async def test_leaving_inside_a_cancelled_scope(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The block ends immediately, without a closing handshake, and closes the stream."""
    near, far = unbounded()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with connect(URL, transport=transport(), stream=near, close_timeout=math.inf):
                scope.cancel()
        assert trio.current_time() == began
    with trio.fail_after(1):
        assert [frame.opcode for frame in await peer.read_all()] in ([], [CLOSE])
