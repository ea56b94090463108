"""permessage-deflate (RFC 7692), as negotiated and done by websockets' extension."""

from __future__ import annotations

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode

__all__ = ["Deflate", "InflateError", "InflatedTooBig"]


class InflateError(Exception):
    """The compressed data is corrupt."""


class InflatedTooBig(Exception):
    """What came out is larger than allowed; inflating stopped there."""


class Deflate:
    """Compresses outgoing and inflates incoming data frames, one connection's both directions.

    Args:
        extension: what the opening handshake agreed on.
    """

    __slots__ = ("_extension",)

    def __init__(self, extension: Extension) -> None:
        self._extension = extension

    def inflate(self, opcode: int, payload: bytes, *, fin: bool, limit: int | None) -> bytes:
        """The data of one frame of a compressed message.

        Args:
            opcode: 1 or 2 for the first frame of the message, 0 for a later one.
            payload: as received, unmasked.
            fin: whether this is the last frame of the message.
            limit: the most bytes that may come out; None for any number.

        Raises:
            InflatedTooBig, InflateError: nothing of the message may be used.
        """
        first = opcode != Opcode.CONT
        frame = Frame(Opcode(opcode), payload, fin, rsv1=first)
        try:
            # A max_size of 0 would mean "no limit" to zlib: at the limit, one byte more tells.
            data = self._extension.decode(frame, max_size=limit or (None if limit is None else 1))
        except PayloadTooBig:
            raise InflatedTooBig from None
        except ProtocolError as error:
            raise InflateError(str(error)) from None
        if limit is not None and len(data.data) > limit:
            raise InflatedTooBig
        return bytes(data.data)

    def deflate(self, opcode: int, payload: bytes) -> bytes:
        """The compressed payload of one whole data message."""
        return bytes(self._extension.encode(Frame(Opcode(opcode), payload)).data)
