"""Decodes bytes to fragments of messages, as they arrive, for ``fragments=True``."""

from __future__ import annotations

import sys

from ...frames import Data, Event, Fragment
from .assembler import Assembler
from .decoder import INFLATE_BUDGET, TEXT, Decoder, Refused, describe_text_error
from .deflate import DeflateStreams, InflateError

__all__ = ["PIECE", "FragmentDecoder"]

PIECE = 2**16
"""Maximum size of a returned fragment in bytes, regardless of the size of its frame."""


class FragmentDecoder(Decoder):
    """Returns every message as fragments, which may differ from those that the peer sent.

    A frame is returned in pieces as it arrives and as it is inflated, so no frame and no message is
    too large. Text is split between characters.

    Args:
        masked: as in :class:`Decoder`.
        max_size: maximum size of one fragment in bytes, unless it is a single character; at most
            and by default :data:`PIECE`.
        deflate: as in :class:`Decoder`.
    """

    __slots__ = ("_begun", "_events", "_piece", "_text")

    def __init__(
        self, *, masked: bool, max_size: int | None, deflate: DeflateStreams | None
    ) -> None:
        # With this limit the fast path, which returns whole messages, is not taken.
        super().__init__(masked=masked, max_size=0, deflate=deflate)
        self._piece = PIECE if max_size is None else min(max_size, PIECE)
        self._events: list[Event] = []  # those of the current call to feed()
        self._begun = False  # a fragment of the message has been returned
        self._text: Assembler | None = None  # decodes the message, if it is text

    def _decode(self, chunk: bytes, events: list[Event]) -> None:
        self._events = events
        try:
            super()._decode(chunk, events)
        finally:
            self._events = []

    def _packed_limit(self, head: int) -> int:  # noqa: ARG002 - overrides
        return sys.maxsize

    def _inflate(self, packed: bytes) -> bytes | None:
        deflate = self._deflate
        assert deflate is not None  # RSV1 is rejected without it
        last = self._fin and not self._need
        while True:
            try:
                data = deflate.inflate(packed, PIECE, last=last)
            except InflateError as error:
                raise Refused(1002, str(error)) from None
            packed = deflate.rest
            self._inflated += len(data)
            if not packed and len(data) < PIECE:
                return data
            self._append(data)
            if self._inflated >= INFLATE_BUDGET:
                self._packed, self._waiting = packed, True
                return None

    def _append(self, data: bytes) -> None:
        if data:
            self._add(data, final=False)

    def _finish(self, data: bytes, events: list[Event]) -> None:  # noqa: ARG002 - overrides
        self._add(data, final=True)
        if self._compressed:
            assert self._deflate is not None
            self._deflate.finish()
            self._compressed = False
        self._opcode = self._size = 0

    def _add(self, data: bytes, *, final: bool) -> None:
        """Return the next part of the message, in pieces."""
        self._size = 0
        at = 0
        while len(data) - at > self._piece:
            self._add_piece(data[at : at + self._piece], final=False)
            at += self._piece
        self._add_piece(data[at:], final=final)

    def _add_piece(self, data: bytes, *, final: bool) -> None:
        piece: Data = data
        if self._opcode == TEXT:
            if self._text is None:
                self._text = Assembler(True)
            try:
                piece = self._text.decode(data, final)
            except UnicodeDecodeError as error:
                raise Refused(1007, describe_text_error(error)) from None
            if final:
                self._text = None
        if piece or final:
            self._events.append(Fragment(piece, first=not self._begun, final=final))
            self._begun = not final
