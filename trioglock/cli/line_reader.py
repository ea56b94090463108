"""Reads lines from an input without a prompt: a file, a pipe, or a simple terminal."""

from __future__ import annotations

import os
import select
from typing import TextIO

import trio

from .streams import descriptor_of

__all__ = ["EndOfInput", "LineReader", "PromptInterrupted", "UnreadableInput"]

_CHUNK = 2**16

MAX_LINE = 2**26
"""Maximum size of a line in bytes."""


class EndOfInput(Exception):
    """There are no more lines: the end of a pipe, or Ctrl-D."""


class PromptInterrupted(Exception):
    """Ctrl-C was typed at the prompt."""


class UnreadableInput(Exception):
    """The input cannot be read; the message is the reason."""


class LineReader:
    """Reads lines from a file, a pipe or a terminal; a stream without a descriptor has no lines.

    A thread reads the descriptor and bypasses Python's buffers: a terminal must not become
    non-blocking for all processes that share it, and an abandoned thread must not hold a lock.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._descriptor = descriptor_of(stream)
        self._buffer = bytearray()
        self._ended = self._descriptor is None
        self.number: int = 0
        """The number of the latest line, counted from 1."""

    async def next_line(self) -> str:
        """Return the next line without its line ending, which the last line may lack.

        Raises:
            EndOfInput: there are no more lines.
            UnreadableInput: the line is too long or not UTF-8, or reading failed.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and not self._ended:
            if len(self._buffer) > MAX_LINE:
                raise UnreadableInput(f"a line of the input is longer than {MAX_LINE} bytes")
            searched = len(self._buffer)
            await self._read()
        if end >= 0:
            line = self._buffer[:end].removesuffix(b"\r")
            del self._buffer[: end + 1]
        elif self._buffer:
            line, self._buffer = self._buffer, bytearray()
        else:
            raise EndOfInput
        self.number += 1
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UnreadableInput(
                f"line {self.number} of the input is not UTF-8 at byte {error.start + 1}"
            ) from None

    async def _read(self) -> None:
        assert self._descriptor is not None
        try:
            chunk = await trio.to_thread.run_sync(
                _read_chunk, self._descriptor, abandon_on_cancel=True
            )
        except OSError as error:
            raise UnreadableInput(f"the input cannot be read: {error.strerror}") from None
        self._buffer += chunk
        self._ended = not chunk


def _read_chunk(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:  # another process has made it non-blocking
            select.select([descriptor], [], [])
