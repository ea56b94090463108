"""Writes to standard streams, bypassing Python's buffers."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import trio

__all__ = [
    "LineHandler",
    "OutputClosed",
    "OutputFailed",
    "OutputStream",
    "descriptor_of",
    "drop_output",
    "flush_output",
    "is_stopped",
    "print_line",
    "print_log",
]

# The reader or the terminal has closed the stream.
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET})


class OutputClosed(Exception):
    """The reader of the output has closed it."""


class OutputFailed(Exception):
    """The output cannot be written; the message is the system's error."""


class OutputStream:
    """Writes to a standard stream in a thread, so that a slow reader blocks only its writers.

    Python's buffers are bypassed: an abandoned thread must not hold their locks. A stream without
    a descriptor is written to as text.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = trio.Lock()

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; a cancelled call may have written part of it.

        Raises:
            OutputClosed: the reader has closed the output.
            OutputFailed: the output cannot be written, for example because the disk is full.
        """
        async with self._lock:
            try:
                await trio.to_thread.run_sync(self.write_blocking, data, abandon_on_cancel=True)
            except OSError as error:
                if error.errno in _GONE:
                    raise OutputClosed from None
                raise OutputFailed(error.strerror or str(error)) from None

    def write_blocking(self, data: bytes) -> None:
        """Write all of ``data`` in this thread, or raise OSError."""
        if self._stream is None:
            raise OSError(errno.EBADF, "closed")
        descriptor = descriptor_of(self._stream)
        if descriptor is None:
            self._stream.write(data.decode(errors="replace"))
            return
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process has made it non-blocking
                select.select([], [descriptor], [])


def descriptor_of(stream: TextIO | None) -> int | None:
    """Return the descriptor of a standard stream; None if it has none."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print a line to stdout, or to another stream, if that is possible without waiting.

    A server must neither exit because its output cannot be written, nor block because its output is
    not read.
    """
    stream = sys.stdout if stream is None else stream
    with suppress(OSError, ValueError):
        descriptor = descriptor_of(stream)
        if descriptor is not None and sys.platform != "win32":
            # A pipe is writable if it has space for a line (POSIX: PIPE_BUF bytes).
            if not select.select([], [descriptor], [], 0)[1]:
                return
        OutputStream(stream).write_blocking(f"{text}\n".encode(errors="backslashreplace"))


def is_stopped() -> bool:
    """Whether stdout is a terminal that accepts nothing, for example after Ctrl-S.

    The thread of a prompt may be blocked in a write to the terminal. This thread then holds the
    lock of the stream, and a flush, such as Python's own at exit, would wait for the lock.
    """
    descriptor = descriptor_of(sys.stdout)
    if descriptor is None or sys.platform == "win32":
        return False
    with suppress(OSError, ValueError):
        return os.isatty(descriptor) and not select.select([], [descriptor], [], 0)[1]
    return False


def flush_output() -> None:
    """Write the data that Python has buffered for stdout, unless the reader has exited or stopped.

    Raises:
        OSError: stdout cannot be written, for example because the disk is full.
    """
    try:
        if sys.stdout is not None and not is_stopped():
            sys.stdout.flush()
    except ValueError:
        pass  # it was closed
    except OSError as error:
        if error.errno not in _GONE:
            raise


def drop_output() -> None:
    """Drop data that is buffered for the standard streams and cannot be written.

    Otherwise Python tries again at exit, prints a traceback, and exits with 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except ValueError:
            pass  # it was closed
        except OSError:
            descriptor = descriptor_of(stream)
            if descriptor is not None:
                with Path(os.devnull).open("wb") as null:
                    os.dup2(null.fileno(), descriptor)


@contextmanager
def print_log(name: str, level: str | None) -> Iterator[None]:
    """Print the records of a logger to stderr within the block, unless it has handlers already.

    Args:
        name: the name of the logger.
        level: the lowest level to print, such as ``"debug"``; each line then also has its level and
            logger. By default, messages from INFO on are printed without them.
    """
    logger = logging.getLogger(name)
    before, handler = logger.level, None
    if not logger.hasHandlers():
        handler = LineHandler()
        if level is not None:
            handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel("INFO" if level is None else level.upper())
    try:
        yield
    finally:
        logger.setLevel(before)
        if handler is not None:
            logger.removeHandler(handler)


class LineHandler(logging.Handler):
    """Prints log records to stderr, as :func:`print_line` does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - a wrong format must not end a server
            text = str(record.msg)
        print_line(text, sys.stderr)
