"""The console: input and output of a conversation, at a prompt or through pipes."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
from rich.console import RenderableType

from ..frames import Data
from ..retry import describe_delay
from ..telemetry import (
    ConnectAttemptFailed,
    Connected,
    Event,
    LinkClosed,
    ReconnectScheduled,
    listen,
)
from .line_reader import LineReader
from .output import Mark, MessageFormat, Renderer, describe_failure
from .streams import OutputClosed, OutputFailed, OutputStream

if TYPE_CHECKING:
    from .prompt import Prompt

__all__ = ["Console", "open_console", "print_reconnects", "print_trace"]


class Console:
    """Reads lines; prints messages and events.

    With a prompt, everything appears above it, messages with a mark; if stdout is not the terminal
    of the prompt, messages go to stdout unchanged. Without a prompt, messages go to stdout and
    everything else to stderr.

    Args:
        message_format: the format of received messages.
        terminal: the stream that shows a prompt; None for no prompt.
        history: the name of the prompt's history file; None saves nothing.
    """

    def __init__(
        self, message_format: MessageFormat, terminal: TextIO | None, history: str | None
    ) -> None:
        self.has_prompt: bool = terminal is not None
        self.completions: Sequence[str] = ()
        self._format = message_format
        self._history_name = history
        self._messages_above_prompt = terminal is not None and terminal is sys.stdout
        self._input = LineReader(sys.stdin)
        self._output = OutputStream(sys.stdout)
        self._renderer = Renderer(sys.stdout, message_format)
        self._events = OutputStream(terminal or sys.stderr)
        self._event_renderer = Renderer(terminal or sys.stderr, message_format)
        self._prompt: Prompt | None = None

    @asynccontextmanager
    async def open_input(self) -> AsyncIterator[None]:
        """Show the prompt for the duration of a block."""
        if not self.has_prompt:
            yield
            return
        from .prompt import Prompt, open_history  # noqa: PLC0415 - it takes long to import

        history, problem = open_history(self._history_name)
        if problem:
            await self.print_event(Mark.PROBLEM, problem)
        self._prompt = Prompt("> ", history, lambda: self.completions)
        self._prompt.start()
        try:
            yield
        finally:
            await self._prompt.end()

    async def close_input(self) -> None:
        """Remove the prompt before the end of the block."""
        if self._prompt is not None:
            await self._prompt.end()

    async def next_line(self) -> str:
        """Return the next line of the input; raises the errors of the prompt or LineReader."""
        if self._prompt is not None:
            return await self._prompt.next_line()
        return await self._input.next_line()

    async def print_messages(self, messages: Sequence[Data]) -> None:
        """Print received messages; raises the errors of :meth:`.OutputStream.write`."""
        if self._messages_above_prompt:
            texts = map(self._renderer.message, messages)
            await self._print("".join(self._renderer.event(Mark.RECEIVED, text) for text in texts))
        elif self._renderer.is_terminal:
            texts = map(self._renderer.message, messages)
            await self._output.write("".join(map(self._renderer.plain, texts)).encode())
        else:
            await self._output.write(b"".join(map(self._format.to_line, messages)))

    async def print_event(self, mark: Mark, content: str) -> None:
        """Print a line other than a message; failures are ignored."""
        with suppress(OutputClosed, OutputFailed):
            await self._print(self._event_renderer.event(mark, content))

    async def print_table(self, content: RenderableType) -> None:
        """Print several lines without a mark; failures are ignored."""
        with suppress(OutputClosed, OutputFailed):
            await self._print(self._event_renderer.plain(content))

    def print_event_nowait(self, mark: Mark, content: str) -> None:
        """Print an event, as :meth:`print_event` does, from synchronous code."""
        text = self._event_renderer.event(mark, content)
        if self._prompt is None or not self._prompt.print_nowait(text):
            with suppress(OSError):
                self._events.write_blocking(text.encode())

    async def _print(self, text: str) -> None:
        if self._prompt is None or not await self._prompt.print(text):
            await self._events.write(text.encode())


def open_console(message_format: MessageFormat, history: str | None) -> Console:
    """Return a console, with a prompt if input and output are a terminal that can show one."""
    terminals = [stream for stream in (sys.stdout, sys.stderr) if _is_terminal(stream)]
    if message_format.raw and sys.stdout in terminals:
        raise click.UsageError("--raw writes bytes unchanged: redirect stdout to a file or a pipe")
    has_prompt = _is_terminal(sys.stdin) and terminals and not _is_dumb_terminal()
    return Console(message_format, terminals[0] if has_prompt else None, history)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class _TraceHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print_event_nowait(Mark.TRACE, self.format(record))


class _TraceFileHandler(logging.FileHandler):
    """Writes the trace to a file, up to the first error, which is printed."""

    def __init__(self, console: Console, file: str) -> None:
        super().__init__(file, mode="w", encoding="utf-8", errors="backslashreplace")
        self._console = console
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the base class
        self._fail(sys.exception())

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        if self._failed:
            return
        self._failed = True
        reason = getattr(error, "strerror", None) or str(error)
        text = f"cannot write the trace to {self.baseFilename}: {reason}"
        self._console.print_event_nowait(Mark.PROBLEM, text)


@contextmanager
def print_trace(console: Console, file: str | None) -> Iterator[None]:
    """Print the trace of connections on a console, or write it to a file, during a block."""
    handler: logging.Handler
    if file is None:
        handler = _TraceHandler(console)
    else:
        try:
            # The file contains messages that other users must not read.
            Path(file).touch(mode=0o600)
            handler = _TraceFileHandler(console, file)
        except OSError as error:
            raise click.UsageError(f"--trace-file: {file}: {error.strerror}.") from None
        line = "%(asctime)s.%(msecs)03d %(message)s"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    logger = logging.getLogger("trioglock.trace")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()


@contextmanager
def print_reconnects(console: Console) -> Iterator[None]:
    """Print lost connections, failed attempts and reconnects during a block."""
    reason = ""

    def handle(event: Event) -> None:
        nonlocal reason
        match event:
            case ConnectAttemptFailed(error=error):
                reason = describe_failure(error)
            case LinkClosed():
                reason = str(event.reason)
            case ReconnectScheduled(delay=delay):
                when = describe_delay(delay)
                text = f"{reason}; {when}" if reason else when
                console.print_event_nowait(Mark.STATUS, text)
            case Connected(upgrade=upgrade) if upgrade > 1:
                console.print_event_nowait(Mark.STATUS, "reconnected")
            case _:
                pass

    # Without a handler, Python would also print the logger's warnings about these failures.
    logger, handler = logging.getLogger("trioglock.client"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        with listen(handle, ConnectAttemptFailed, LinkClosed, ReconnectScheduled, Connected):
            yield
    finally:
        logger.removeHandler(handler)


def _is_dumb_terminal() -> bool:
    from prompt_toolkit.utils import is_dumb_terminal  # noqa: PLC0415 - it takes long to import

    return is_dumb_terminal()
