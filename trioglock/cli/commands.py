"""The commands of the prompt that every dialect has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import Any

from rich.table import Table

from ..connection import Connection
from ..errors import ConnectionClosed
from ..frames import Close
from ..redaction import redact_url
from .console import Console, Mark
from .dialect import Command, Refused

__all__ = ["Commands"]


class Commands:
    """Carries out a line that begins with a slash.

    Args:
        console: for what there is to show.
        connection: that they are about.
        close: starts the closing handshake.
        start_soon: runs what takes time, so that the prompt goes on.
        more: commands of the dialect.
    """

    def __init__(
        self,
        console: Console,
        connection: Connection[Any],
        close: Callable[[Close], object],
        start_soon: Callable[[Callable[[], Awaitable[None]]], object],
        more: Mapping[str, Command],
    ) -> None:
        self._console = console
        self._connection = connection
        self._close_soon = close
        self._start_soon = start_soon
        self._table: Mapping[str, Command] = {
            "ping": Command("", "measure the round trip of a ping", self._ping),
            "close": Command("[CODE] [REASON]", "close the connection", self._close),
            "status": Command("", "how the connection stands, and what it has done", self._status),
            "trace": Command("on|off", "print every step of the connection", self._trace),
            **more,
            "help": Command("", "these lines", self._help),
        }

    async def run(self, line: str) -> None:
        """Carry out ``/name words``.

        Raises:
            Refused: there is no such command, or it does not take these words.
        """
        name, _, words = line.removeprefix("/").partition(" ")
        command = self._table.get(name)
        if command is None:
            raise Refused(f"there is no command /{name}; /help lists them, //{name} sends /{name}")
        words = words.strip()
        if words and not command.usage:
            raise Refused(f"/{name} takes nothing more, not {words!r}")
        await command.run(words)

    async def _ping(self, _: str) -> None:
        self._start_soon(self._measure)

    async def _measure(self) -> None:
        try:
            seconds = await self._connection.ping()
        except ConnectionClosed:
            await self._console.tell(Mark.PROBLEM, "no pong: there is no connection")
        else:
            await self._console.tell(Mark.CONTROL, f"pong after {seconds * 1000:.1f} ms")

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
        self._connection.trace(words == "on")
        await self._console.tell(Mark.CONTROL, f"the trace is {words}")

    async def _status(self, _: str) -> None:
        connection = self._connection
        table = Table.grid(padding=(0, 2))
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
        await self._console.show(table)

    async def _help(self, _: str) -> None:
        table = Table.grid(padding=(0, 2))
        for name, command in self._table.items():
            table.add_row(f"/{name} {command.usage}".strip(), command.help)
        table.add_row("//text", "send /text")
        table.add_row("Ctrl-D", "close and leave")
        await self._console.show(table)
