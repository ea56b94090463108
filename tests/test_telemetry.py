"""The trace: a line for each step through logging, and nothing while it is off."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio

from trioglock import Close, Ping, connect
from trioglock.telemetry import Trace
from trioglock.testing import MockPeer, MockServer, echo

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


class Unprintable:
    def __repr__(self) -> str:
        raise AssertionError("looked at although the trace is off")


def test_off_means_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """No line, and nobody asks for a repr."""
    trace = Trace("conn")
    assert not trace.on
    trace.line("text")
    trace.items("frame", [Unprintable()])
    trace.switch(on=True)
    trace.switch(on=False)
    trace.line("text")
    trace.items("frame", (Unprintable() for _ in range(1)))
    assert lines(caplog) == []


def test_on_writes_a_line_for_each_step(caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG, with the connection's name in front."""
    trace = Trace("conn#1", on=True)
    trace.line("attempting to connect")
    trace.items("received frame", ["hi", b"\x00", Ping(b"x"), Close(1000, "bye")])
    trace.items("received frame", [])
    assert lines(caplog) == [
        "*DBG* conn#1 attempting to connect",
        "*DBG* conn#1 received frame: 'hi'",
        "*DBG* conn#1 received frame: b'\\x00'",
        "*DBG* conn#1 received frame: Ping(payload=b'x')",
        "*DBG* conn#1 received frame: Close(code=1000, reason='bye')",
    ]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_it_can_be_switched_on_later(caplog: pytest.LogCaptureFixture) -> None:
    """Each connection has its own switch."""
    first, second = Trace("first"), Trace("second")
    first.switch(on=True)
    first.line("text")
    second.line("text")
    assert first.on
    assert lines(caplog) == ["*DBG* first text"]


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("x" * 80, repr("x" * 80)),
        ("x" * 81, f"{'x' * 80!r}... (81 characters)"),
        (b"y" * 2**20, f"{b'y' * 80!r}... ({2**20} bytes)"),
        (["z" * 200], f"{['z' * 200]!r:.160}..."),
        (LONG_PING, f"{LONG_PING!r:.160}..."),
        ("a\nb", "'a\\nb'"),
    ],
    ids=["as long as fits", "text", "binary", "other", "ping", "several lines"],
)
def test_long_payloads_are_shortened(
    item: object, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A trace stays readable: the beginning, and how much there was."""
    Trace("conn", on=True).items("sending", [item])
    assert lines(caplog) == [f"*DBG* conn sending: {shown}"]


def test_without_any_handler_lines_go_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program that never configured logging sees its trace, each line once."""
    LOGGER.handlers[:] = []
    LOGGER.propagate = False
    LOGGER.setLevel(logging.WARNING)
    Trace("first", on=True)
    trace = Trace("second", on=True)
    trace.switch(on=True)
    trace.line("hello")
    assert capsys.readouterr().err == "*DBG* second hello\n"


def test_a_handler_of_yours_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """No second one is added."""
    LOGGER.handlers[:] = [logging.NullHandler()]
    LOGGER.propagate = False
    Trace("conn", on=True).line("hello")
    assert len(LOGGER.handlers) == 1
    assert capsys.readouterr().err == ""


# Of a live connection.


async def test_a_connection_traces_its_life(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """Connecting, frames both ways and the close: all in order, under the connection's name."""
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream, name="shop", trace=True) as conn,
    ):
        await conn.send("hello")
        assert await conn.receive() == "hello"
    steps = lines(caplog)
    assert all(line.startswith("*DBG* shop ") for line in steps)
    marks = [
        "attempting to connect", "successfully connected", "sending frame: 'hello'",
        "received frame: 'hello'", "closing with local reason: 1000",
    ]  # fmt: skip
    found = [next(n for n, line in enumerate(steps) if mark in line) for mark in marks]
    assert found == sorted(found)


async def test_a_live_connection_can_be_traced_for_a_while(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """``conn.trace()`` begins, ``conn.trace(False)`` ends; off before and after."""
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
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """Line breaks in what the peer says do not break the trace's lines."""
    forged = "bye\n*DBG* shop received frame: 'forged'"

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


async def test_a_trace_has_no_secrets(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither the password in the URL nor the credentials in headers are written."""
    async with MockServer(echo, memory=True) as server:
        url = server.url.replace("ws://", "ws://user:hunter2@")
        async with connect(
            url,
            stream=server.open_stream,
            additional_headers={"Cookie": "hunter2"},
            trace=True,
        ) as conn:
            assert "hunter2" not in conn.url
    assert lines(caplog)
    assert "hunter2" not in caplog.text
