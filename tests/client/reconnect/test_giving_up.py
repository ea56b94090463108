"""The end of reconnecting: final reasons, the exceptions, and no further attempts."""

from __future__ import annotations

import pytest
import trio

from tests.client.reconnect.helpers import (
    URL,
    Clock,
    Notes,
    drop,
    joined,
    policy,
    refusal,
    remote_close,
)
from trioglock import (
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HandshakeRefused,
    InvalidURL,
    MemoryTransport,
    ReconnectFailed,
    RemoteClose,
    Status,
    is_transient,
)


async def test_giving_up_later_closes_the_connection(autojump_clock: Clock) -> None:
    """ConnectionClosedError has the reason of the last failure, ReconnectFailed is its cause."""
    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes, reconnect=policy(max_attempts=3)) as conn:
        far = await net.accept()
        net.refuse_next()
        net.refuse_next(refusal(502))
        await drop(far)
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        with pytest.raises(ConnectionClosedError):
            await conn.send("too late")
        assert (conn.status, conn.close_code) == (Status.CLOSED, 1006)
    gave_up = caught.value.__cause__
    assert isinstance(gave_up, ReconnectFailed)
    assert [type(reason) for reason in gave_up.attempts] == [
        ConnectionLost,
        HandshakeFailed,
        HandshakeFailed,
    ]
    assert caught.value.cause == gave_up.attempts[-1] == notes.ends[0]
    assert str(gave_up).startswith("gave up after 3 attempts")
    assert len(net.dialed) == len(notes.losses) == 3


async def test_what_was_queued_is_told_at_the_end(autojump_clock: Clock) -> None:
    """Messages of an outage that never ends are in ``unsent``."""
    net = MemoryTransport()
    async with joined(net, reconnect=policy(max_attempts=2)) as conn:
        far = await net.accept()
        net.refuse_next()
        await drop(far)
        await conn.send("a")
        await conn.send("b")
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.unsent == ("a", "b")
        assert conn.statistics().unsent == 2


@pytest.mark.parametrize("comes_back", [True, False])
async def test_giving_up_on_a_server_that_went_away_is_an_error(
    comes_back: bool, autojump_clock: Clock
) -> None:
    """1001 is an error if reconnecting failed: the loop raises."""
    net = MemoryTransport()
    async with joined(net, reconnect=policy(max_attempts=3)) as conn:
        for _ in range(3 if comes_back else 1):
            far = await net.accept()
            if not comes_back:
                net.refuse_next()
                net.refuse_next()
            await remote_close(far, 1001, "going away")
        with pytest.raises(ConnectionClosedError) as caught:
            async for _ in conn:
                pass
    assert isinstance(caught.value.__cause__, ReconnectFailed)
    assert len(net.dialed) == 3


async def test_a_final_refusal_later_closes_the_connection(autojump_clock: Clock) -> None:
    """The error has the reason, and its exception as ``__cause__``."""
    net = MemoryTransport()
    async with joined(net) as conn:
        far = await net.accept()
        net.refuse_next(refusal(403))
        await drop(far)
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
    assert isinstance(caught.value.cause, HandshakeFailed)
    assert caught.value.__cause__ is caught.value.cause.error
    assert len(net.dialed) == 2


@pytest.mark.parametrize("use", ["loop", "receive"])
@pytest.mark.parametrize("code", [1000, 1001, 1005])
@pytest.mark.parametrize("error", [refusal(403), KeyError("token"), InvalidURL("bad")])
async def test_fault_03_the_latest_failure_decides(
    error: Exception, code: int, use: str, autojump_clock: Clock
) -> None:
    """A normal close of the link before is not the end of the connection."""
    net = MemoryTransport()
    failing = False

    def url() -> str:
        if failing and not isinstance(error, HandshakeRefused):
            raise error
        return URL

    async def close_for_good() -> None:
        nonlocal failing
        far = await net.accept()
        failing = True
        if isinstance(error, HandshakeRefused):
            net.refuse_next(error)
        await remote_close(far, code)

    def retryable(reason: Disconnect) -> bool:
        return is_transient(reason) or isinstance(reason, RemoteClose)

    notes = Notes()
    reconnect = policy(retryable=retryable)
    with pytest.raises(ConnectionClosedError) as caught, trio.fail_after(1000):
        async with joined(net, notes, url=url, reconnect=reconnect) as conn:
            await close_for_good()
            if use == "receive":
                await conn.receive()
            async for _ in conn:
                pass
    assert caught.value.__cause__ is error
    assert caught.value.cause == notes.ends[-1] == HandshakeFailed(error=error, attempt=2)
    assert (caught.value.code, caught.value.received) == (1006, None)


async def test_a_remote_close_with_1000_is_final(autojump_clock: Clock) -> None:
    """The peer has finished: the loop ends, and no attempt follows."""
    net = MemoryTransport()
    async with joined(net) as conn:
        await remote_close(await net.accept(), 1000, "done")
        assert [message async for message in conn] == []
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
        await trio.sleep(1000)
    assert len(net.dialed) == 1


@pytest.mark.parametrize("code", [1001, 1005, 1008, 1011, 1012, 4000])
async def test_fault_32_any_other_remote_close_is_not(code: int, autojump_clock: Clock) -> None:
    """It is confirmed, and the next connection comes after the delay."""
    net = MemoryTransport()
    async with joined(net):
        await remote_close(await net.accept(), code)
        await net.accept()
        assert 1 <= trio.current_time() < 2


async def test_the_decision_can_be_replaced(autojump_clock: Clock) -> None:
    """``retryable`` gets each reason and decides."""
    seen: list[Disconnect] = []

    def retryable(reason: Disconnect) -> bool:
        seen.append(reason)
        return not isinstance(reason, ConnectionLost)

    net = MemoryTransport()
    net.refuse_next(refusal(404))
    async with joined(net, reconnect=policy(retryable=retryable)) as conn:
        await remote_close(await net.accept(), 1000)
        await drop(await net.accept())
        await conn.wait_closed()
    assert len(net.dialed) == 3
    kinds = [type(reason) for reason in seen]
    assert [kind for kind in (HandshakeFailed, RemoteClose, ConnectionLost) if kind in kinds] == [
        HandshakeFailed, RemoteClose, ConnectionLost,
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["leave", "aclose", "abort"])
async def test_scenario_27_no_attempt_after_the_end(end: str, autojump_clock: Clock) -> None:
    """No attempt follows a success or the end of the block."""
    net = MemoryTransport()
    net.refuse_next()
    async with joined(net, close_timeout=1) as conn:
        await trio.sleep(1000)
        assert len(net.dialed) == 2
        if end == "aclose":
            await conn.aclose()
        elif end == "abort":
            conn.abort()
            await conn.wait_closed()
    await trio.sleep(1000)
    assert len(net.dialed) == 2
