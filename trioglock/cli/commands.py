"""The commands of the prompt that every dialect has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from rich.table import Table

from .._redact import redact_url
from ..connection import Connection
from ..disconnect import LocalClose
from ..errors import ConnectionClosed
from ..frames import Close
from .console import Console, Mark
from .dialect import Command, Refused

__all__ = ["Commands", "is_command"]

EMPTY: Mapping[str, Command] = {}

KEYS = (
    ("//text", "send /text"),
    ("Tab", "complete the name of a command"),
    (
        "Ctrl-C",
        "clear the line; on an empty one close and leave, a second time drop the connection",
    ),
    ("Ctrl-D", "close and leave"),
)

SIGNS = {
    Mark.RECEIVED: "a message that came",
    Mark.SENT: "a message that you sent",
    Mark.CONTROL: "a ping, or a close that you asked for",
    Mark.STATUS: "how the connection stands",
    Mark.PROBLEM: "what went wrong",
    Mark.TRACE: "a step of the trace",
}


def is_command(line: str) -> bool:
    """Whether a line that was typed is no text to be sent."""
    return line.startswith("/") and not line.startswith("//")


class Commands:
    """Carries out a line that begins with a slash.

    Args:
        console: for what there is to show.
        connection: that they are about; None while there is none yet.
        close: starts the closing handshake, or ends the attempts to connect.
        start_soon: runs what takes time, so that the prompt goes on.
        more: commands of the dialect.
        url: shown while there is no connection.
    """

    def __init__(
        self,
        console: Console,
        connection: Connection[Any] | None,
        close: Callable[[Close], object],
        start_soon: Callable[[Callable[[], Awaitable[None]]], object] | None = None,
        more: Mapping[str, Command] = EMPTY,
        *,
        url: str = "",
    ) -> None:
        self._console = console
        self._connection = connection
        self._close_soon = close
        self._start_soon = start_soon
        self._url = url
        self._table: Mapping[str, Command] = {
            "ping": Command("", "measure the round trip of a ping", self._ping),
            "close": Command("[CODE] [REASON]", "close the connection", self._close),
            "status": Command("", "how the connection stands, and what it has done", self._status),
            "trace": Command("on|off", "print every step of the connection", self._trace),
            **more,
            "quit": Command("", "close and leave, as Ctrl-D does; also /exit", self._quit),
            "exit": Command("", "", self._quit),
            "help": Command("", "these lines", self._help),
        }

    @property
    def names(self) -> Sequence[str]:
        """What can be typed, such as ``"/ping"``."""
        return [f"/{name}" for name in self._table]

    async def run(self, line: str) -> None:
        """Carry out ``/name words``.

        Raises:
            Refused: there is no such command, or it does not take these words.
        """
        name, _, words = line.removeprefix("/").partition(" ")
        command = self._table.get(name)
        if command is None:
            if self._connection is None:
                raise Refused(
                    f"there is no command /{name} before there is a connection; see /help"
                )
            raise Refused(f"there is no command /{name}; /help lists them, //{name} sends /{name}")
        words = words.strip()
        if words and not command.usage:
            raise Refused(f"/{name} takes nothing more, not {words!r}")
        await command.run(words)

    async def _ping(self, _: str) -> None:
        if self._connection is None or self._start_soon is None:
            raise Refused("no pong: there is no connection yet")
        self._start_soon(partial(self._measure, self._connection))

    async def _measure(self, connection: Connection[Any]) -> None:
        try:
            seconds = await connection.ping()
        except ConnectionClosed as error:
            ours = isinstance(error.cause, LocalClose)
            why = "the connection was closed before it came" if ours else "there is no connection"
            await self._console.tell(Mark.STATUS if ours else Mark.PROBLEM, f"no pong: {why}")
        else:
            await self._console.tell(Mark.CONTROL, f"pong after {seconds * 1000:.1f} ms")

    async def _quit(self, _: str) -> None:
        self._close_soon(Close(1000))

    async def _close(self, words: str) -> None:
        code, _, reason = words.partition(" ")
        try:
            frame = Close(int(code) if code else 1000, reason.strip())
        except ValueError as error:
            text = str(error) if code.isdecimal() else f"a close code is a number, not {code!r}"
            raise Refused(f"/close: {text}") from None
        await self._console.tell(Mark.CONTROL, f"closing with {frame.code} {frame.reason}".strip())
        self._close_soon(frame)

    async def _trace(self, words: str) -> None:
        if words not in ("on", "off"):
            raise Refused(f"/trace takes on or off, not {words!r}")
        if self._connection is None:
            raise Refused("/trace: there is no connection yet; --trace shows all of it")
        self._connection.trace(words == "on")
        await self._console.tell(Mark.CONTROL, f"the trace is {words}")

    async def _status(self, _: str) -> None:
        table = _table()
        if self._connection is None:
            table.add_row("status", "connecting")
            table.add_row("url", redact_url(self._url))
        else:
            _add_status(table, self._connection)
        await self._console.show(table)

    async def _help(self, _: str) -> None:
        table = _table()
        for name, command in self._table.items():
            if command.help:
                table.add_row(f"/{name} {command.usage}".strip(), command.help)
        for key, does in KEYS:
            table.add_row(key, does)
        for mark, means in SIGNS.items():
            table.add_row(f"{mark.sign} ...", means)
        await self._console.show(table)


def _table() -> Table:
    """Two columns; what is long goes on in the next line, and nothing is cut."""
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
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
