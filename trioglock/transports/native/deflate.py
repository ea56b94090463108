"""permessage-deflate (RFC 7692), as negotiated and done by websockets' extension."""

from __future__ import annotations

import zlib

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
        inflated = bytes(data.data)
        if limit is not None and len(inflated) > limit:
            raise InflatedTooBig
        self._continue_after_final_block(inflated, fin=fin)
        return inflated

    def _continue_after_final_block(self, inflated: bytes, *, fin: bool) -> None:
        """Start a new stream where a message ended its own (RFC 7692, section 7.2.3.4).

        zlib would ignore, and keep, all that comes after. Of the sliding window only this
        message's part is known: a reference to what is older is an error, not wrong data.
        """
        decoder = getattr(self._extension, "decoder", None)
        if decoder is None or not decoder.eof:
            return
        if not fin or decoder.unused_data.strip(b"\0") not in (b"", b"\xff\xff"):
            raise InflateError("data behind the end of the compressed stream")
        bits = self._extension.remote_max_window_bits  # type: ignore[attr-defined]
        self._extension.decoder = zlib.decompressobj(  # type: ignore[attr-defined]
            wbits=-bits, zdict=inflated[-(1 << bits) :]
        )

    def deflate(self, opcode: int, payload: bytes) -> bytes:
        """The compressed payload of one whole data message."""
        return bytes(self._extension.encode(Frame(Opcode(opcode), payload)).data)
