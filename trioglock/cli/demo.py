"""``trioglock demo``: JSON messages through the hooks of a socket, against a local echo server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from ..client import connect
from ..connection import Connection
from ..hooks import ConnectionInfo, Socket
from ..testing import MockServer, echo

__all__ = ["Count", "Counter", "command", "demo"]

STEPS = 20
"""Lines of the progress bar if stdout is not a terminal."""


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

    The server listens on a free port on this machine; no network is needed.
    """
    return trio.run(demo, messages)


async def demo(messages: int) -> int:
    """Exchange messages with an embedded echo server; return 0 if all were echoed."""
    async with MockServer(echo) as server:
        print(f"echo server at {server.url}")
        async with connect(server.url, Counter(), proxy=None) as conn:
            started = time.perf_counter()
            conn.start_soon(_send, conn, messages)
            await _receive(conn, messages)
            seconds = time.perf_counter() - started
        print(f"final state: {conn.state}")
        print(
            f"{messages} messages sent and received in {seconds:.2f} s: {messages / seconds:,.0f}/s"
        )
    return 0 if conn.state == Count(messages, messages) else 1


async def _send(conn: Connection[Count], messages: int) -> None:
    for number in range(messages):
        await conn.send({"number": number, "text": "hello"})


async def _receive(conn: Connection[Count], messages: int) -> None:
    if Console().is_terminal:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as bar:
            task = bar.add_task("messages", total=messages)
            steps = max(STEPS, messages // 1000)
            await _count(conn, messages, steps, lambda number: bar.update(task, completed=number))
    else:

        def show(number: int) -> None:
            done = number * STEPS // messages
            print(f"[{'#' * done}{'.' * (STEPS - done)}] {number} of {messages}", flush=True)

        await _count(conn, messages, STEPS, show)


async def _count(
    conn: Connection[Count], messages: int, steps: int, show: Callable[[int], None]
) -> None:
    """Receive messages; show their number at each of the steps."""
    for number in range(1, messages + 1):
        await conn.receive()
        if number * steps % messages < steps:
            show(number)
