"""The console of a person: a prompt, and above it all that happens, each line with its mark."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TextIO

from rich.console import RenderableType

from ...frames import Data
from .console import Console
from .errors import OutputClosed, OutputFailed
from .history import open_history
from .marks import Mark
from .painter import Painter
from .prompt import Prompt
from .shape import Shape
from .sink import Sink

__all__ = ["PromptConsole"]


class PromptConsole(Console):
    """Shows a prompt in the terminal; where stdout is none, messages go there and not above it.

    Args:
        shape: of received messages.
        history: the name of the file that keeps what is typed; None keeps nothing.
        terminal: the stream that the prompt is shown on.
    """

    has_prompt = True

    def __init__(self, shape: Shape, history: str | None, terminal: TextIO) -> None:
        self._shape = shape
        self._history_name = history
        self._terminal = Sink(terminal)
        self._painter = Painter(terminal)
        self._output = None if sys.stdout is terminal else Sink(sys.stdout)
        self._prompt: Prompt | None = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """See :meth:`Console.reading`."""
        history, problem = open_history(self._history_name)
        if problem:
            await self.tell(Mark.PROBLEM, problem)
        self._prompt = Prompt("> ", history, lambda: self.words)
        self._prompt.start()
        try:
            yield
        finally:
            await self._prompt.end()

    async def stop_reading(self) -> None:
        """See :meth:`Console.stop_reading`."""
        if self._prompt is not None:
            await self._prompt.end()

    async def next_line(self) -> str:
        """See :meth:`Console.next_line`."""
        assert self._prompt is not None
        return await self._prompt.next()

    async def received(self, messages: Sequence[Data]) -> None:
        """See :meth:`Console.received`."""
        if self._output is not None:
            await self._output.write(b"".join(map(self._shape.line, messages)))
            return
        texts = [self._painter.message(message, self._shape) for message in messages]
        await self._print("".join(self._painter.marked(Mark.RECEIVED, text) for text in texts))

    async def tell(self, mark: Mark, content: str) -> None:
        """See :meth:`Console.tell`."""
        with suppress(OutputClosed, OutputFailed):
            await self._print(self._painter.marked(mark, content))

    async def show(self, content: RenderableType) -> None:
        """See :meth:`Console.show`."""
        with suppress(OutputClosed, OutputFailed):
            await self._print(self._painter.plain(content))

    def post(self, mark: Mark, content: str) -> None:
        """See :meth:`Console.post`."""
        text = self._painter.marked(mark, content)
        if self._prompt is None or not self._prompt.post(text):
            with suppress(OSError):
                self._terminal.write_now(text.encode())

    async def _print(self, text: str) -> None:
        if self._prompt is None or not await self._prompt.print(text):
            await self._terminal.write(text.encode())
