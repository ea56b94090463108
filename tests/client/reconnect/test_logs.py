"""The logger ``trioglock.client``: one INFO line for each loss, attempt and comeback."""

from __future__ import annotations

import logging
from typing import Any

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
    ConnectError,
    ConnectFailed,
    ConnectionClosed,
    Disconnect,
    MemoryTransport,
    NativeTransport,
    Reconnect,
    TrioWebsocketTransport,
    connect,
    serve,
)


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(one.name, one.levelname) for one in caplog.records} <= {("trioglock.client", "INFO")}
    return [one.getMessage() for one in caplog.records]


async def test_fault_34_a_client_logs_losses_attempts_and_comebacks(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """In the words of the command line."""
    net = MemoryTransport()
    async with joined(net, name="feed") as conn:
        far = await net.accept()
        net.refuse_next(refusal(503))
        await remote_close(far, 1012, "restart")
        far = await net.accept()
        await conn.reconnect()
        await net.accept()
    assert logged(caplog) == [
        f"feed: connected to {URL}",
        "feed: closed by the peer: 1012 restart; next attempt in 1.0 s",
        "feed: could not connect: the server refused the handshake: 503; next attempt in 2.0 s",
        f"feed: reconnected to {URL}",
        "feed: closed: 1000; the peer did not answer; reconnecting now",
        f"feed: reconnected to {URL}",
    ]


async def test_fault_34_the_first_connection(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It may need several attempts, or fail."""
    net = MemoryTransport()
    net.refuse_next(ConnectFailed("cannot connect"))
    async with joined(net, name="feed"):
        pass
    assert logged(caplog) == [
        "feed: could not connect: cannot connect; next attempt in 1.0 s",
        f"feed: connected to {URL}",
    ]
    caplog.clear()
    for _ in range(2):
        net.refuse_next(refusal(503))
    with pytest.raises(ConnectError):
        async with joined(net, name="feed", reconnect=policy(max_attempts=2)):
            pass
    failed = "could not connect: the server refused the handshake: 503"
    assert logged(caplog) == [
        f"feed: {failed}; next attempt in 1.0 s",
        f"feed: gave up after 2 attempts; {failed}",
    ]


async def test_a_first_attempt_that_is_repeated_without_limit_is_a_warning(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Python shows it by default; without it, the program would wait silently."""
    net = MemoryTransport()
    for _ in range(2):
        net.refuse_next(ConnectFailed("cannot connect"))
    async with joined(net, name="feed", reconnect=policy(max_attempts=None)):
        net.refuse_next(ConnectFailed("cannot connect"))
        await (await net.accept()).aclose()
        await net.accept()
    failed = "feed: could not connect: cannot connect; next attempt in"
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        f"{failed} 1.0 s"
    ]
    assert caplog.messages[1] == f"{failed} 2.0 s"


@pytest.mark.parametrize("policy_or_hook", ["policy", "hook", "neither"])
async def test_fault_34_a_loss_is_logged_once(
    policy_or_hook: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Also without a policy; a normal end is logged only with a policy."""

    class Hook(Notes):
        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            return Reconnect() if len(net.dialed) == 1 else None, state

    net = MemoryTransport()
    socket = Hook() if policy_or_hook == "hook" else Notes()
    reconnect = policy() if policy_or_hook == "policy" else False
    async with joined(net, socket, name="feed", reconnect=reconnect) as conn:
        await drop(await net.accept())
        if policy_or_hook == "neither":
            await conn.wait_closed()
        else:
            await remote_close(await net.accept(), 1000)
    lost = "feed: connection lost: the stream ended without a Close frame"
    if policy_or_hook == "neither":
        assert logged(caplog) == [f"feed: connected to {URL}", lost]
    else:
        [first, second, third, *last] = logged(caplog)
        assert first == f"feed: connected to {URL}"
        assert second.startswith(f"{lost}; ")
        assert third == f"feed: reconnected to {URL}"
        closed = ["feed: closed by the peer: 1000; not reconnecting"]
        assert last == (closed if policy_or_hook == "policy" else [])


@pytest.mark.parametrize(
    ("lasts", "text"),
    [
        (1, "3 attempts, all of which connected, but for less than 2 seconds (stable_after); "),
        (3, "3 attempts, 2 of which connected, but for less than 2 seconds (stable_after); "),
    ],
)
async def test_links_that_were_too_short_are_logged(
    lasts: float, text: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Attempts that succeeded do not look like failed ones; the first link may be stable."""
    net = MemoryTransport()
    backoff = policy(max_attempts=3, stable_after=2)
    async with joined(net, name="feed", reconnect=backoff) as conn:
        for seconds in (lasts, 1, 1):
            far = await net.accept()
            await trio.sleep(seconds)
            await remote_close(far, 1001)
        await conn.wait_closed()
    assert logged(caplog)[-1] == f"feed: gave up after {text}closed by the peer: 1001"


@pytest.mark.parametrize("reconnects", [True, False])
@pytest.mark.parametrize("end", ["1000", "1005", "4000", "aclose", "block"])
async def test_a_final_close_is_logged(
    end: str, reconnects: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With a policy also a normal one, but not a close by the program itself."""
    net = MemoryTransport()
    backoff = policy(retryable=lambda _: False) if reconnects else False
    async with joined(net, name="feed", reconnect=backoff) as conn:
        far = await net.accept()
        if end == "aclose":
            await conn.aclose()
        elif end != "block":
            await remote_close(far, int(end), "bye" if end != "1005" else "")
            await conn.wait_closed()
    lines = logged(caplog)[1:]
    text = "without a code" if end == "1005" else f"{end} bye"
    if end in ("aclose", "block") or not (reconnects or end == "4000"):
        assert lines == []
    else:
        [line] = lines
        suffix = "; not reconnecting" if reconnects else ""
        assert line.replace("peer: ", "peer ") == f"feed: closed by the peer {text}{suffix}"


async def test_a_close_with_1000_is_final(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The default policy does not reconnect, and the log says so."""
    net = MemoryTransport()
    async with joined(net, name="feed", reconnect=True) as conn:
        await remote_close(await net.accept(), 1000)
        await conn.wait_closed()
    assert logged(caplog)[1:] == ["feed: closed by the peer: 1000; not reconnecting"]


async def test_a_stall_is_logged(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Like a loss, with its reason."""
    net = MemoryTransport()
    async with joined(net, name="feed", stall_timeout=5):
        await trio.sleep(7)
    assert logged(caplog) == [
        f"feed: connected to {URL}",
        "feed: stalled: the peer sent no data for 5 seconds; next attempt in 1.0 s",
        f"feed: reconnected to {URL}",
    ]


async def test_a_url_is_logged_without_secrets(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The user information and the values in the query are hidden."""
    net = MemoryTransport()
    url = "ws://al:hunter2@feed.example/private?token=hunter2"
    async with connect(url, transport=net, name="feed"):
        await (await net.accept()).aclose()
    [line, *_] = logged(caplog)
    assert line.startswith("feed: connected to ws://feed.example/private")
    assert "hunter2" not in line


async def test_fault_34_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither of the URL nor of a header."""
    with trio.fail_after(300), pytest.raises(ConnectError):
        async with connect(
            "ws://al:hunter2@127.0.0.1:1/private?token=hunter2",
            additional_headers={"Authorization": "Bearer hunter2"},
            subprotocols=["bearer.hunter2"],
            reconnect=policy(initial=0.001, max_attempts=3),
        ):
            pass
    lines = logged(caplog)
    assert len(lines) == 3
    assert all("127.0.0.1" in line for line in lines)
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize("transport", [NativeTransport, TrioWebsocketTransport])
async def test_fault_04_a_message_over_the_limit_says_so(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt backs off, and error, reason, report and log name ``max_size``."""
    joins = 0

    async def handler(conn: Any) -> None:
        nonlocal joins
        joins += 1
        await conn.send("x" * 2000)
        await conn.wait_closed()

    notes = Notes()
    backoff = policy(initial=0.01, multiplier=3, max_attempts=4)
    with trio.fail_after(300):
        async with serve(handler, "127.0.0.1", 0) as server:
            began = trio.current_time()
            async with connect(
                f"ws://127.0.0.1:{server.port}/",
                notes,
                transport=transport(),
                max_size=1000,
                reconnect=backoff,
                name="feed",
            ) as conn:
                with pytest.raises(ConnectionClosed) as caught:
                    async for _ in conn:
                        pass
                latest = str(conn.status_report().latest_end)
    assert trio.current_time() - began >= 0.01 + 0.03 + 0.09
    assert joins == 4
    text = "limit exceeded by the peer: 1009 a message is larger than max_size (1000 bytes)"
    assert str(caught.value) == str(notes.losses[0]) == latest == text
    assert caught.value.code == 1009
    gave_up = "gave up after 4 attempts, all of which connected, but for less than 10 seconds"
    assert str(caught.value.__cause__) == f"{gave_up} (stable_after); {text}"
    assert [line for line in logged(caplog) if "connected to ws://" not in line] == [
        f"feed: {text}; reconnecting now",
        f"feed: {text}; reconnecting now",
        f"feed: {text}; next attempt in 0.1 s",
        f"feed: {gave_up} (stable_after); {text}",
    ]


@pytest.mark.parametrize("transport", [NativeTransport, TrioWebsocketTransport])
@pytest.mark.parametrize("own", [NativeTransport, TrioWebsocketTransport])
async def test_fault_04_the_peer_learns_the_reason(
    transport: type[NativeTransport | TrioWebsocketTransport],
    own: type[NativeTransport | TrioWebsocketTransport],
) -> None:
    """The Close frame has it too, and both sides know whose limit it was."""
    async with (
        serve(Notes, "127.0.0.1", 0, max_size=1000, transport=transport()) as server,
        connect(f"ws://127.0.0.1:{server.port}/", transport=own()) as conn,
    ):
        await conn.send("x" * 2000)
        with pytest.raises(ConnectionClosed) as caught:
            await conn.receive()
    native = transport is NativeTransport
    reason = "a message is larger than max_size" if native else "Exceeded maximum message size"
    assert str(caught.value).startswith(f"closed by the peer: 1009 {reason}")
