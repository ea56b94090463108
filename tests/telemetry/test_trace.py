"""The trace: a line for each step through logging, and nothing while it is off."""

from __future__ import annotations

import io
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import URL, linked, wait_for_hooks
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionLost,
    HandshakeRefused,
    Headers,
    HeartbeatTimeout,
    LocalClose,
    MemoryTransport,
    Ping,
    PreparedMessage,
    Socket,
    connect,
    serve,
)
from trioglock.frames import Pong
from trioglock.telemetry import Event, EventEmitter
from trioglock.testing import MemoryLink, MockPeer, MockServer, echo

LOGGER = logging.getLogger("trioglock.trace")
LONG_PING = Ping(b"\x00" * 125)


@pytest.fixture(autouse=True)
def untouched_logging(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does to the logger is undone."""
    level, handlers, propagate = LOGGER.level, LOGGER.handlers[:], LOGGER.propagate
    yield
    LOGGER.setLevel(level)
    LOGGER.handlers[:] = handlers
    LOGGER.propagate = propagate


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER.name]


def emitter(name: str = "conn", *, traced: bool = True) -> EventEmitter:
    return EventEmitter(name, of="client", traced=traced)


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise AssertionError("looked at although the trace is off")

    __str__ = __repr__


def test_without_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    """No line is logged, and no repr is created."""
    off = emitter(traced=False)
    assert not off.emits_frames
    off.connect_failed(1, Unprintable(), 1.0)
    off.trace(on=True)
    off.trace(on=False)
    assert not off.emits_frames
    off.connect_failed(1, Unprintable(), 1.0)
    off.frames_sent(str(1 // 0) for _ in range(1))
    assert lines(caplog) == []


def test_a_line_starts_with_name_and_number(caplog: pytest.LogCaptureFixture) -> None:
    """Names may be equal, numbers are unique; the number is not repeated."""
    named, other, nameless = (
        emitter("shop"),
        emitter("shop"),
        EventEmitter(None, of="host", traced=True),
    )
    for one in (named, other, nameless):
        one.connect_started(1)
    numbers = [one.connection.id for one in (named, other, nameless)]
    assert len(set(numbers)) == 3
    assert lines(caplog) == [
        f"shop#{numbers[0]} attempting to connect",
        f"shop#{numbers[1]} attempting to connect",
        f"host#{numbers[2]} attempting to connect",
    ]
    assert nameless.connection.name == f"host#{numbers[2]}"


REFUSED = HandshakeRefused(403, Headers(), phrase="Forbidden")
LOST = ConnectionLost(error=OSError("reset"))


@pytest.mark.parametrize(
    ("tell", "line"),
    [
        (lambda p: p.connect_failed(1, REFUSED, 1.0),
         "failed to connect: the server refused the handshake: 403 Forbidden"),
        (lambda p: p.frames_sent(["hi"]), "sending frame: 'hi'"),
        (lambda p: p.frames_sent([PreparedMessage(b"hi")]), "sending frame: b'hi'"),
        (lambda p: p.frames_sent([Ping(b"x")]), "sending frame: Ping(payload=b'x')"),
        (lambda p: p.frames_sent([Close(1001, "bye")]), "sending close frame: 1001 bye"),
        (lambda p: p.frames_received([b"\x00"]), "received frame: b'\\x00'"),
        (lambda p: p.frames_received([Pong(b"x")]), "received frame: Pong(payload=b'x')"),
        (lambda p: p.frames_received([Close(1000)]), "received close frame: 1000"),
        (lambda p: p.hook_replied("handle_ping", [Pong()]), "replying from handle_ping with pong"),
        (lambda p: p.hook_replied("handle_cast", ["x"]), "replying from handle_cast with 'x'"),
        (lambda p: p.hook_failed("A.handle_send", ValueError("no"), fatal=False),
         "A.handle_send raised ValueError('no')"),
        (lambda p: p.hook_failed("", ValueError("no"), fatal=True),
         "a task raised ValueError('no')"),
        (lambda p: p.close_started("local", Close(1000)), "closing with local reason: 1000"),
        (lambda p: p.close_started("remote", Close(4000, "a\nb")),
         "closing with remote reason: 4000 a\\nb"),
        (lambda p: p.messages_dropped([{"x": 1}]), "dropped message: {'x': 1}"),
        (lambda p: p.heartbeat_missed(HeartbeatTimeout(silence=20)),
         "heartbeat timeout: the peer sent nothing for 20 seconds"),
        (lambda p: p.heartbeat_missed(HeartbeatTimeout(silence=60, writing=True)),
         "heartbeat timeout: the peer read nothing for 60 seconds"),
        (lambda p: p.link_closed(LOST, 1.0, forced=False), "connection lost: reset"),
        (lambda p: p.link_closed(ConnectionLost(), 1.0, forced=False), "connection lost"),
        (lambda p: p.link_closed(LocalClose(), 1.0, forced=True),
         "forcefully closed the connection because the peer took too long"),
        (lambda p: p.reconnect_scheduled(LocalClose(), 2, 0.30001, logging.INFO),
         "reconnecting in 0.3 seconds"),
    ],
)  # fmt: skip
def test_each_event_has_its_line(
    tell: Callable[[EventEmitter], None], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The level is DEBUG, and the record has the event."""
    traced = emitter()
    tell(traced)
    assert lines(caplog) == [f"{traced.connection} {line}"]
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    event = record.__dict__["event"]
    assert isinstance(event, Event)
    assert event.connection is traced.connection


def test_events_without_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Sent pongs, and the end of a connection that was closed, are shown before."""
    traced = emitter()
    traced.frames_sent([Pong(b"x")])
    traced.link_closed(LocalClose(), 1.0, forced=False)
    traced.terminated(LocalClose())
    assert lines(caplog) == []


def test_it_can_be_started_later(caplog: pytest.LogCaptureFixture) -> None:
    """Each connection has its own trace."""
    first, second = emitter("first", traced=False), emitter("second", traced=False)
    first.trace(on=True)
    for one in (first, second):
        one.connect_started(1)
    assert (first.emits_frames, second.emits_frames) == (True, False)
    assert lines(caplog) == [f"{first.connection} attempting to connect"]


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("x" * 80, repr("x" * 80)),
        ("x" * 81, f"{'x' * 80!r}... (81 characters)"),
        (b"y" * 2**20, f"{b'y' * 80!r}... ({2**20} bytes)"),
        (LONG_PING, f"{LONG_PING!r:.160}..."),
        ("a\nb", "'a\\nb'"),
    ],
    ids=["as long as fits", "text", "binary", "ping", "several lines"],
)
def test_long_payloads_are_shortened(
    item: Any, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The beginning and the length are shown."""
    traced = emitter()
    traced.frames_sent([item])
    assert lines(caplog) == [f"{traced.connection} sending frame: {shown}"]


def unconfigure() -> None:
    """As in a program that has not configured logging; within a test, for pytest has its say."""
    LOGGER.handlers[:] = []
    LOGGER.propagate = False
    LOGGER.setLevel(logging.WARNING)


def test_without_any_handler_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """If logging is not configured, each line is written once, without colors."""
    unconfigure()
    emitter("first")
    second = emitter("second")
    second.trace(on=True)
    second.connect_started(1)
    assert capsys.readouterr().err == f"{second.connection} attempting to connect\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colors_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of event has its own color."""
    unconfigure()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    traced = emitter()
    traced.frames_sent(["hi"])
    traced.frames_received(["hi"])
    sent, received = terminal.getvalue().splitlines()
    assert sent == f"\x1b[32m{traced.connection} sending frame: 'hi'\x1b[0m"
    assert received == f"\x1b[36m{traced.connection} received frame: 'hi'\x1b[0m"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR disables colors, see no-color.org."""
    unconfigure()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    emitter().frames_sent(["hi"])
    assert "\x1b" not in terminal.getvalue()


def test_a_configured_handler(capsys: pytest.CaptureFixture[str]) -> None:
    """No second handler is added."""
    LOGGER.handlers[:] = [logging.NullHandler()]
    LOGGER.propagate = False
    emitter().connect_started(1)
    assert len(LOGGER.handlers) == 1
    assert capsys.readouterr().err == ""


class Echo(Socket[None]):
    """Closes when its last message comes back, and handles pings."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return (Close(1000) if frame == "Close the things!" else None), state

    def handle_ping(self, payload: bytes, state: None) -> tuple[Any, None]:
        return None, state


def steps(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the connection "echo", without its name and number."""
    found = (re.fullmatch(r"echo#\d+ (.*)", text) for text in lines(caplog))
    return [line[1] for line in found if line]


async def echo_peer(far: MemoryLink) -> None:
    """Sends data back, pings after the first message, and does not answer Close."""
    pinged = False
    while events := await far.receive():
        for event in events:
            if isinstance(event, list):
                await far.write(event)
                if not pinged:
                    pinged = True
                    await far.write([Ping(b"")])


async def test_the_trace_of_the_echo_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step is a line: connecting, frames, the close and the timeout."""
    async with linked(Echo(), trace=True, name="echo", close_timeout=5) as (conn, far):
        conn.start_soon(echo_peer, far)
        await conn.send("Hello")
        await wait_for_hooks()
        await conn.send("Close the things!")
        await conn.wait_closed()
    expected = [
        "attempting to connect",
        "successfully connected",
        "sending frame: 'Hello'",
        "received frame: 'Hello'",
        "received frame: Ping",
        "replying from handle_ping with pong",
        "sending frame: 'Close the things!'",
        "received frame: 'Close the things!'",
        "closing with local reason: 1000",
        "sending close frame: 1000",
        "forcefully closed the connection because the peer took too long",
    ]
    got = steps(caplog)
    assert len(got) == len(expected)
    assert [line[: len(want)] for line, want in zip(got, expected, strict=True)] == expected


async def test_the_trace_of_a_reconnect(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss, the delays, the failed attempt and the new link."""
    transport = MemoryTransport()
    policy = Backoff(initial=2, jitter="none")
    async with connect(
        URL, transport=transport, reconnect=policy, ping_interval=None, trace=True, name="echo"
    ) as conn:
        await (await transport.accept()).aclose()
        transport.refuse_next()
        await transport.accept()
        await conn.send("still there")
        await wait_for_hooks()
        conn.abort()
    assert steps(caplog) == [
        "attempting to connect",
        "successfully connected",
        "connection lost",
        "reconnecting in 2 seconds",
        "attempting to connect",
        "failed to connect: refused by the test",
        "reconnecting in 4 seconds",
        "attempting to connect",
        "successfully connected",
        "sending frame: 'still there'",
    ]


async def test_the_trace_of_an_open_connection(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """``conn.trace()`` starts it, ``conn.trace(False)`` stops it."""
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        for on, message in ((False, "before"), (True, "during"), (False, "after")):
            conn.trace(on)
            await conn.send(message)
            assert await conn.receive() == message
    text = "\n".join(lines(caplog))
    assert "'during'" in text
    assert "before" not in text
    assert "after" not in text


async def test_a_peer_cannot_forge_lines(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Line breaks from the peer are escaped."""
    forged = "bye\nshop#1 received frame: 'forged'"

    async def script(peer: MockPeer) -> None:
        await peer.send(forged)
        await peer.close(4000, forged)

    async with (
        MockServer(script, memory=True) as server,
        connect(server.url, stream=server.open_stream, trace=True) as conn,
    ):
        assert await conn.receive() == forged
        await conn.wait_closed()
    assert conn.close_code == 4000
    assert [line for line in lines(caplog) if "\n" in line] == []


CONTROLS = "\n\r\0\x1b[31m\x85\x9b\u2028\u202e\u2066\ufeff\ud800"
LONG = CONTROLS * 2000
TOO_LONG = UnicodeDecodeError("utf-8", b"\xff" * 2**20, 0, 1, "invalid start byte")


class Wild(Exception):
    """Says what it is given, without asking."""

    def __repr__(self) -> str:
        return str(self.args[0])


@pytest.mark.parametrize(
    "tell",
    [
        lambda p: p.connect_failed(1, Wild(LONG), 1.0),
        lambda p: p.connect_failed(1, HandshakeRefused(400, Headers(), phrase=LONG), 1.0),
        lambda p: p.hook_failed("A.handle_send", Wild(LONG), fatal=False),
        lambda p: p.hook_failed("", TOO_LONG, fatal=True),
        lambda p: p.link_closed(ConnectionLost(error=Wild(LONG)), 1.0, forced=False),
        lambda p: p.close_started("remote", Close(4000, CONTROLS.replace("\ud800", "") * 4)),
        lambda p: p.frames_received([Close(4000, CONTROLS.replace("\ud800", "") * 4)]),
        lambda p: p.frames_received([LONG]),
        lambda p: p.frames_received([b"\xff\n" * 2**20]),
        lambda p: p.messages_dropped([Wild(LONG)]),
        lambda p: p.hook_replied("handle_cast", [LONG]),
    ],
)  # fmt: skip
def test_text_from_a_peer_is_one_short_line(
    tell: Callable[[EventEmitter], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a peer, a refusal or an error contains."""
    tell(emitter(name="a\nname"))
    [line] = lines(caplog)
    assert line.startswith("a\\nname#")
    assert line.isprintable()
    assert len(line) < 1100


@pytest.mark.parametrize(
    ("tell", "line"),
    [
        (lambda p: p.connect_failed(1, Unprintable(), 1.0),
         "failed to connect: <Unprintable whose str raises AssertionError>"),
        (lambda p: p.hook_failed("", Unprintable(), fatal=True),
         "a task raised <Unprintable whose repr raises AssertionError>"),
        (lambda p: p.link_closed(ConnectionLost(error=Unprintable()), 1.0, forced=False),
         "connection lost: <Unprintable whose str raises AssertionError>"),
        (lambda p: p.messages_dropped([Unprintable()]),
         "dropped message: <Unprintable whose repr raises AssertionError>"),
    ],
)  # fmt: skip
def test_values_whose_repr_raises(
    tell: Callable[[EventEmitter], None], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are described."""
    traced = emitter()
    tell(traced)
    assert lines(caplog) == [f"{traced.connection} {line}"]


class Broken(logging.Handler):
    """Raises, as no handler should."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == LOGGER.name:
            raise OSError("no room on the disk")


async def test_a_handler_that_raises_stops_the_trace(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """The connection continues, and the reason is logged once."""
    LOGGER.handlers[:] = [Broken()]
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream, trace=True) as conn,
    ):
        assert not conn.status_report().traced
        await conn.send("hello")
        assert await conn.receive() == "hello"
    [record] = [record for record in caplog.records if record.name == "trioglock.telemetry"]
    assert record.getMessage().startswith("the trace of memory.test")
    assert "no room on the disk" in caplog.text


async def test_a_peer_cannot_forge_lines_by_its_address(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client chooses the path of its Unix socket."""

    async def handler(conn: Connection[Any]) -> None:
        raise LookupError(conn.name)

    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)  # a path of a socket has at most 107 bytes
    path = Path("server")
    with trio.fail_after(300):
        async with serve(handler, unix_path=path, trace=True):
            for request in (b"GET /no HTTP/9.9\r\n\r\n", None):
                sock = trio.socket.socket(socket.AF_UNIX)
                await sock.bind(f"a\nforged line \x1b[31m{request is None}")
                await sock.connect(str(path))
                stream = trio.SocketStream(sock)
                if request is None:
                    async with connect("ws://h/", stream=stream, proxy=None) as conn:
                        await conn.wait_closed()
                    continue
                await stream.send_all(request)
                while await stream.receive_some():
                    pass
                await stream.aclose()
    said = [r.getMessage() for r in caplog.records if r.name.startswith("trioglock")]
    assert any("forged line" in text for text in said)
    assert all(text.isprintable() for text in said)
