"""The slash commands of the prompt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from rich.table import Table

from .._redact import redact_url
from ..connection import Connection
from ..disconnect import LocalClose
from ..errors import ConnectionClosed
from ..frames import Close
from .console import Console
from .mode import Command, InvalidLine
from .output import Mark

__all__ = ["PromptCommands", "is_command"]

KEYS = (
    ("//text", "send /text"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "clear the line; on an empty line close and quit; again: drop the connection"),
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


def is_command(line: str) -> bool:
    """Whether a typed line is a command and not a message."""
    return line.startswith("/") and not line.startswith("//")


class PromptCommands:
    """Runs the commands, before and after the connection is open.

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
        self._connection: Connection[Any] | None = None
        self._set_table({})

    def set_connection(self, connection: Connection[Any], commands: Mapping[str, Command]) -> None:
        """Apply the commands to an open connection, and add others."""
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
        """Run ``/name arguments``.

        Raises:
            InvalidLine: there is no such command, or its arguments are invalid.
        """
        name, _, arguments = line.removeprefix("/").partition(" ")
        command = self._table.get(name)
        if command is None:
            hint = f"/help lists them, //{name} sends /{name}" if self._connection else "see /help"
            when = "" if self._connection else " before the connection is open"
            raise InvalidLine(f"there is no command /{name}{when}; {hint}")
        arguments = arguments.strip()
        if arguments and not command.usage:
            raise InvalidLine(f"/{name} takes no arguments, not {arguments!r}")
        await command.run(arguments)

    async def _ping(self, _: str) -> None:
        if self._connection is None:
            raise InvalidLine("no pong: not connected yet")
        self._start_soon(partial(self._measure, self._connection))

    async def _measure(self, connection: Connection[Any]) -> None:
        try:
            seconds = await connection.ping()
        except ConnectionClosed as error:
            if isinstance(error.cause, LocalClose):
                text = "no pong: the connection was closed first"
                await self._console.print_event(Mark.STATUS, text)
            else:
                await self._console.print_event(Mark.PROBLEM, "no pong: not connected")
        else:
            text = f"pong after {seconds * 1000:.1f} ms"
            await self._console.print_event(Mark.CONTROL, text)

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
        for key, text in KEYS:
            table.add_row(key, text)
        for mark, text in MARKS:
            table.add_row(f"{mark.sign} ...", text)
        await self._console.print_table(table)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(overflow="fold")  # neither wraps nor truncates
    return table


def _add_status(table: Table, connection: Connection[Any]) -> None:
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
