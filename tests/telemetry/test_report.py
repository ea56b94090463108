"""Status reports: of a connection in any state, whatever its state is and does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, linked
from trioglock import (
    Backoff,
    Connection,
    ConnectionInfo,
    Headers,
    MemoryListener,
    MemoryTransport,
    Socket,
    connect,
    serve,
)


class Odd:
    """A state that cannot be shown."""

    def __repr__(self) -> str:
        raise LookupError("s3cret")


class Reporting(Socket[Any]):
    """Asks for a report in every hook."""

    def __init__(self, state: Any = None) -> None:
        self.first = state
        self.reports: list[Any] = []
        self.conn: Any = None

    def _look(self) -> None:
        report = self.conn.status_report()
        assert report.in_hook
        assert str(report)
        self.reports.append(report)

    def init_stream(self, info: ConnectionInfo) -> Any:
        self.conn = info.connection
        self._look()
        return self.first

    def handle_connect(self, info: ConnectionInfo, state: Any) -> Any:
        self._look()
        return None, state

    async def handle_receive(self, frame: Any, state: Any) -> Any:
        self._look()
        await trio.lowlevel.checkpoint()
        self._look()
        if frame == "crash":
            raise ValueError(frame)
        return frame, state

    def handle_disconnect(self, reason: Any, state: Any) -> Any:
        self._look()
        return None, state

    def terminate(self, reason: Any, state: Any) -> None:
        self._look()


def facts(text: str) -> dict[str, str]:
    """The lines of a text by what they begin with."""
    return dict(line.strip().partition(": ")[::2] for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    "state", [Odd(), "x" * 10**6, "a\nb\x1b[31m\u2028", None, {"token": "s3cret"}]
)
async def test_a_report_in_every_hook(state: Any, autojump_clock: MockClock) -> None:
    """Before there is a state, after a failure, and while an async hook waits."""
    socket = Reporting(state)
    with pytest.raises(ValueError, match="crash"):
        async with linked(socket) as (conn, far):
            await far.write(["x", "crash"])
            await conn.wait_closed()
    report = conn.status_report()
    assert len(socket.reports) == 7
    assert [one.state for one in socket.reports] == [None, *[state] * 6]
    assert not report.in_hook
    for text in map(str, (*socket.reports, report)):
        assert "s3cret" not in text
        assert len(text.splitlines()) == 12
        assert all(line.isprintable() and len(line) < 2100 for line in text.splitlines())
    assert facts(str(report))["latest end"] == "a hook or task failed: ValueError: crash"


async def test_a_report_without_a_link(autojump_clock: MockClock) -> None:
    """There is no age, and the latest end has the reason."""
    transport = MemoryTransport()
    policy = Backoff(initial=9, jitter="none")
    async with connect(URL, transport=transport, reconnect=policy) as conn:
        far = await transport.accept()
        await trio.sleep(2)
        assert facts(str(conn.status_report()))["link"] == (
            "up for 2.0 seconds; attempts: 1, successful: 1"
        )
        await far.aclose()
        await trio.sleep(1)
        between = facts(str(conn.status_report()))
        assert between["link"] == "none; attempts: 1, successful: 1"
        assert between["latest end"].startswith("connection lost: ")
        conn.abort()
    assert facts(str(conn.status_report()))["latest end"] == "aborted without a closing handshake"
    assert conn.status_report().link_age is None


async def test_errors_that_cannot_be_shown(autojump_clock: MockClock) -> None:
    """The report describes the exception of a hook as far as possible."""

    class Mute(Exception):
        def __repr__(self) -> str:
            raise LookupError("s3cret")

    class Failing(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> Any:
            raise Mute

        def format_status(self, state: None) -> Any:
            raise Mute

    with pytest.raises(Mute):
        async with linked(Failing()) as (conn, far):
            await far.write(["x"])
            await conn.wait_closed()
    told = facts(str(conn.status_report()))
    assert told["latest end"] == "a hook or task failed: Mute"
    assert repr(conn.status_report()) == f"<StatusReport of memory.test#{conn.id}: closed>"
    assert told["state"] == "'not shown: format_status raised Mute'"


async def test_on_a_server(autojump_clock: MockClock) -> None:
    """It contains the headers of the client, however many."""
    reports: list[str] = []

    async def handler(conn: Connection[Any]) -> None:
        reports.append(str(conn.status_report()))

    listener = MemoryListener()
    many = Headers([(f"X-{number}", "x" * 200) for number in range(100)])
    async with (
        serve(handler, listeners=[listener]),
        connect("ws://h/?a=s3cret", stream=listener.open_stream, additional_headers=many) as conn,
    ):
        await conn.wait_closed()
    [text] = reports
    assert "s3cret" not in text
    assert "ws://h/?a=[hidden]: open" in text
    assert len(text) < 5000
