"""Listeners: starting, stopping, failures and allowed calls."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, linked
from tests.telemetry.helpers import Seen, kinds, recorded, values
from trioglock import Backoff, Close, InvalidOption, MemoryTransport, connect
from trioglock.telemetry import (
    CloseStarted,
    Connected,
    ConnectStarted,
    Event,
    EventEmitter,
    EventListener,
    FrameSent,
    ReconnectScheduled,
    Terminated,
    listen,
)


async def test_listeners_choose_kinds(autojump_clock: MockClock) -> None:
    """All events, some kinds, or the base class; a stopped listener receives none."""
    with recorded() as everything, recorded(Event) as base, recorded(Terminated) as ends:
        with recorded(Connected) as stopped:
            pass
        async with linked():
            pass
    assert everything == base
    assert kinds(ends) == ["Terminated"]
    assert stopped == []
    async with linked():
        pass
    assert kinds(ends) == ["Terminated"]


async def test_listeners_of_open_connections(autojump_clock: MockClock) -> None:
    """They also receive the frames of connections that were opened before."""
    async with linked() as (conn, _):
        await conn.send("before")
        with recorded(FrameSent) as seen:
            await conn.send("during")
            await conn.flush()
        await conn.send("after")
        await conn.flush()
    assert [event.frame for event in seen if isinstance(event, FrameSent)] == ["during"]


async def test_the_trace_and_listeners_are_independent(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping one does not affect the other."""
    async with linked(trace=True) as (conn, _):
        with recorded(FrameSent) as seen:
            conn.trace(False)
            await conn.send("message")
            await conn.flush()
            conn.trace(True)
        await conn.send("traced")
        await conn.flush()
        conn.trace(False)
    assert [values(event)["frame"] for event in seen] == ["message"]
    text = caplog.text
    assert "'traced'" in text
    assert "'message'" not in text


async def test_a_listener_that_raises(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback and stopped; all others continue."""
    calls = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("of the listener")

    with listen(broken), recorded() as seen:
        async with linked() as (conn, far):
            await conn.send("x")
            await far.write([Close(1000)])
            await trio.testing.wait_all_tasks_blocked()
            await far.send_eof()
            await conn.wait_closed()
    assert len(calls) == 1
    assert kinds(seen)[-1] == "Terminated"
    [record] = [r for r in caplog.records if r.name == "trioglock.telemetry"]
    assert record.levelno == logging.ERROR
    assert "raised and was stopped" in record.getMessage()
    assert "of the listener" in caplog.text


def test_one_listener_may_stop_another() -> None:
    """A stopped listener does not receive the current event, a started one the next."""
    late: Seen = []
    received: Seen = []

    def stop(event: Event) -> None:
        other.stop()
        begun.append(listen(late.append, ConnectStarted))

    begun: list[EventListener] = []
    with listen(stop, ConnectStarted) as first, listen(received.append, ConnectStarted) as other:
        emitter = EventEmitter("x", of="client")
        emitter.connect_started(1)
        first.stop()
        emitter.connect_started(2)
    assert received == []
    assert [event.attempt for event in late if isinstance(event, ConnectStarted)] == [2]
    for one in begun:
        one.stop()
    emitter.connect_started(3)
    assert len(late) == 1


def test_starting_twice() -> None:
    """The listener receives each event once, and can be started again."""
    received: Seen = []
    emitter = EventEmitter("x", of="client")
    with listen(received.append, ConnectStarted) as listening:
        listening.start()
        emitter.connect_started(1)
        listening.stop()
        emitter.connect_started(2)
        listening.start()
        emitter.connect_started(3)
    emitter.connect_started(4)
    assert [event.attempt for event in received if isinstance(event, ConnectStarted)] == [1, 3]


def test_a_listener_and_a_log_handler_that_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener is stopped."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no room on the disk")

    def broken(event: Event) -> None:
        raise LookupError

    logger = logging.getLogger("trioglock.telemetry")
    monkeypatch.setattr(logger, "handlers", [Broken()])
    with listen(broken, ConnectStarted), recorded(ConnectStarted) as seen:
        EventEmitter("x", of="client").connect_started(1)
    assert len(seen) == 1


def test_several_threads_have_the_same_listeners() -> None:
    """They receive the events of all threads, while others start and stop."""
    received: Seen = []
    failures: list[BaseException] = []

    def live() -> None:
        async def main() -> None:
            for _ in range(20):
                with listen(id), listen(id, FrameSent):
                    async with linked() as (conn, far):
                        conn.trace(False)
                        await conn.send("x")
                        await far.receive()
                        conn.abort()

        try:
            trio.run(main)
        except BaseException as error:
            failures.append(error)

    with listen(received.append, Connected, FrameSent, Terminated):
        threads = [threading.Thread(target=live) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert Counter(kinds(received)) == {"Connected": 80, "FrameSent": 80, "Terminated": 80}
    assert not EventEmitter.emits_frames
    with recorded(Connected) as seen:
        pass
    assert seen == []


async def test_a_listener_may_use_connections(autojump_clock: MockClock) -> None:
    """It may open one, ask for a report, and start a trace."""
    reports: list[str] = []
    async with trio.open_nursery() as nursery:

        async def another() -> None:
            async with linked():
                pass

        def meddle(event: Event) -> None:
            reports.append(str(conn.status_report()))
            conn.trace(len(reports) % 2 == 0)
            if isinstance(event, CloseStarted) and event.connection.id == conn.id:
                nursery.start_soon(another)

        async with linked() as (conn, far):
            with listen(meddle):
                await conn.send("x")
                await far.write(["y"])
                await conn.receive()
                await far.write([Close(1000)])
                await trio.testing.wait_all_tasks_blocked()
                await far.send_eof()
                await conn.wait_closed()
                conn.trace(False)
    assert len(reports) > 10


async def test_a_listener_may_send(autojump_clock: MockClock) -> None:
    """A frame that it sends while another is being sent stays behind that."""
    transport = MemoryTransport(capacity=1)
    async with connect(URL, transport=transport, ping_interval=None) as conn:
        far = await transport.accept()
        left = ["first", "second", "third"]

        def send(event: FrameSent) -> None:
            if left:
                conn.send_frame_nowait(left.pop(0), immediate=True)

        got: list[Any] = []
        with listen(send, FrameSent):
            conn.send_frame_nowait("zeroth", immediate=True)
            with trio.fail_after(1):
                while len(got) < 4:
                    for run in await far.receive():
                        got += run  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["zeroth", "first", "second", "third"]
        assert conn.statistics().messages_sent == 4


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_a_listener_may_stop_reconnecting(end: str, autojump_clock: MockClock) -> None:
    """At the event of the next attempt; the delay ends immediately."""
    policy = Backoff(initial=50, jitter="none")
    async with linked(reconnect=policy) as (conn, far):
        act = conn.abort if end == "abort" else lambda: conn.send_frame_nowait(Close())
        with listen(lambda _: act(), ReconnectScheduled):
            await far.aclose()
            with trio.fail_after(1):
                await conn.wait_closed()


async def _asynchronous(event: Event) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("print",), "a listener must be a function, not 'print'"),
        ((_asynchronous,), "a listener must be a plain function, not the async"),
        (
            (print, "Connected"),
            "a kind must be a class of trioglock.telemetry events, not 'Connected'",
        ),
        ((print, int), "a kind must be a class of trioglock.telemetry events, not <class 'int'>"),
    ],
)
def test_invalid_listeners(arguments: Any, text: str) -> None:
    """listen() raises, and nothing is started."""
    with pytest.raises(InvalidOption, match=text):
        listen(*arguments)


def test_stopping_twice() -> None:
    """Also within the block of a listener."""
    listening = listen(print, Connected)
    listening.stop()
    listening.stop()
    with listen(print) as other:
        other.stop()
