"""Attempts: how many, how fast, and to which URL."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.client.reconnect.helpers import URL, Clock, Notes, drop, joined, policy, refusal
from trioglock import (
    Backoff,
    Close,
    ConnectFailed,
    ConnectionClosedError,
    Disconnect,
    HandshakeFailed,
    InvalidOption,
    InvalidURL,
    MemoryTransport,
    OpenTimeout,
    Reconnect,
    ReconnectFailed,
    RemoteClose,
    Status,
    TLSFailed,
)

# The first connection.


async def test_the_first_connection_is_tried_again(autojump_clock: Clock) -> None:
    """The block begins once an attempt has succeeded; each delay is the policy's."""
    net, notes = MemoryTransport(), Notes()
    for _ in range(3):
        net.refuse_next()
    async with joined(net, notes) as conn:
        assert trio.current_time() == 1 + 2 + 4
        assert conn.status is Status.OPEN
        assert conn.statistics().reconnects == 0
    assert len(net.dialed) == 4
    assert notes.begun == 1
    assert [(type(loss), loss.attempt) for loss in notes.losses[:-1]] == [
        (HandshakeFailed, 1), (HandshakeFailed, 2), (HandshakeFailed, 3),
    ]  # fmt: skip


async def test_true_means_the_default_policy(autojump_clock: Clock) -> None:
    """Ten attempts, each delay at most twice the one before."""
    net = MemoryTransport()
    for _ in range(10):
        net.refuse_next()
    with pytest.raises(ReconnectFailed) as caught:
        async with joined(net, reconnect=True):
            pass
    assert len(net.dialed) == len(caught.value.attempts) == 10
    assert trio.current_time() < 0.3 * (2**9 - 1)


async def test_without_a_policy_there_is_one_attempt(autojump_clock: Clock) -> None:
    """The failure itself is raised."""
    net = MemoryTransport()
    net.refuse_next()
    with pytest.raises(ConnectFailed):
        async with joined(net, reconnect=False):
            pass
    assert len(net.dialed) == 1


async def test_giving_up_on_the_first_connection(autojump_clock: Clock) -> None:
    """ReconnectFailed comes out of the block with every attempt's reason; its body never runs."""
    net, notes = MemoryTransport(), Notes()
    errors = [ConnectFailed("a"), refusal(503), OpenTimeout("c")]
    for error in errors:
        net.refuse_next(error)
    with pytest.raises(ReconnectFailed) as caught:
        async with joined(net, notes, reconnect=policy(max_attempts=3)):
            raise AssertionError("there was a connection")
    attempts = caught.value.attempts
    assert [reason.error for reason in attempts if isinstance(reason, HandshakeFailed)] == errors
    assert [reason.attempt for reason in attempts] == [1, 2, 3]
    assert (notes.begun, notes.ends) == (0, [])


@pytest.mark.parametrize("error", [refusal(401), TLSFailed("untrusted")], ids=repr)
async def test_what_is_final_comes_out_immediately(error: Exception, autojump_clock: Clock) -> None:
    """Unchanged, also after transient failures."""
    net = MemoryTransport()
    net.refuse_next()
    net.refuse_next(error)
    with pytest.raises(type(error)) as caught:
        async with joined(net):
            pass
    assert caught.value is error
    assert len(net.dialed) == 2


async def test_each_attempt_has_its_own_open_timeout(autojump_clock: Clock) -> None:
    """An attempt that hangs times out, and the next one succeeds."""
    asked: list[float] = []

    async def slow_at_first() -> str:
        asked.append(trio.current_time())
        if len(asked) == 1:
            await trio.sleep_forever()
        return URL

    async with joined(MemoryTransport(), url=slow_at_first, open_timeout=5):
        assert asked == [0, 6]


# Delays.


async def test_a_retry_after_is_honoured(autojump_clock: Clock) -> None:
    """It extends a delay, and never shortens one."""
    net = MemoryTransport()
    net.refuse_next(refusal(503, Retry_After="50"))
    net.refuse_next(refusal(429, Retry_After="1"))
    async with joined(net):
        assert trio.current_time() == 50 + 2


async def test_fault_49_no_delay_exceeds_the_maximum(autojump_clock: Clock) -> None:
    """Not even one that the server asks for; only the application may decide otherwise."""
    net = MemoryTransport()
    for _ in range(2):
        net.refuse_next(refusal(503, Retry_After="86400"))
    async with joined(net, reconnect=policy(maximum=1)):
        assert trio.current_time() == 2


async def test_fault_49_a_hook_may_exceed_the_maximum(autojump_clock: Clock) -> None:
    """The application decides."""

    class Patient(Notes):
        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            return Reconnect(delay=1000), state

    net = MemoryTransport()
    net.refuse_next(refusal(503, Retry_After="5"))
    async with joined(net, Patient(), reconnect=policy(maximum=1)):
        assert trio.current_time() == 1000


@pytest.mark.parametrize(("lasts", "delays"), [(9.9, [1, 2, 4]), (10, [1, 1, 1])])
async def test_only_a_stable_connection_begins_anew(
    lasts: float, delays: list[float], autojump_clock: Clock
) -> None:
    """The delays grow from loss to loss, unless it lasted ``stable_after`` seconds."""
    net = MemoryTransport()
    async with joined(net, reconnect=policy(stable_after=10)) as conn:
        for delay in delays:
            far = await net.accept()
            began = trio.current_time()
            await trio.sleep(lasts)
            await drop(far)
            while conn.status is not Status.OPEN:
                await trio.sleep(0.1)
            assert trio.current_time() - began == pytest.approx(lasts + delay, abs=0.2)


async def slam(net: MemoryTransport, code: int = 1008) -> None:
    """Accept and close immediately, again and again."""
    while True:
        far = await net.accept()
        await far.write([Close(code)])
        await far.send_eof()


@pytest.mark.parametrize(
    "reconnect", [True, Backoff(jitter="none", max_attempts=None)], ids=["True", "endless"]
)
async def test_scenario_05_no_storm(reconnect: bool | Backoff, autojump_clock: Clock) -> None:
    """A server that accepts and closes immediately sees at most 12 connections in a minute."""
    net = MemoryTransport()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slam, net)
            async with joined(net, reconnect=reconnect) as conn:
                await conn.wait_closed()
                await trio.sleep_forever()
    assert 2 <= len(net.dialed) <= 12


async def test_scenario_05_it_ends(autojump_clock: Clock) -> None:
    """The default policy gives up after ten connections to such a server."""
    net = MemoryTransport()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slam, net)
        async with joined(net, reconnect=True) as conn:
            with pytest.raises(ConnectionClosedError) as caught:
                await conn.receive()
        nursery.cancel_scope.cancel()
    assert len(net.dialed) == 10
    assert trio.current_time() <= 154
    gave_up = caught.value.__cause__
    assert isinstance(gave_up, ReconnectFailed)
    assert [type(reason) for reason in gave_up.attempts] == [RemoteClose] * 10


# Where to, and as whom.


async def test_scenario_26_url_and_headers_are_asked_every_time(autojump_clock: Clock) -> None:
    """Functions, plain or async, give a fresh address and a fresh token for every attempt."""
    tokens = iter(range(100))

    async def url() -> str:
        await trio.sleep(0.5)
        return f"ws://host-{next(tokens)}.test/"

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    net, notes = MemoryTransport(), Notes()
    net.refuse_next()
    async with joined(net, notes, url=url, additional_headers=headers) as conn:
        await drop(await net.accept())
        await net.accept()
        assert conn.url == "ws://host-4.test/"
    assert [dialed.url for dialed in net.dialed] == [
        "ws://host-0.test/", "ws://host-2.test/", "ws://host-4.test/",
    ]  # fmt: skip
    tokens_sent = [dialed.additional_headers["authorization"] for dialed in net.dialed]
    assert tokens_sent == ["Bearer 1", "Bearer 3", "Bearer 5"]
    assert [stream.url for stream in notes.streams] == ["ws://host-2.test/", "ws://host-4.test/"]


async def test_an_async_function_for_headers_and_a_plain_one_for_the_url(
    autojump_clock: Clock,
) -> None:
    """The reverse."""

    async def headers() -> list[tuple[str, str]]:
        await trio.sleep(0)
        return [("X-Token", "t")]

    net = MemoryTransport()
    async with joined(net, url=lambda: URL, additional_headers=headers) as conn:
        assert conn.handshake is not None
        assert conn.handshake.request_headers["x-token"] == "t"


async def test_an_os_error_of_such_a_function_may_pass(autojump_clock: Clock) -> None:
    """An OSError of a token function is transient."""
    calls = 0

    def url() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("the token server is down")
        return URL

    async with joined(MemoryTransport(), url=url):
        assert calls == 2


async def test_any_other_error_of_such_a_function_comes_out(autojump_clock: Clock) -> None:
    """Unchanged, and immediately."""
    error = KeyError("token")

    async def headers() -> dict[str, str]:
        raise error

    with pytest.raises(KeyError) as caught:
        async with joined(MemoryTransport(), additional_headers=headers):
            pass
    assert caught.value is error
    assert trio.current_time() == 0


async def test_what_such_a_function_returns_is_checked(autojump_clock: Clock) -> None:
    """An invalid URL or header is an error of the application, and final."""
    with pytest.raises(InvalidURL):
        async with joined(MemoryTransport(), url=lambda: "http://memory.test/"):
            pass
    with pytest.raises(InvalidOption, match="additional_headers"):
        async with joined(MemoryTransport(), additional_headers=lambda: {"a b": "c"}):
            pass
    wrong: Any = lambda: None  # noqa: E731
    with pytest.raises((InvalidURL, InvalidOption)):
        async with joined(MemoryTransport(), url=wrong):
            pass
