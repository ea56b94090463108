"""``trioglock demo``: JSON messages through hooks, over a connection that is lost once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from .._text import count
from ..client import connect
from ..connection import Connection
from ..hooks import ConnectionInfo, Socket
from ..retry import Backoff
from ..server import serve
from ..telemetry import (
    ConnectAttemptFailed,
    Connected,
    ConnectStarted,
    Event,
    FrameReceived,
    FrameSent,
    LinkClosed,
    ReconnectScheduled,
    listen,
)
from ..telemetry.trace import ColorFormatter
from ..testing import FaultProxy
from .echo import Echo

__all__ = ["Count", "Counter", "command", "demo"]

STEPS = 20
"""Number of progress lines printed if stdout is not a terminal."""

BACKOFF = Backoff(initial=0.5, jitter="none")

SHOWN: set[type[Event]] = {
    ConnectStarted,
    ConnectAttemptFailed,
    Connected,
    LinkClosed,
    ReconnectScheduled,
}
"""Events whose trace line is always printed."""

SHOWN_ONCE: set[type[Event]] = {FrameSent, FrameReceived}
"""Events whose trace line is printed only the first time."""

REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Count:
    """The state of the connection."""

    sent: int = 0
    received: int = 0


class Counter(Socket[Count]):
    """Encodes and decodes JSON, and counts messages."""

    def init_stream(self, info: ConnectionInfo) -> Count:
        return Count()

    def handle_send(self, message: Any, state: Count) -> tuple[str, Count]:
        return json.dumps(message), replace(state, sent=state.sent + 1)

    def handle_receive(self, frame: Any, state: Count) -> tuple[Any, Count]:
        return json.loads(frame), replace(state, received=state.received + 1)


EXAMPLES = """\b
Exit codes:
  0    every message was echoed
  1    some messages were not echoed
  2    invalid command line
  130  interrupted by Ctrl-C

\b
Examples:
  trioglock demo
  trioglock demo --messages 100000
"""


@click.command(
    "demo", epilog=EXAMPLES, short_help="Exchange JSON messages with a local echo server."
)
@click.option(
    "--messages", type=click.IntRange(1), default=1000, metavar="N", help="The number of messages."
)
def command(messages: int) -> int:
    """Exchange JSON messages with a local echo server, and count them in hooks.

    The server listens on a free port on this machine; no network is needed. After half of the
    messages, the connection is dropped. The client reconnects, keeps its count, and sends the rest.
    """
    return trio.run(demo, messages)


async def demo(messages: int) -> int:
    """Exchange messages with an embedded echo server; return 0 if all were echoed."""
    started = time.perf_counter()
    with Display(messages) as display:
        async with (
            serve(Echo, "127.0.0.1", 0) as server,
            FaultProxy(("127.0.0.1", server.port or 0)) as proxy,
        ):
            display.print(f"echo server at {proxy.url}")
            display.print("handle_send and handle_receive encode, decode and count messages")
            options: dict[str, Any] = {"reconnect": BACKOFF, "proxy": None, "name": "demo"}
            async with connect(proxy.url, Counter(), **options) as conn:
                first, second = range(messages // 2), range(messages // 2, messages)
                conn.start_soon(_send, conn, first)
                display.resume()
                await _receive(conn, first, display)
                await _send_while_cut(conn, second, proxy, display)
    seconds = time.perf_counter() - started
    display.print(f"final state: {conn.state}", "bold")
    if conn.state != Count(messages, messages):
        lost = messages - conn.state.received
        verb = "was" if lost == 1 else "were"
        display.print(f"failed: {count(lost, 'message')} {verb} lost", "red")
        return 1
    counts = f"{conn.statistics().reconnects} reconnect, 0 lost"
    total = count(messages, "message")
    display.print(f"{total} sent and received in {seconds:.2f} s: {counts}", "green")
    return 0


async def _send(conn: Connection[Count], numbers: range) -> None:
    for number in numbers:
        await conn.send({"number": number, "text": "hello"})


async def _receive(conn: Connection[Count], numbers: range, display: Display) -> None:
    for number in numbers:
        await conn.receive()
        display.show(number + 1)


async def _send_while_cut(
    conn: Connection[Count], numbers: range, proxy: FaultProxy, display: Display
) -> None:
    """Drop the connection, send messages, and receive all of them after the reconnect."""
    lost, refused = trio.Event(), trio.Event()

    def notice(event: ReconnectScheduled | Connected) -> None:
        if isinstance(event, Connected):
            display.resume()
        else:
            (refused if lost.is_set() else lost).set()

    display.print(f"{conn.state}; cutting the connection", "bold")
    display.pause()
    with listen(notice, ReconnectScheduled, Connected), display.print_trace():
        conn.trace()
        proxy.answer(REFUSAL)  # to the first attempt to reconnect
        proxy.reset_peer()
        await lost.wait()
        conn.start_soon(_send, conn, numbers)
        await refused.wait()
        queued = conn.statistics().send_queue
        display.print(f"{conn.state}; send queue: {queued}", "bold")
        await _receive(conn, numbers[:1], display)
        conn.trace(False)
    await _receive(conn, numbers[1:], display)


class Display:
    """Prints lines, and the progress: as a bar in a terminal, otherwise as lines.

    Args:
        messages: the total number of messages.
    """

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._console = Console(highlight=False)
        self._bar: Progress | None = None
        self._steps = STEPS
        self._seconds = 0.0  # until the last pause
        self._resumed = 0.0
        if self._console.is_interactive:
            self._steps = max(STEPS, messages // 1000)
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = Progress("messages", *columns, console=self._console)
            self._task = self._bar.add_task("", total=messages, rate="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def print(self, text: str, style: str = "") -> None:
        """Print a line, above the bar."""
        self._console.print(Text(text, style), soft_wrap=True)

    def resume(self) -> None:
        """Start or resume measuring the rate."""
        self._resumed = time.perf_counter()

    def pause(self) -> None:
        """Stop measuring the rate."""
        self._seconds += time.perf_counter() - self._resumed

    def show(self, number: int) -> None:
        """Show the number of received messages, and their average rate, at each of the steps."""
        if number * self._steps % self._messages >= self._steps:
            return
        rate = number / (self._seconds + time.perf_counter() - self._resumed)
        if self._bar is not None:
            self._bar.update(self._task, completed=number, rate=f"{rate:,.0f}/s")
        else:
            done = number * STEPS // self._messages
            bar = f"[{'#' * done}{'.' * (STEPS - done)}]"
            self.print(f"{bar} {number} of {self._messages}, {rate:,.0f}/s")

    @contextmanager
    def print_trace(self) -> Iterator[None]:
        """Print the trace of connections, up to the first frame in each direction."""
        logger = logging.getLogger("trioglock.trace")
        handler, propagate = TraceHandler(self._console), logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = propagate
            logger.removeHandler(handler)


class TraceHandler(logging.Handler):
    """Prints the lines of a trace, up to the first frame in each direction."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.setFormatter(ColorFormatter())
        self._console = console
        self._seen: set[type] = set()

    def emit(self, record: logging.LogRecord) -> None:
        kind = type(record.__dict__["event"])
        if kind in SHOWN_ONCE & self._seen or kind not in SHOWN_ONCE | SHOWN:
            return
        self._seen.add(kind)
        self._console.print(Text.from_ansi(self.format(record)), soft_wrap=True)
