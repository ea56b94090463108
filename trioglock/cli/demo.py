"""``trioglock demo``: the main job, end to end, on one machine."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
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


@dataclass(frozen=True)
class Count:
    """The state of the demo's connection."""

    sent: int = 0
    received: int = 0


class Counter(Socket[Count]):
    """Turns messages into JSON and back, and counts them."""

    def init_stream(self, info: ConnectionInfo) -> Count:
        """Nothing counted yet."""
        return Count()

    def handle_send(self, message: Any, state: Count) -> tuple[str, Count]:
        """Message in, frame out."""
        return json.dumps(message), replace(state, sent=state.sent + 1)

    def handle_receive(self, frame: Any, state: Count) -> tuple[Any, Count]:
        """Frame in, message out."""
        return json.loads(frame), replace(state, received=state.received + 1)


EXAMPLES = """\b
Exit codes:
  0    every message came back
  1    some did not
  2    the command line makes no sense
  130  interrupted by Ctrl-C

\b
Examples:
  trioglock demo
  trioglock demo --messages 100000
"""


@click.command("demo", epilog=EXAMPLES, short_help="Count JSON messages against an echo server.")
@click.option(
    "--messages",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many to send.",
)
def command(messages: int) -> int:
    """Count JSON messages through the hooks of a Socket.

    Starts an echo server on a free port of this machine, connects to it, sends messages and counts
    what comes back. Needs no network.
    """
    return trio.run(demo, messages)


async def demo(messages: int) -> int:
    """Send ``messages`` through an embedded echo server; 0 if all came back."""
    async with MockServer(echo) as server:
        print(f"echo server at {server.url}")
        async with connect(server.url, Counter(), proxy=None) as conn:
            started = time.perf_counter()
            conn.start_soon(_send, conn, messages)
            await _receive(conn, messages)
            seconds = time.perf_counter() - started
        print(f"final state: {conn.state}")
        print(f"{messages} messages there and back in {seconds:.2f} s: {messages / seconds:,.0f}/s")
    return 0 if conn.state == Count(messages, messages) else 1


async def _send(conn: Connection[Count], messages: int) -> None:
    for number in range(messages):
        await conn.send({"number": number, "text": "hello"})


async def _receive(conn: Connection[Count], messages: int) -> None:
    terminal = Console()
    if terminal.is_terminal:
        with Progress(
            *Progress.get_default_columns(), MofNCompleteColumn(), console=terminal
        ) as bar:
            task = bar.add_task("messages", total=messages)
            async for number in _received(conn, messages):
                bar.update(task, completed=number)
    else:
        async for number in _received(conn, messages):
            done = number * STEPS // messages
            print(f"[{'#' * done}{'.' * (STEPS - done)}] {number} of {messages}", flush=True)


async def _received(conn: Connection[Count], messages: int) -> AsyncIterator[int]:
    """How many have come, at each step of the way."""
    for number in range(1, messages + 1):
        await conn.receive()
        if number * STEPS % messages < STEPS:
            yield number
