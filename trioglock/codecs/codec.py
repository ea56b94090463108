"""The protocol of a codec: two functions."""

from __future__ import annotations

from typing import Any, Protocol

from ..frames import Data

__all__ = ["Codec"]


class Codec(Protocol):
    """Turns messages into frames and frames into messages.

    Any object with these two methods will do. ``decode`` may raise any ValueError for what is
    malformed; those of this package raise :class:`~trioglock.errors.DecodeError`, which is one.
    """

    def encode(self, message: Any, /) -> Data:
        """The frame for a message: ``str`` for a text frame, ``bytes`` for a binary one.

        Raises:
            EncodeError: the message cannot be expressed in this format.
        """

    def decode(self, frame: Data, /) -> Any:
        """The message in a frame.

        Raises:
            DecodeError: the frame is malformed, or of the wrong type.
        """
