"""A console without a terminal: what a test types and reads, in no time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from rich.console import RenderableType

from trioglock.cli.console import Console, EndOfInput, Interrupted, Mark, OutputClosed
from trioglock.cli.conversation import Conversation, Plan
from trioglock.cli.messages import open_messages
from trioglock.frames import Data
from trioglock.testing import MockServer

__all__ = ["Desk", "talk"]

CTRL_C = "\x03"


class Desk(Console):
    """Hands on lines that a test types, and keeps what is printed.

    Args:
        lines: typed before anything else; then the input ends, unless it is left open.
        has_prompt: see :class:`Console`.
    """

    def __init__(self, *lines: str, has_prompt: bool = False, left_open: bool = False) -> None:
        self.has_prompt = has_prompt
        self.messages: list[Data] = []
        self.told: list[str] = []
        self.is_reading = False
        self.goes_away = False
        self._type, self._lines = trio.open_memory_channel[str](1000)
        for line in lines:
            self._type.send_nowait(line)
        if not left_open:
            self._type.close()

    def type(self, line: str) -> None:
        """Type another line."""
        self._type.send_nowait(line)

    def end_input(self) -> None:
        """Ctrl-D."""
        self._type.close()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        self.is_reading = True
        try:
            yield
        finally:
            self.is_reading = False

    async def stop_reading(self) -> None:
        self.is_reading = False

    async def next_line(self) -> str:
        try:
            line = await self._lines.receive()
        except trio.EndOfChannel:
            raise EndOfInput from None
        if line == CTRL_C:
            raise Interrupted
        return line

    async def received(self, messages: Sequence[Data]) -> None:
        if self.goes_away:
            raise OutputClosed
        self.messages.extend(messages)

    async def tell(self, mark: Mark, content: str) -> None:
        self.post(mark, content)

    async def show(self, content: RenderableType) -> None:
        self.told.append(repr(content))

    def post(self, mark: Mark, content: str) -> None:
        self.told.append(f"{mark.sign} {content}")


async def talk(desk: Desk, server: MockServer, **plan: object) -> int:
    """Hold a conversation with a server in memory; the exit code."""
    opening = open_messages(server.url, desk, json=False, stream=server.open_stream)
    return await Conversation(desk, Plan(**plan)).run(opening)  # type: ignore[arg-type]
