"""Joins the pieces of a message."""

from __future__ import annotations

import codecs
import io

from ...frames import Data

__all__ = ["Assembler"]

# So many pieces of text are joined: a str of one character may take 80 bytes.
_JOINED_PIECES = 1024


class Assembler:
    """Joins the pieces of a message as they arrive, and validates text.

    Small pieces are joined early, so a message in a million fragments takes hardly more memory than
    one in a single frame, and the time is linear.

    Args:
        text: whether the message is text.
    """

    __slots__ = ("_bytes", "_cut", "_is_text", "_joined", "_texts")

    def __init__(self, text: bool) -> None:
        self._is_text = text
        self._bytes: io.BytesIO | None = None
        self._texts: list[str] = []
        self._joined: list[str] = []
        self._cut = b""  # the beginning of a character whose end has not arrived

    def append(self, data: bytes) -> None:
        """Append a piece that is not the last.

        Raises:
            UnicodeDecodeError: the text is invalid, whatever may follow.
        """
        if not self._is_text:
            if self._bytes is None:
                self._bytes = io.BytesIO()
            self._bytes.write(data)
            return
        text = self._decode(data, False)
        # A surrogate is invalid after two bytes, but the codec waits for the third.
        if b"\xed\xa0" <= self._cut < b"\xee":
            raise UnicodeDecodeError("utf-8", self._cut, 0, 1, "invalid continuation byte")
        self._texts.append(text)
        if len(self._texts) == _JOINED_PIECES:
            self._joined.append("".join(self._texts))
            self._texts.clear()

    def finish(self, data: bytes) -> Data:
        """Append the last piece and return the message.

        Raises:
            UnicodeDecodeError: the text is invalid.
        """
        if self._is_text:
            return "".join([*self._joined, *self._texts, self._decode(data, True)])
        if self._bytes is None:
            return data
        self._bytes.write(data)
        return self._bytes.getvalue()

    def _decode(self, data: bytes, final: bool) -> str:
        if self._cut:
            data = self._cut + data
        text, used = codecs.utf_8_decode(data, "strict", final)
        self._cut = data[used:]
        return text
