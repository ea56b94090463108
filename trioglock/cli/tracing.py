"""Tracing: where the lines of the library's trace go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .console import Console, Mark

__all__ = ["tracing"]


class ConsoleHandler(logging.Handler):
    """Prints on a console, above its prompt.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        self._console.post(Mark.TRACE, self.format(record))


@contextmanager
def tracing(console: Console, file: str | None) -> Iterator[None]:
    """Let the trace out for the time of a block.

    Args:
        console: prints it.
        file: takes it instead, if given.

    Raises:
        click.UsageError: the file cannot be written.
    """
    handler: logging.Handler
    if file is None:
        handler = ConsoleHandler(console)
    else:
        try:
            # What is said on the connection is in it: not for others to read.
            Path(file).touch(mode=0o600)
            handler = logging.FileHandler(file, mode="w", encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"--trace-file: {file}: {error.strerror}.") from None
        stamp = "%(asctime)s.%(msecs)03d %(message)s"
        handler.setFormatter(logging.Formatter(stamp, "%Y-%m-%dT%H:%M:%S"))
    logger = logging.getLogger("trioglock.trace")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()
