"""``trioglock connect``: talk to a WebSocket server, at a prompt or through pipes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Unpack

import click

from ..client import ConnectOptions, connect
from ..connection import Connection
from ..frames import Data
from .commands import Command, InvalidLine, Mode
from .console import Console, open_console
from .conversation import ConversationPlan, run_conversation
from .options import EXIT_CODES, CarefulCommand, connect_arguments, session_options
from .output import Mark, MessageFormat, format_binary, json_problem

__all__ = ["MessageMode", "command", "open_messages"]

MAX_QUEUE = 1000
"""The maximum number of messages waiting to be printed. While a connection is closing, reading
continues and further messages are dropped."""

MAX_QUEUED_BYTES = 2**28
"""The maximum total size of these messages in bytes; fewer can wait if messages may be long."""

EXAMPLES = """\b
Examples:
  trioglock connect wss://example.org/feed
  echo hi | trioglock connect ws://127.0.0.1:8020/ --once
  trioglock connect wss://example.org/feed --json -H 'Authorization: Bearer ...'
  trioglock connect wss://example.org/feed --wait inf < subscribe.jsonl | jq .price
"""


@click.command("connect", cls=CarefulCommand, epilog=f"{EXIT_CODES}\n{EXAMPLES}")
@click.argument("url")
@click.option(
    "--once",
    is_flag=True,
    help="Send the input, print the first message, and exit. --wait limits the time; the default "
    "is no limit.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Indent received JSON in a terminal, print it on one line in a pipe, and refuse to send "
    "lines that are not JSON.",
)
@click.option("--raw", is_flag=True, help="Write binary messages unchanged, not as digits.")
@session_options
def command(
    url: str,
    *,
    once: bool,
    wait: float | None,
    as_json: bool,
    raw: bool,
    no_history: bool,
    **given: Any,
) -> int:
    """Talk to the WebSocket server at URL.

    In a terminal there is a prompt with a history, and messages appear above it: "<" marks a
    received message, ">" a sent one, "~" a control frame, "*" the state of the connection and "!"
    an error. /help lists the commands; type //text to send /text. Ctrl-D, /quit, and Ctrl-C on an
    empty line close and quit; a second Ctrl-C drops the connection.

    Through pipes, each line of the input is a message. Received messages are written to stdout, and
    everything else to stderr. A binary message is printed as "binary:" and its hexadecimal digits.
    After the end of the input, the command waits for messages for some time (see --wait) and then
    closes the connection.
    """
    message_format = MessageFormat(json=as_json, highlight=as_json, raw=raw)
    console = open_console(message_format, None if no_history else "connect_history")
    options = connect_arguments(url, given, has_prompt=console.has_prompt)
    return run_conversation(
        console,
        ConversationPlan(url=url, wait=wait, once=once, reconnect=given["reconnect"]),
        lambda: open_messages(url, console, json=as_json, **options),
        given["trace_file"],
    )


class MessageMode(Mode):
    """A line is a text message; with ``json`` it must be JSON."""

    def __init__(self, connection: Connection[None, Any], console: Console, *, json: bool) -> None:
        super().__init__(connection)
        self._console = console
        self._json = json

    @property
    def commands(self) -> Mapping[str, Command]:
        return {"binary": Command("HEX", "send bytes, such as /binary 00 ff", self._send_binary)}

    async def send(self, line: str) -> None:
        problem = json_problem(line) if self._json else None
        if problem is not None:
            raise InvalidLine(f"not sent, invalid JSON: {problem}")
        await self.connection.send(line)

    async def receive(self) -> Sequence[Data]:
        batch: list[Data] = await self.connection.receive_batch()
        return batch

    async def _send_binary(self, digits: str) -> None:
        try:
            payload = bytes.fromhex(digits)
        except ValueError:
            payload = b""
        if not payload:
            raise InvalidLine("/binary takes pairs of hexadecimal digits, such as 00 ff")
        await self.connection.send(payload)
        await self._console.print_event(Mark.SENT, format_binary(payload))


def open_messages(
    url: str, console: Console, *, json: bool, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[MessageMode]:
    """Open a connection for text and binary messages.

    InvalidURL and InvalidOption are raised by this call, ConnectError on entering the block.
    """
    fitting = MAX_QUEUED_BYTES // (options.get("max_size") or 2**20)
    options.setdefault("max_queue", max(1, min(MAX_QUEUE, fitting)))
    opening = connect(url, **options)

    @asynccontextmanager
    async def opened() -> AsyncIterator[MessageMode]:
        async with opening as connection:
            yield MessageMode(connection, console, json=json)

    return opened()
