"""A console in memory: a test types lines and reads what is printed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from rich.console import RenderableType

from trioglock.cli.connect import open_messages
from trioglock.cli.console import Console
from trioglock.cli.conversation import Conversation, ConversationPlan
from trioglock.cli.line_reader import EndOfInput, PromptInterrupted
from trioglock.cli.output import Mark, MessageFormat
from trioglock.cli.streams import OutputClosed
from trioglock.frames import Data
from trioglock.testing import MockServer

__all__ = ["CTRL_C", "FakeConsole", "talk"]

CTRL_C = "\x03"


class FakeConsole(Console):
    """Returns typed lines, and keeps what is printed.

    Args:
        lines: typed at the start; then the input ends, unless it is left open.
        has_prompt: see :class:`Console`.
    """

    def __init__(self, *lines: str, has_prompt: bool = False, left_open: bool = False) -> None:
        super().__init__(MessageFormat(), None, None)
        self.has_prompt = has_prompt
        self.messages: list[Data] = []
        self.events: list[str] = []
        self.is_reading = False
        self.reader_has_gone = False
        self._type, self._typed = trio.open_memory_channel[str](1000)
        for line in lines:
            self._type.send_nowait(line)
        if not left_open:
            self._type.close()

    def type(self, line: str) -> None:
        """Type another line."""
        self._type.send_nowait(line)

    def end_input(self) -> None:
        """Type Ctrl-D."""
        self._type.close()

    @asynccontextmanager
    async def open_input(self) -> AsyncIterator[None]:
        self.is_reading = True
        try:
            yield
        finally:
            self.is_reading = False

    async def close_input(self) -> None:
        self.is_reading = False

    async def next_line(self) -> str:
        try:
            line = await self._typed.receive()
        except trio.EndOfChannel:
            raise EndOfInput from None
        if line == CTRL_C:
            raise PromptInterrupted
        return line

    async def print_messages(self, messages: Sequence[Data]) -> None:
        if self.reader_has_gone:
            raise OutputClosed
        self.messages.extend(messages)

    async def print_event(self, mark: Mark, content: str) -> None:
        self.print_event_nowait(mark, content)

    async def print_table(self, content: RenderableType) -> None:
        self.events.append(repr(content))

    def print_event_nowait(self, mark: Mark, content: str) -> None:
        self.events.append(f"{mark.sign} {content}")


async def talk(console: FakeConsole, server: MockServer, **plan: object) -> int:
    """Hold a conversation with a server in memory; return the exit code."""
    opening = open_messages(server.url, console, json=False, stream=server.open_stream)
    plan = {"url": server.url, **plan}
    return await Conversation(console, ConversationPlan(**plan)).run(opening)  # type: ignore[arg-type]
