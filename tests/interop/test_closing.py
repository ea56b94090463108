"""Closing handshakes with servers of other libraries, begun by either side."""

from __future__ import annotations

from itertools import count

import pytest

from tests.interop.peers import Dialer
from trioglock import Close, Connection, ConnectionClosedError, ConnectionClosedOK, RemoteClose

pytestmark = pytest.mark.slow

ids = count()


async def iterate(conn: Connection[object]) -> list[object]:
    return [message async for message in conn]


async def closed_with(dial: Dialer, code: int | None, reason: str = "") -> str:
    """Close with a code, or leave the block; return what the server received."""
    number = next(ids)
    async with dial(dial.url("closewait", id=number)) as conn:
        if code is not None:
            await conn.aclose(code, reason)
            assert conn.close_code != 1006
    if code is None:
        assert conn.close_code == 1000
    async with dial(dial.url("lastclose", id=number)) as conn:
        return str(await conn.receive())


async def test_the_server_receives_code_and_reason(dial: Dialer) -> None:
    """``aclose`` waits for the server's reply; leaving the block closes with 1000."""
    for code, reason in ((1000, ""), (1001, "off"), (3210, "genug: \u20ac")):
        assert await closed_with(dial, code, reason) == f"{code} {reason}"
    assert await closed_with(dial, None) == "1000 "


# trio-websocket always sends a code.
@pytest.mark.parametrize("client", ["deflate", "native"], indirect=True)
async def test_a_close_without_a_code(dial: Dialer) -> None:
    """1005 stands for an empty Close frame, also on the server's side."""
    assert await closed_with(dial, 1005) == "1005 "


async def test_a_clean_close_of_the_server(dial: Dialer) -> None:
    """1000 and 1001 end the loop; ``receive`` and ``send`` then raise ConnectionClosedOK."""
    for code in (1000, 1001):
        async with dial(dial.url("close", code=code, reason="done")) as conn:
            await conn.send("go on")
            assert await iterate(conn) == []
            with pytest.raises(ConnectionClosedOK) as closed:
                await conn.receive()
            assert (closed.value.code, closed.value.reason) == (code, "done")
            with pytest.raises(ConnectionClosedOK):
                await conn.send("too late")
        assert (conn.close_code, conn.close_reason) == (code, "done")


async def test_any_other_close_of_the_server_is_an_error(dial: Dialer) -> None:
    """The loop raises ConnectionClosedError with the server's code and reason, and its cause."""
    reason = "so nicht: \u20ac"
    for code in (1002, 1008, 1011, 3999, 4321):
        async with dial(dial.url("close", code=code, reason=reason)) as conn:
            await conn.send("go on")
            with pytest.raises(ConnectionClosedError) as closed:
                await iterate(conn)
            assert closed.value.received == Close(code, reason)
            await conn.wait_closed()
            with pytest.raises(ConnectionClosedError) as closed:
                await conn.receive()
            assert closed.value.cause == RemoteClose(code=code, reason=reason)
        assert (conn.close_code, conn.close_reason) == (code, reason)


# Only ws closes without a code.
@pytest.mark.parametrize("server", ["node"], indirect=True)
async def test_fault_32_a_close_of_the_server_without_a_code_is_normal(dial: Dialer) -> None:
    """An empty Close frame is 1005, which ends the loop quietly."""
    async with dial("close") as conn:
        await conn.send("go on")
        await iterate(conn)
        with pytest.raises(ConnectionClosedOK) as closed:
            await conn.receive()
        assert closed.value.received == Close(1005)


async def test_a_message_right_before_the_close_is_delivered(dial: Dialer) -> None:
    """One message and an immediate close: the message is still there after the end."""
    async with dial("pushclose") as conn:
        await conn.wait_closed()
        assert await iterate(conn) == ["pushed"]
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
