"""Lines of an input that is no terminal, or one without a prompt."""

from __future__ import annotations

import os
import select
from typing import TextIO

import trio

from .errors import EndOfInput, UnreadableInput
from .sink import descriptor_of

__all__ = ["Lines"]

_CHUNK = 2**16

LIMIT = 2**26
"""The most bytes of one line."""


class Lines:
    """Reads lines, each without its end; the last one need not have one.

    The reading is done in a thread, past Python's buffers: what a shell gives may be a file, a
    pipe or a terminal, a terminal must not be made non-blocking for all who share it, and a
    thread that is left behind must hold no lock.

    Args:
        stream: ``sys.stdin``; None if the process was started without it. What is no file has no
            lines.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._descriptor = descriptor_of(stream)
        self._waiting: list[bytes] = []  # whole lines, the latest first
        self._rest: list[bytes] = []
        self._ended = self._descriptor is None
        self.number: int = 0
        """Of the line that was returned last, counted from 1."""

    async def next(self) -> str:
        """The next line.

        Raises:
            EndOfInput: there is none.
            UnreadableInput: it is too long or not UTF-8, or the system has failed.
        """
        while not self._waiting:
            if self._ended:
                raise EndOfInput
            await self._read()
        self.number += 1
        try:
            return self._waiting.pop().decode()
        except UnicodeDecodeError as error:
            raise UnreadableInput(
                f"line {self.number} of the input is not UTF-8 at byte {error.start + 1}"
            ) from None

    async def _read(self) -> None:
        assert self._descriptor is not None
        try:
            chunk = await trio.to_thread.run_sync(
                _read_some, self._descriptor, abandon_on_cancel=True
            )
        except OSError as error:
            raise UnreadableInput(f"the input cannot be read: {error.strerror}") from None
        if not chunk:
            self._ended = True
            rest = b"".join(self._rest)
            self._waiting = [rest] if rest else []
            return
        first, *others = chunk.split(b"\n")
        self._rest.append(first)
        if others:
            *whole, last = [b"".join(self._rest), *others]
            self._waiting = [line.removesuffix(b"\r") for line in reversed(whole)]
            self._rest = [last]
        elif sum(map(len, self._rest)) > LIMIT:
            raise UnreadableInput(f"a line of the input is longer than {LIMIT} bytes")


def _read_some(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:  # whoever shares it has made it so
            select.select([descriptor], [], [])
