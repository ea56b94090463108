"""Joins the pieces of a message."""

from __future__ import annotations

import codecs

from ...frames import Data

__all__ = ["Assembler"]

# When there are this many pieces, they are joined early, because an object of one or two bytes
# takes up to 80 bytes.
_JOINED_PIECES = 1024


class Assembler:
    """Joins the pieces of a message as they arrive, and validates text.

    A message in a million fragments takes hardly more memory than a message in a single frame, and
    the time is linear. Large pieces are copied once, at the end.

    Args:
        text: whether the message is text.
    """

    __slots__ = ("_cut", "_is_text", "_joined", "_joined_texts", "_pieces", "_texts")

    def __init__(self, text: bool) -> None:
        self._is_text = text
        self._pieces: list[bytes] = []
        self._joined: list[bytes] = []
        self._texts: list[str] = []
        self._joined_texts: list[str] = []
        self._cut = b""  # the beginning of a character that has not arrived completely

    def append(self, data: bytes) -> None:
        """Append a piece that is not the last.

        Raises: UnicodeDecodeError: the text is invalid, regardless of the next piece.
        """
        if not self._is_text:
            self._pieces.append(data)
            if len(self._pieces) == _JOINED_PIECES:
                self._joined.append(b"".join(self._pieces))
                self._pieces.clear()
            return
        self._texts.append(self.decode(data, False))
        if len(self._texts) == _JOINED_PIECES:
            self._joined_texts.append("".join(self._texts))
            self._texts.clear()

    def finish(self, data: bytes) -> Data:
        """Append the last piece and return the message.

        Raises:
            UnicodeDecodeError: the text is invalid.
        """
        if self._is_text:
            return "".join([*self._joined_texts, *self._texts, self.decode(data, True)])
        return b"".join([*self._joined, *self._pieces, data])

    def decode(self, data: bytes, final: bool) -> str:
        """Decode the next piece of a text, up to its last whole character.

        Raises:
            UnicodeDecodeError: the text is invalid, whatever may follow.
        """
        if self._cut:
            data = self._cut + data
        text, used = codecs.utf_8_decode(data, "strict", final)
        self._cut = data[used:]
        # A surrogate is invalid after two bytes, but the codec waits for the third.
        if b"\xed\xa0" <= self._cut < b"\xee":
            raise UnicodeDecodeError("utf-8", self._cut, 0, 1, "invalid continuation byte")
        return text
