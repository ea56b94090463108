"""Decisions: what ``handle_disconnect`` returns after each loss, and its effect."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import (
    URL,
    Clock,
    Notes,
    drop,
    frames,
    joined,
    policy,
    refusal,
    remote_close,
)
from trioglock import (
    Aborted,
    ConnectFailed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HookError,
    InvalidOption,
    LocalClose,
    MemoryTransport,
    Reconnect,
    RemoteClose,
    Status,
    Stop,
)

NEVER = False
"""Of ``reconnect``: there is no policy."""


class Decides(Notes):
    """Takes its decisions from a list, then has none."""

    def __init__(self, *decisions: Reconnect | Stop | None) -> None:
        super().__init__()
        self.decisions: Iterator[Reconnect | Stop | None] = iter(decisions)

    def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        self.losses.append(reason)
        return next(self.decisions, None), state


async def test_none_leaves_it_to_the_policy(autojump_clock: Clock) -> None:
    """With a policy it reconnects, without one it ends."""
    net, decides = MemoryTransport(), Decides()
    async with joined(net, decides):
        await drop(await net.accept())
        await net.accept()
    net = MemoryTransport()
    async with joined(net, Decides(), reconnect=NEVER) as conn:
        await drop(await net.accept())
        assert conn.status is Status.CLOSED
    assert len(net.dialed) == 1


async def test_stop_ends_it_whatever_the_policy_says(autojump_clock: Clock) -> None:
    """The loss is the reason of the end, without ReconnectFailed."""
    net, decides = MemoryTransport(), Decides(Stop())
    async with joined(net, decides) as conn:
        await drop(await net.accept())
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
    assert isinstance(caught.value.cause, ConnectionLost)
    assert caught.value.__cause__ is None
    assert [type(end) for end in decides.ends] == [ConnectionLost]
    assert len(net.dialed) == 1


async def test_stop_at_the_first_attempt(autojump_clock: Clock) -> None:
    """The error of the attempt is raised."""
    net = MemoryTransport()
    net.refuse_next(error := ConnectFailed("down"))
    with pytest.raises(ConnectFailed) as caught:
        async with joined(net, Decides(Stop())):
            pass
    assert caught.value is error


@pytest.mark.parametrize("lose", ["lost", "closed with 1000", "refused"])
async def test_reconnect_goes_on_without_a_policy(lose: str, autojump_clock: Clock) -> None:
    """Also after what is final by default."""
    net = MemoryTransport()
    if lose == "refused":
        net.refuse_next()
    async with joined(net, Decides(Reconnect(delay=3)), reconnect=NEVER) as conn:
        if lose == "lost":
            await drop(await net.accept())
        elif lose == "closed with 1000":
            await remote_close(await net.accept(), 1000)
        await (await net.accept()).write(["back"])
        assert await conn.receive() == "back"
        assert 3 <= trio.current_time() < 3.1


async def test_reconnect_has_delays_of_its_own_without_a_policy(autojump_clock: Clock) -> None:
    """Without ``delay`` they grow like those of the default policy, without a limit."""
    net = MemoryTransport()
    for _ in range(50):
        net.refuse_next()
    async with joined(net, Decides(*[Reconnect()] * 50), reconnect=NEVER):
        assert len(net.dialed) == 51
        assert 100 < trio.current_time() < 50 * 60


async def test_reconnect_follows_the_policys_delays(autojump_clock: Clock) -> None:
    """Without ``delay`` those of the policy are used, otherwise its own; 0 is immediate."""
    net = MemoryTransport()
    for _ in range(4):
        net.refuse_next()
    decides = Decides(Reconnect(), Reconnect(delay=10), Reconnect(delay=0), Reconnect())
    async with joined(net, decides):
        assert trio.current_time() == 1 + 10 + 0 + 2


async def test_fault_65_reconnect_changes_tls_and_the_timeout(autojump_clock: Clock) -> None:
    """For the next attempt and later ones; what is not given stays as it was."""
    first, second = ssl.create_default_context(), ssl.create_default_context()
    net, url = MemoryTransport(), "wss://memory.test/"
    decides = Decides(Reconnect(ssl_context=second), Reconnect(open_timeout=3), Reconnect(delay=0))
    async with joined(net, decides, url=url, reconnect=NEVER, ssl_context=first, open_timeout=5):
        for _ in range(3):
            await drop(await net.accept())
        await net.accept()
    used = [(options.ssl_context, options.open_timeout) for options in net.dialed]
    assert used == [(first, 5), (second, 5), (second, 3), (second, 3)]
    for wrong in ({"ssl_context": True}, {"open_timeout": 0}):
        with pytest.raises(InvalidOption, match=f"{next(iter(wrong))} must be"):
            Reconnect(**wrong)
    net = MemoryTransport()
    async with joined(net, Decides(Reconnect(ssl_context=second))) as conn:
        await drop(await net.accept())
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError, match="need a wss:// URL"):
            await conn.receive()


async def test_reconnect_honours_a_retry_after(autojump_clock: Clock) -> None:
    """Without ``delay`` Retry-After applies as for the policy."""
    net = MemoryTransport()
    net.refuse_next(refusal(503, Retry_After="50"))
    async with joined(net, Decides(Reconnect())):
        assert trio.current_time() == 50


async def test_delays_without_a_policy_begin_anew_too(autojump_clock: Clock) -> None:
    """After a connection that lasted, the next delay is short again."""
    net = MemoryTransport()
    async with joined(net, Decides(*[Reconnect()] * 20), reconnect=NEVER) as conn:
        for _ in range(20):
            far = await net.accept()
            await trio.sleep(100)
            await drop(far)
            lost_at = trio.current_time()
            while conn.status is not Status.OPEN:
                await trio.sleep(0.1)
            assert trio.current_time() - lost_at < 0.5
        conn.abort()


async def test_reconnect_outlasts_the_policys_attempts(autojump_clock: Clock) -> None:
    """The hook overrides ``max_attempts``."""
    net = MemoryTransport()
    for _ in range(5):
        net.refuse_next()
    decides = Decides(*[Reconnect()] * 5)
    async with joined(net, decides, reconnect=policy(max_attempts=2, maximum=7)):
        assert len(net.dialed) == 6


async def test_reconnect_changes_address_and_headers_for_good(autojump_clock: Clock) -> None:
    """For all later attempts, also those without headers of their own."""
    net = MemoryTransport()
    decides = Decides(
        Reconnect(url="ws://b.test/", delay=0),
        Reconnect(additional_headers={"X-Token": "2"}, delay=0),
        None,
    )
    async with joined(net, decides, additional_headers={"X-Token": "1"}) as conn:
        for _ in range(3):
            await drop(await net.accept())
        await net.accept()
        assert conn.url == "ws://b.test/"
    assert [dialed.url for dialed in net.dialed] == [URL, *["ws://b.test/"] * 3]
    tokens = [dialed.additional_headers["X-Token"] for dialed in net.dialed]
    assert tokens == ["1", "1", "2", "2"]


async def test_reconnect_replaces_functions_too(autojump_clock: Clock) -> None:
    """A URL from the hook replaces the function."""
    net, decides = MemoryTransport(), Decides(Reconnect(url="ws://b.test/", delay=0))
    async with joined(net, decides, url=lambda: URL):
        await drop(await net.accept())
        await net.accept()
    assert net.dialed[-1].url == "ws://b.test/"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reconnect(delay=-1),
        lambda: Reconnect(delay="1"),  # type: ignore[arg-type]
        lambda: Reconnect(delay=float("nan")),
        lambda: Reconnect(additional_headers={"Upgrade": "x"}),
        lambda: Reconnect(url=3),  # type: ignore[arg-type]
    ],
)
def test_a_bad_decision_is_refused(make: Callable[[], Reconnect]) -> None:
    """At its construction, with the reason."""
    with pytest.raises(InvalidOption):
        make()


async def test_a_bad_address_from_the_hook_ends_it(autojump_clock: Clock) -> None:
    """It is a failed attempt, reported to the hook, and final."""
    net, decides = MemoryTransport(), Decides(Reconnect(url="http://b.test/", delay=0))
    async with joined(net, decides) as conn:
        await drop(await net.accept())
        await conn.wait_closed()
    assert [type(loss) for loss in decides.losses] == [ConnectionLost, HandshakeFailed]


async def test_every_loss_is_told_once_with_its_attempt(autojump_clock: Clock) -> None:
    """Refused, closed and lost, in order; ``terminate`` gets the end once."""
    net, notes = MemoryTransport(), Notes()
    net.refuse_next()
    async with joined(net, notes) as conn:
        await remote_close(await net.accept(), 1012, "restart")
        far = await net.accept()
        net.refuse_next()
        await drop(far)
        await remote_close(await net.accept(), 1000, "done")
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
    losses = [(type(loss), loss.attempt) for loss in notes.losses]
    assert losses == [
        (HandshakeFailed, 1), (RemoteClose, 2), (ConnectionLost, 3),
        (HandshakeFailed, 4), (RemoteClose, 5),
    ]  # fmt: skip
    assert notes.ends == [RemoteClose(code=1000, reason="done", attempt=5)]


async def test_our_own_close_is_told_and_can_be_overruled_by_nobody(
    autojump_clock: Clock,
) -> None:
    """``Reconnect`` after ``aclose`` or the end of the block changes nothing."""
    net, decides = MemoryTransport(), Decides(Reconnect(delay=0))
    async with joined(net, decides, close_timeout=1):
        pass
    await trio.sleep(100)
    assert [type(loss) for loss in decides.losses] == [LocalClose]
    assert len(net.dialed) == 1


async def test_an_async_decision(autojump_clock: Clock) -> None:
    """``handle_disconnect`` may wait; messages are queued meanwhile."""

    class Slow(Notes):
        async def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            await trio.sleep(5)
            return Reconnect(delay=2), state + 100

    net = MemoryTransport()
    async with joined(net, Slow()) as conn:
        await drop(await net.accept())
        await conn.send("queued")
        far = await net.accept()
        assert trio.current_time() == 7
        assert await frames(far) == ["queued"]
        assert conn.state == 100
        conn.abort()


@pytest.mark.parametrize("end", ["aclose", "abort"])
async def test_an_end_during_the_decision(end: str, autojump_clock: Clock) -> None:
    """A hook that never returns is bounded by ``close_timeout`` and ended by ``abort``."""

    class Slow(Notes):
        async def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            await trio.sleep_forever()

    net, slow = MemoryTransport(), Slow()
    async with joined(net, slow, close_timeout=3) as conn:
        await drop(await net.accept())
        await trio.sleep(50)
        if end == "abort":
            conn.abort()
            await conn.wait_closed()
        else:
            await conn.aclose()
        assert trio.current_time() == (50 if end == "abort" else 53)
    assert [type(loss) for loss in slow.ends] == [Aborted if end == "abort" else LocalClose]
    assert len(net.dialed) == 1


async def test_status_during_the_decision(autojump_clock: Clock) -> None:
    """There is no link while an async hook decides: a ping raises instead of waiting."""

    class Slow(Notes):
        async def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            await trio.sleep(50)
            return None, state

    net = MemoryTransport()
    async with joined(net, Slow()) as conn:
        await drop(await net.accept())
        assert conn.status is Status.RECONNECTING
        with trio.fail_after(10), pytest.raises(ConnectionClosedError):
            await conn.ping()
        conn.abort()


async def test_a_decision_that_raises_ends_it(autojump_clock: Clock) -> None:
    """The block raises the hook's exception, and no attempt follows."""
    error = ValueError("undecided")

    class Broken(Notes):
        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            raise error

    net, broken = MemoryTransport(), Broken()
    with pytest.raises(ValueError, match="undecided") as caught:
        async with joined(net, broken):
            await drop(await net.accept())
            await trio.sleep_forever()
    assert caught.value is error
    assert [type(end) for end in broken.ends] in ([HookError], [ConnectionLost])
    assert len(net.dialed) == 1


async def test_a_retryable_that_raises_ends_it(autojump_clock: Clock) -> None:
    """It is an error of the application, raised by the block."""

    def broken(reason: Disconnect) -> bool:
        raise KeyError("retryable")

    net = MemoryTransport()
    with pytest.raises(KeyError, match="retryable"):
        async with joined(net, reconnect=policy(retryable=broken)):
            await drop(await net.accept())
            await trio.sleep_forever()
