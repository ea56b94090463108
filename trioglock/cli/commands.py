"""Lines of a conversation: the interface of modes, and the slash commands of the prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from rich.table import Column, Table

from .._redact import redact_text, redact_url
from ..connection import Connection
from ..disconnect import LocalClose
from ..errors import ConnectionClosed, TrioglockError
from ..frames import Close, Data
from .console import Console
from .options import FAILED
from .output import Mark, describe_end, end_code

__all__ = ["Command", "InvalidLine", "Mode", "PromptCommands", "is_command"]

KEYS = (
    ("//text", "send /text"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "clear the line; on an empty line, close and quit; again, drop the connection"),
    ("Ctrl-D", "close and quit"),
)

MARKS = (
    (Mark.RECEIVED, "a received message"),
    (Mark.SENT, "a message that you sent"),
    (Mark.CONTROL, "a ping, or a close that you requested"),
    (Mark.STATUS, "the state of the connection"),
    (Mark.PROBLEM, "an error"),
    (Mark.TRACE, "a step of the trace"),
)


class InvalidLine(Exception):
    """A line cannot be sent or is not a valid command; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the prompt, such as ``/ping``; it is not listed if its help is empty.

    ``run`` is called with the arguments as one string and may raise :class:`InvalidLine`.
    """

    usage: str
    help: str
    run: Callable[[str], Awaitable[None]]


class Mode(ABC):
    """Converts lines to messages and messages to lines on one open connection."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.connection: Connection[Any, Any] = connection
        self.failed: bool = False
        """Whether a printed error affects the exit code."""
        self.greeting: str | None = None
        """A line that the prompt shows after the line about the connection."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """Additional commands of the prompt, by name."""
        return {}

    @abstractmethod
    async def send(self, line: str) -> None:
        """Send a line; raises :exc:`InvalidLine`, or TrioglockError if it cannot be sent now."""

    @abstractmethod
    async def receive(self) -> Sequence[Data]:
        """Wait for at least one message to print.

        Raises:
            ConnectionClosed: the connection has ended.
            TrioglockError: the conversation has ended; the connection may still be open.
        """

    async def drain(self) -> None:
        """Wait until every line has been sent."""
        await self.connection.flush()

    def describe_end(self, error: TrioglockError) -> tuple[int, str]:
        """Return the exit code and a description for an error of :meth:`receive`."""
        if not isinstance(error, ConnectionClosed):
            return FAILED, redact_text(str(error))
        code, text = end_code(error), describe_end(error)
        dropped = self.connection.statistics().dropped
        return (FAILED, f"{text}; {dropped} messages were dropped") if dropped else (code, text)


def is_command(line: str) -> bool:
    """Whether a typed line is a command and not a message."""
    return line.startswith("/") and not line.startswith("//")


class PromptCommands:
    """Runs the commands, both before and after the connection opens.

    Args:
        console: prints results.
        url: the URL to show while there is no connection.
        close: starts the closing handshake, or cancels connecting.
        start_soon: runs a task, so that the prompt stays responsive.
    """

    def __init__(
        self,
        console: Console,
        url: str,
        close: Callable[[Close], object],
        start_soon: Callable[[Callable[[], Awaitable[None]]], object],
    ) -> None:
        self._console = console
        self._url = url
        self._request_close = close
        self._start_soon = start_soon
        self._connection: Connection[Any, Any] | None = None
        self._set_table({})

    def set_connection(
        self, connection: Connection[Any, Any], commands: Mapping[str, Command]
    ) -> None:
        """Apply the commands to an open connection, and add ``commands``."""
        self._connection = connection
        self._set_table(commands)

    def _set_table(self, more: Mapping[str, Command]) -> None:
        self._table: Mapping[str, Command] = {
            "ping": Command("", "measure the round-trip time of a ping", self._ping),
            "close": Command("[CODE] [REASON]", "close the connection", self._close),
            "status": Command("", "show the state and the statistics", self._status),
            "trace": Command("on|off", "print every step of the connection", self._trace),
            **more,
            "quit": Command("", "close and quit, like Ctrl-D; also /exit", self._quit),
            "exit": Command("", "", self._quit),
            "help": Command("", "show this help", self._help),
        }
        self._console.completions = [f"/{name}" for name in self._table]

    async def run(self, line: str) -> None:
        """Run ``/name arguments``."""
        name, _, arguments = line.removeprefix("/").partition(" ")
        command = self._table.get(name)
        if command is None:
            hint = "see /help" + (f"; //{name} sends /{name}" if self._connection else "")
            when = "" if self._connection else " before the connection is open"
            raise InvalidLine(f"there is no command /{name}{when}; {hint}")
        arguments = arguments.strip()
        if arguments and not command.usage:
            raise InvalidLine(f"/{name} takes no arguments, but was given {arguments!r}")
        await command.run(arguments)

    async def _ping(self, _: str) -> None:
        if self._connection is None:
            raise InvalidLine("no pong: not connected yet")
        self._start_soon(partial(self._measure, self._connection))

    async def _measure(self, connection: Connection[Any, Any]) -> None:
        try:
            mark, text = Mark.CONTROL, f"pong after {await connection.ping() * 1000:.1f} ms"
        except ConnectionClosed as error:
            mark, text = Mark.PROBLEM, "no pong: not connected"
            if isinstance(error.cause, LocalClose):
                mark, text = Mark.STATUS, "no pong: the connection was closed first"
        await self._console.print_event(mark, text)

    async def _quit(self, _: str) -> None:
        self._request_close(Close(1000))

    async def _close(self, arguments: str) -> None:
        code, _, reason = arguments.partition(" ")
        try:
            frame = Close(int(code) if code else 1000, reason.strip())
        except ValueError as error:
            text = str(error) if code.isdecimal() else f"{code!r} is not a close code"
            raise InvalidLine(f"/close: {text}") from None
        text = f"closing with {frame.code} {frame.reason}".strip()
        await self._console.print_event(Mark.CONTROL, text)
        self._request_close(frame)

    async def _trace(self, arguments: str) -> None:
        if arguments not in ("on", "off"):
            raise InvalidLine(f"/trace takes on or off, not {arguments!r}")
        if self._connection is None:
            raise InvalidLine("/trace: not connected yet; use the option --trace")
        self._connection.trace(arguments == "on")
        await self._console.print_event(Mark.CONTROL, f"trace {arguments}")

    async def _status(self, _: str) -> None:
        table = _grid()
        if self._connection is None:
            table.add_row("status", "connecting")
            table.add_row("url", redact_url(self._url))
        else:
            _add_status(table, self._connection)
        await self._console.print_table(table)

    async def _help(self, _: str) -> None:
        table = _grid()
        for name, command in self._table.items():
            if command.help:
                table.add_row(f"/{name} {command.usage}".strip(), command.help)
        for key, text in (*KEYS, *((f"{mark.sign} ...", text) for mark, text in MARKS)):
            table.add_row(key, text)
        await self._console.print_table(table)


def _grid() -> Table:
    # Long cells wrap; nothing is cut.
    return Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2))


def _add_status(table: Table, connection: Connection[Any, Any]) -> None:
    table.add_row("status", connection.status.value)
    table.add_row("url", redact_url(connection.url))
    handshake = connection.handshake
    if handshake is not None:
        table.add_row("subprotocol", handshake.subprotocol or "none")
        table.add_row("extensions", ", ".join(handshake.extensions) or "none")
    statistics = connection.statistics()
    for field in fields(statistics):
        value = getattr(statistics, field.name)
        if field.name == "latency":
            value = "unknown" if value is None else f"{value * 1000:.1f} ms"
        table.add_row(field.name.replace("_", " "), str(value))
