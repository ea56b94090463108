"""Closing handshakes with servers that others wrote, begun by either side."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from trioglock import Close, Connection, ConnectionClosedError, ConnectionClosedOK, RemoteClose

if TYPE_CHECKING:
    from tests.interop.peers import Dialer

pytest_plugins = ["tests.interop.peers"]

# trio-websocket is missing here: it always sends a code.
EMPTY_CLOSING = ["deflate", "native"]

# Only Node's ws lets a server close without a code.
EMPTY_CLOSED = ["node"]

ids = count()


async def iterate(conn: Connection[object]) -> list[object]:
    return [message async for message in conn]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "off"), (3210, "genug: \u20ac")])
async def test_the_server_is_told_code_and_reason(dial: Dialer, code: int, reason: str) -> None:
    """``aclose`` brings both to the server, and waits for its answer."""
    place = next(ids)
    async with dial(dial.url("closewait", id=place)) as conn:
        await conn.aclose(code, reason)
        assert conn.close_code != 1006
    async with dial(dial.url("lastclose", id=place)) as conn:
        assert await conn.receive() == f"{code} {reason}"


@pytest.mark.parametrize("client", EMPTY_CLOSING, indirect=True)
async def test_a_close_without_a_code_is_understood(dial: Dialer) -> None:
    """1005 stands for an empty Close frame, on the server's side too."""
    place = next(ids)
    async with dial(dial.url("closewait", id=place)) as conn:
        await conn.aclose(1005)
        assert conn.close_code != 1006
    async with dial(dial.url("lastclose", id=place)) as conn:
        assert await conn.receive() == "1005 "


async def test_leaving_the_block_tells_the_server_1000(dial: Dialer) -> None:
    """The end of the block is a clean close."""
    place = next(ids)
    async with dial(dial.url("closewait", id=place)) as conn:
        pass
    assert conn.close_code == 1000
    async with dial(dial.url("lastclose", id=place)) as conn:
        assert await conn.receive() == "1000 "


@pytest.mark.parametrize("code", [1000, 1001])
async def test_a_clean_close_of_the_server_ends_quietly(dial: Dialer, code: int) -> None:
    """1000 and 1001 end the loop; ``receive`` and ``send`` then raise ConnectionClosedOK."""
    async with dial(dial.url("close", code=code, reason="done")) as conn:
        await conn.send("go on")
        assert await iterate(conn) == []
        with pytest.raises(ConnectionClosedOK) as closed:
            await conn.receive()
        assert (closed.value.code, closed.value.reason) == (code, "done")
        with pytest.raises(ConnectionClosedOK):
            await conn.send("too late")
    assert (conn.close_code, conn.close_reason) == (code, "done")


@pytest.mark.parametrize("code", [1002, 1008, 1011, 3999, 4321])
async def test_any_other_close_of_the_server_is_an_error(dial: Dialer, code: int) -> None:
    """The loop raises ConnectionClosedError with the server's code and reason, and its cause."""
    async with dial(dial.url("close", code=code, reason="so nicht: \u20ac")) as conn:
        await conn.send("go on")
        with pytest.raises(ConnectionClosedError) as closed:
            await iterate(conn)
        assert closed.value.received == Close(code, "so nicht: \u20ac")
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError) as closed:
            await conn.receive()
        assert closed.value.cause == RemoteClose(code=code, reason="so nicht: \u20ac")
    assert (conn.close_code, conn.close_reason) == (code, "so nicht: \u20ac")


@pytest.mark.parametrize("server", EMPTY_CLOSED, indirect=True)
async def test_a_close_of_the_server_without_a_code_is_an_error(dial: Dialer) -> None:
    """An empty Close frame is 1005: not what ends a loop quietly."""
    async with dial("close") as conn:
        await conn.send("go on")
        with pytest.raises(ConnectionClosedError) as closed:
            await iterate(conn)
        assert closed.value.received == Close(1005)


async def test_a_message_right_before_the_close_is_delivered(dial: Dialer) -> None:
    """One message and an immediate close: the message is still there after the end."""
    async with dial("pushclose") as conn:
        await conn.wait_closed()
        assert await iterate(conn) == ["pushed"]
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
