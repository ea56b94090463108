"""Failures of other libraries, for a server; numbered like the scenarios of the client.

Scenarios that do not depend on the role are in ``tests/connection``.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.server.helpers import LockstepListener, RawClient, Site, frame, serving
from trioglock import Connection, ConnectionClosedError, ConnectionClosedOK

CLOSE_1000 = frame(0x88, b"\x03\xe8")


class Held:
    """A handler that leaves the connection to the test."""

    def __init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[Connection[None]](1)

    async def __call__(self, conn: Connection[None]) -> None:
        await self._give.send(conn)
        await trio.sleep_forever()

    async def accept(self, site: Site) -> tuple[RawClient, Connection[None]]:
        """A client, and the server's side of its connection."""
        client = await site.upgraded()
        return client, await self._take.receive()


async def test_7_a_ping_behind_unread_messages_is_answered(autojump_clock: object) -> None:
    """Five messages that no handler receives, then a ping."""
    held = Held()
    async with serving(held, shutdown_timeout=1) as site:
        client, _ = await held.accept(site)
        await client.send(frame(0x81, b"unread") * 5 + frame(0x89, b"there?"))
        assert await client.frame() == (0x8A, b"there?")
        await client.stream.aclose()


async def test_10_a_message_and_an_immediate_close_are_both_seen() -> None:
    """Messages before the Close frame stay readable, and the reply is 1000."""
    got: list[str | bytes] = []

    async def late(conn: Connection[None]) -> None:
        await conn.wait_closed()
        got.extend([message async for message in conn])

    async with serving(late) as site:
        client = await site.upgraded()
        await client.send(frame(0x81, b"last words") + CLOSE_1000)
        assert await client.close_code() == 1000
        assert await client.everything() == b""
    assert got == ["last words"]


async def test_13_an_unread_close_frame_cannot_extend_the_close(
    autojump_clock: object,
) -> None:
    """The Close frame is never written, and the deadline still applies."""
    held = Held()
    listener = LockstepListener()
    async with serving(held, listener, close_timeout=3, shutdown_timeout=1) as site:
        client, conn = await held.accept(site)
        await conn.send("unread")
        began = trio.current_time()
        await conn.aclose()
        assert trio.current_time() - began == pytest.approx(3)
        await client.stream.aclose()


async def test_14_both_close_at_once_with_different_codes(autojump_clock: object) -> None:
    """Neither side hangs; each side has the other's code."""
    held = Held()
    async with serving(held, shutdown_timeout=1) as site:
        client, conn = await held.accept(site)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose, 4001)
            await client.send(frame(0x88, (4002).to_bytes(2, "big")))
            assert await client.close_code() in (4001, 4002)
            assert await client.everything() == b""
        assert trio.current_time() == began
        assert conn.close_code == 4002


async def test_15_a_silent_client_is_dropped_and_its_receiver_woken(
    autojump_clock: object,
) -> None:
    """After ping_interval and ping_timeout; the close is not clean."""
    errors: list[ConnectionClosedError] = []

    async def waiting(conn: Connection[None]) -> None:
        try:
            await conn.receive()
        except ConnectionClosedError as error:
            errors.append(error)

    async with serving(waiting, ping_interval=4, ping_timeout=2) as site:
        client = await site.upgraded()
        began = trio.current_time()
        while await client.stream.receive_some():
            pass
        assert trio.current_time() - began == pytest.approx(6)
        await client.stream.aclose()
    assert [error.code for error in errors] == [1006]


async def test_the_server_ends_the_stream_after_the_closing_handshake(
    autojump_clock: object,
) -> None:
    """Immediately, whichever side began: clients wait for it (RFC 6455, section 7.1.1)."""
    held = Held()
    async with serving(held, shutdown_timeout=0.1) as site:
        for server_first in (True, False):
            client, conn = await held.accept(site)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                if server_first:
                    nursery.start_soon(conn.aclose)
                    assert await client.close_code() == 1000
                await client.send(CLOSE_1000)
                if not server_first:
                    assert await client.close_code() == 1000
                assert await client.stream.receive_some() == b""
                await client.stream.aclose()
                await conn.wait_closed()
            assert trio.current_time() - began < 0.5
            with pytest.raises(ConnectionClosedOK):
                await conn.receive()
