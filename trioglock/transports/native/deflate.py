"""permessage-deflate (RFC 7692), implemented with the extension of websockets."""

from __future__ import annotations

import zlib

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode

__all__ = ["Deflate", "InflateError", "InflatedTooBig"]


class InflateError(Exception):
    """The compressed data is corrupt."""


class InflatedTooBig(Exception):
    """The inflated data exceeds the limit, at which inflating stopped."""


class Deflate:
    """Deflates and inflates the data frames of one connection.

    Args:
        extension: the extension negotiated in the opening handshake.
    """

    __slots__ = ("_extension",)

    def __init__(self, extension: Extension) -> None:
        self._extension = extension

    def inflate(self, opcode: int, payload: bytes, *, fin: bool, limit: int | None) -> bytes:
        """Inflate one frame of a compressed message.

        Args:
            opcode: 1 or 2 for the first frame of the message, 0 for a later one.
            payload: the received payload, unmasked.
            fin: whether this is the last frame of the message.
            limit: maximum size of the result in bytes; None for no limit.

        Raises:
            InflatedTooBig, InflateError: the message must not be used.
        """
        first = opcode != Opcode.CONT
        frame = Frame(Opcode(opcode), payload, fin, rsv1=first)
        try:
            # To zlib a max_size of 0 means "no limit": allow one byte there, and check below.
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
        """Start a new stream if a message ended its stream (RFC 7692, section 7.2.3.4).

        zlib would ignore, and keep, everything after it. Only this message's part of the sliding
        window is known: a reference to older data is an error, not wrong data.
        """
        decoder = getattr(self._extension, "decoder", None)
        if decoder is None or not decoder.eof:
            return
        if not fin or decoder.unused_data.strip(b"\0") not in (b"", b"\xff\xff"):
            raise InflateError("data after the end of the compressed stream")
        bits = self._extension.remote_max_window_bits  # type: ignore[attr-defined]
        self._extension.decoder = zlib.decompressobj(  # type: ignore[attr-defined]
            wbits=-bits, zdict=inflated[-(1 << bits) :]
        )

    def deflate(self, opcode: int, payload: bytes) -> bytes:
        """Return the compressed payload of one whole data message."""
        return bytes(self._extension.encode(Frame(Opcode(opcode), payload)).data)
