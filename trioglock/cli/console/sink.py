"""The sink: an output that is written to in a thread, so that a slow reader stops nobody else."""

from __future__ import annotations

import errno
import os
import select
from typing import TextIO

import trio

from .errors import OutputClosed, OutputFailed

__all__ = ["Sink", "descriptor_of"]

# A reader that has gone, and a terminal that has.
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET})


class Sink:
    """One output of the process.

    It is written past Python's buffers: a thread that is left behind must hold none of their locks.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``; None if the process was started without it. What
            has been put in its place and is no file is written to as text.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._turn = trio.Lock()

    async def write(self, data: bytes) -> None:
        """Write all of it; a cancelled call may have written a part.

        Raises:
            OutputClosed: nobody reads any more.
            OutputFailed: it cannot be written, such as to a full disk.
        """
        async with self._turn:
            try:
                await trio.to_thread.run_sync(self.write_now, data, abandon_on_cancel=True)
            except OSError as error:
                if error.errno in _GONE:
                    raise OutputClosed from None
                raise OutputFailed(error.strerror or str(error)) from None

    def write_now(self, data: bytes) -> None:
        """The same, waiting in this thread; an OSError comes out as it is."""
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
            except BlockingIOError:  # whoever shares it has made it so
                select.select([], [descriptor], [])


def descriptor_of(stream: TextIO | None) -> int | None:
    """The descriptor of a standard stream; None if it is no file."""
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
