"""The plain dialect: a line is a message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Unpack

from ..client import ConnectOptions, connect
from ..connection import Connection
from ..frames import Data
from .console import Console, Mark, Shape, json_problem
from .dialect import Command, Dialect, Refused

__all__ = ["Messages", "open_messages"]

WAITING = 1000
"""Messages that may wait to be printed. While a connection closes, nothing holds the peer back, and
what comes beyond is dropped."""


class Messages(Dialect):
    """Text as it is typed, and binary in hexadecimal digits.

    Args:
        connection: open.
        console: shows binary messages that were sent.
        json: send nothing that is no JSON.
    """

    def __init__(self, connection: Connection[None], console: Console, *, json: bool) -> None:
        super().__init__(connection)
        self._console = console
        self._json = json

    @property
    def commands(self) -> Mapping[str, Command]:
        """See :attr:`Dialect.commands`."""
        return {"binary": Command("HEX", "send bytes, such as /binary 00 ff", self._send_binary)}

    async def say(self, line: str) -> None:
        """See :meth:`Dialect.say`."""
        problem = json_problem(line) if self._json else None
        if problem is not None:
            raise Refused(f"not sent, for it is no JSON: {problem}")
        await self.connection.send(line)

    async def hear(self) -> Sequence[Data]:
        """See :meth:`Dialect.hear`."""
        batch: list[Data] = await self.connection.receive_batch()
        return batch

    async def _send_binary(self, digits: str) -> None:
        try:
            payload = bytes.fromhex(digits)
        except ValueError:
            raise Refused("/binary takes pairs of hexadecimal digits, such as 00 ff") from None
        if not payload:
            raise Refused("/binary takes at least one pair of hexadecimal digits, such as ff")
        await self.connection.send(payload)
        await self._console.tell(Mark.SENT, Shape().text(payload))


def open_messages(
    url: str, console: Console, *, json: bool, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[Messages]:
    """A connection that is spoken to plainly.

    Args:
        url: where to.
        console: of who speaks.
        json: send nothing that is no JSON.
        options: of :func:`trioglock.connect`.

    Raises:
        InvalidURL, InvalidOption: at once.
        ConnectError: on entering the block.
    """
    options.setdefault("max_queue", WAITING)
    opening = connect(url, **options)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Messages]:
        async with opening as connection:
            yield Messages(connection, console, json=json)

    return opened()
