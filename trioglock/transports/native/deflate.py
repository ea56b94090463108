"""permessage-deflate (RFC 7692), with the parameters negotiated by the websockets library."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.typing import ExtensionParameter

from ...options import DEFLATE, Deflate

__all__ = ["MAX_BITS", "TAIL", "ClientDeflateFactory", "DeflateStreams", "InflateError"]

# The end of a flushed block, which is not sent (RFC 7692, section 7.2.1).
TAIL = b"\x00\x00\xff\xff"

MAX_BITS = 15
"""The largest window, and the size without a limit (section 7.1.2)."""

# A shared message is compressed if that saves at least one eighth of its size. Only a sample of a
# large message is tested, so that images and archives are not compressed needlessly.
SHARED_MIN_SIZE = 128
SAMPLE_SIZE = 2**14


class InflateError(Exception):
    """The compressed data is corrupt."""


class ClientDeflateFactory(ClientPerMessageDeflateFactory):
    """The offer of a client; it accepts every answer that RFC 7692, section 7.1.2, allows.

    zlib cannot compress with a window of 8 bits. A client that must use one sends its messages
    uncompressed.

    Args:
        settings: the settings to offer.
    """

    def __init__(self, settings: Deflate) -> None:
        limits: dict[int | None, int | Literal[True] | None] = {None: True, MAX_BITS: None}
        super().__init__(
            server_no_context_takeover=settings.peer_no_context_takeover,
            client_no_context_takeover=settings.no_context_takeover,
            server_max_window_bits=settings.peer_window_bits,
            client_max_window_bits=limits.get(settings.window_bits, settings.window_bits),
        )

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> PerMessageDeflate:
        smallest = ("client_max_window_bits", "8")
        supported = [
            (name, "9") if (name, value) == smallest else (name, value) for name, value in params
        ]
        extension = super().process_response_params(supported, accepted_extensions)
        if smallest in params:
            extension.local_max_window_bits = 8
        return extension


class DeflateStreams:
    """Deflates and inflates the messages of one connection.

    An idle connection has no compressor and no decompressor: each takes tens of kilobytes and is
    created for the first compressed message in its direction.

    Args:
        extension: the extension negotiated in the opening handshake; only its parameters are used.
        settings: the settings of this side.
    """

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_level",
        "_memory_level",
        "_receive_bits",
        "_receive_takeover",
        "_recent",
        "_send_takeover",
        "min_size",
        "rest",
        "send_bits",
        "shared_key",
    )

    def __init__(self, extension: Extension, settings: Deflate = DEFLATE) -> None:
        assert isinstance(extension, PerMessageDeflate)
        self.send_bits: int = extension.local_max_window_bits
        """The size of the window for messages that are sent, as an exponent of 2."""
        self.rest: bytes = b""
        """The end of the data passed to :meth:`inflate` that has not been inflated."""
        self.min_size: int = settings.min_size
        """Messages of fewer bytes are sent uncompressed."""
        self.shared_key: int = self.send_bits | settings.level << 4 | settings.memory_level << 8
        """Connections with the same key compress a shared message in the same way."""
        self._level: int = settings.level
        self._memory_level: int = settings.memory_level
        self._send_takeover: bool = not extension.local_no_context_takeover
        self._receive_bits: int = extension.remote_max_window_bits
        self._receive_takeover: bool = not extension.remote_no_context_takeover
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None
        self._recent: bytearray | None = None

    # Receiving.

    def inflate(self, data: bytes, max_length: int, *, last: bool) -> bytes:
        """Inflate the next part of a message; the result may be split anywhere.

        Args:
            data: a part of the compressed message, not empty unless ``last``.
            max_length: maximum size of the result in bytes, at least 1. If the result has this
                size, there may be more: pass :attr:`rest`.
            last: this is the last part of the message, and :data:`TAIL` follows it in ``data``.

        Raises:
            InflateError: the data is corrupt.
        """
        stream = self._decompressor
        if stream is None:
            stream = self._decompressor = zlib.decompressobj(-self._receive_bits)
        if stream.eof:
            # Only the empty block that a sender appends may follow (RFC 7692, section 7.2.3.4).
            if data.strip(b"\0") not in ((b"", b"\xff\xff") if last else (b"",)):
                raise InflateError("data after the end of the compressed stream")
            self.rest = b""
            return b""
        try:
            inflated = stream.decompress(data, max_length)
        except zlib.error:
            raise InflateError("decompression failed") from None
        self.rest = stream.unused_data if stream.eof else stream.unconsumed_tail
        if self._receive_takeover and (
            stream.eof or not last or len(inflated) == max_length or self._recent is not None
        ):
            self._remember(inflated)
        return inflated

    def _remember(self, inflated: bytes) -> None:
        """Keep the window of a message that may end its stream."""
        size = 1 << self._receive_bits
        if self._recent is None:
            self._recent = bytearray()
        self._recent += inflated[-size:]
        if len(self._recent) > 2 * size:
            del self._recent[:-size]

    def finish(self) -> None:
        """End the message that has been inflated."""
        stream = self._decompressor
        if not self._receive_takeover:
            self._decompressor = None
        elif stream is not None and stream.eof:
            # A message may end its stream (RFC 7692, section 7.2.3.4). Only its own part of the
            # window is known: a reference to older data causes an error, not wrong data.
            window = bytes(self._recent or b"")[-(1 << self._receive_bits) :]
            self._decompressor = zlib.decompressobj(-self._receive_bits, zdict=window)
        self._recent = None

    # Sending.

    def deflate(self, payload: bytes) -> bytes:
        """Return the compressed payload of one message."""
        compressor = self._compressor
        if compressor is None:
            compressor = self._new_compressor()
            if self._send_takeover:
                self._compressor = compressor
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def deflate_part(self, payload: bytes, *, flush: bool, last: bool) -> bytes:
        """Compress a part of a message; the parts form one stream (RFC 7692, section 7.2.1).

        Args:
            payload: the part.
            flush: let the peer inflate all data so far.
            last: this is the last part of the message.
        """
        compressor = self._compressor
        if compressor is None:
            compressor = self._compressor = self._new_compressor()
        data = compressor.compress(payload)
        if last:
            if not self._send_takeover:
                self._compressor = None
            # Without data since the latest flush, the last block is an empty one.
            return (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\0"
        return data + compressor.flush(zlib.Z_SYNC_FLUSH) if flush else data

    def forget(self) -> None:
        """Compress the next message without references to earlier ones.

        Call it after a message that another compressor has compressed. The peer's window contains
        that message, but ours does not, so back-references would be wrong.
        """
        self._compressor = None

    def deflate_shared(self, payload: bytes) -> bytes:
        """Return a compressed payload that any peer with a window of :attr:`send_bits` can inflate.

        It refers to no earlier message, which is legal with and without context takeover (RFC 7692,
        section 7.2.1).

        Returns:
            b"" if compression would save too little.
        """
        if len(payload) < SHARED_MIN_SIZE:
            return b""
        sample = payload[:SAMPLE_SIZE]
        data = self._deflate_once(sample)
        if len(data) > len(sample) * 7 // 8:
            return b""
        return data if len(sample) == len(payload) else self._deflate_once(payload)

    def _deflate_once(self, payload: bytes) -> bytes:
        compressor = self._new_compressor()
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def _new_compressor(self) -> zlib._Compress:
        return zlib.compressobj(self._level, wbits=-self.send_bits, memLevel=self._memory_level)
