"""The console of a script: messages and nothing else on stdout, the rest on stderr."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from rich.console import RenderableType

from ...frames import Data
from .console import Console
from .errors import OutputClosed, OutputFailed
from .lines import Lines
from .marks import Mark
from .painter import Painter
from .shape import Shape
from .sink import Sink

__all__ = ["PipeConsole"]


class PipeConsole(Console):
    """Reads lines, whatever they say, and writes messages as they are.

    Where stdout is a terminal all the same, control characters are spelt out and JSON has colours.

    Args:
        shape: of received messages.
    """

    has_prompt = False

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._lines = Lines(sys.stdin)
        self._output, self._errors = Sink(sys.stdout), Sink(sys.stderr)
        self._painter = Painter(sys.stdout)
        self._error_painter = Painter(sys.stderr)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """See :meth:`Console.reading`."""
        yield

    async def stop_reading(self) -> None:
        """See :meth:`Console.stop_reading`."""

    async def next_line(self) -> str:
        """See :meth:`Console.next_line`."""
        return await self._lines.next()

    async def received(self, messages: Sequence[Data]) -> None:
        """See :meth:`Console.received`."""
        if self._painter.is_terminal:
            texts = [self._painter.message(message, self._shape) for message in messages]
            await self._output.write("".join(map(self._painter.plain, texts)).encode())
        else:
            await self._output.write(b"".join(map(self._shape.line, messages)))

    async def tell(self, mark: Mark, content: str) -> None:
        """See :meth:`Console.tell`."""
        with suppress(OutputClosed, OutputFailed):
            await self._errors.write(self._error_painter.marked(mark, content).encode())

    async def show(self, content: RenderableType) -> None:
        """See :meth:`Console.show`."""
        with suppress(OutputClosed, OutputFailed):
            await self._errors.write(self._error_painter.plain(content).encode())

    def post(self, mark: Mark, content: str) -> None:
        """See :meth:`Console.post`."""
        with suppress(OSError):
            self._errors.write_now(self._error_painter.marked(mark, content).encode())
