"""Encodes frames to bytes (RFC 6455, section 5; RFC 7692 for compressed messages)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

from ...frames import Close, Fragment, Frame, Ping, Pong, PreparedMessage
from .deflate import DeflateStreams
from .fast_path import apply_mask

__all__ = ["Encoder"]

FIN, RSV1, MASKED = 0x80, 0x40, 0x80
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# Masking keys must come from strong entropy (RFC 6455, section 10.3). One system call fetches
# enough for this many frames, but no more, because every idle connection keeps its keys.
_KEYS_PER_CALL = 64

# A payload of at least this size is not copied behind its header, except for its first bytes: each
# buffer is a separate write, so the header should not be written alone.
LARGE = 2**17
_FIRST_WRITE = 2**14

Buffer: TypeAlias = bytes | memoryview
"""A part of the bytes to write."""


class Encoder:
    """The sending direction of one connection.

    Args:
        mask: True for a client, whose frames are masked (RFC 6455, section 5.1).
        deflate: the negotiated compression, if any.
    """

    __slots__ = ("_deflate", "_has_large", "_keys", "_mask", "_next_key")

    def __init__(self, *, mask: bool, deflate: DeflateStreams | None) -> None:
        self._mask = mask
        # zlib cannot compress with a window of 8 bits.
        self._deflate = deflate if deflate is not None and deflate.send_bits > 8 else None
        self._keys = b""
        self._next_key = 0
        self._has_large = False  # a part of the current call is not copied

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the bytes of ``frames``, concatenated."""
        return b"".join(self.encode_buffers(frames))

    def encode_buffers(self, frames: Sequence[Frame]) -> list[Buffer]:
        """Return the bytes of ``frames`` in few buffers, without copying large payloads."""
        if len(frames) == 1:
            single = self.encode_single(frames[0])
            if single:
                return [single]
        deflate = self._deflate
        parts: list[bytes] = []
        for frame in frames:
            kind = frame.__class__
            if kind is str:
                opcode, payload = TEXT, frame.encode()  # type: ignore[union-attr]
            elif kind is bytes:
                opcode, payload = BINARY, frame
            elif kind is PreparedMessage:
                self._append_prepared(parts, frame)  # type: ignore[arg-type]
                continue
            elif kind is Fragment:
                self._append_fragment(parts, frame, flush=frame is frames[-1])  # type: ignore[arg-type]
                continue
            else:
                self._append(parts, FIN | _OPCODES[kind], frame.to_payload())  # type: ignore[union-attr]
                continue
            if deflate is None or len(payload) < deflate.min_size:
                self._append(parts, FIN | opcode, payload)
            else:
                self._append(parts, FIN | RSV1 | opcode, deflate.deflate(payload))
        if self._has_large:
            self._has_large = False
            return _split(parts)
        return [b"".join(parts)]

    def encode_single(self, frame: Frame) -> bytes:
        """Return the bytes of a shared or a short message from a server; b"" for other frames."""
        if self._mask:
            return b""
        kind = frame.__class__
        if kind is PreparedMessage:
            return self._wire(frame)  # type: ignore[arg-type]
        if self._deflate is not None:
            return b""
        if kind is str:
            head, payload = FIN | TEXT, frame.encode()  # type: ignore[union-attr]
        elif kind is bytes:
            head, payload = FIN | BINARY, frame
        else:
            return b""
        length = len(payload)
        return bytes((head, length)) + payload if length < 126 else b""

    def _append(self, parts: list[bytes], head: int, payload: bytes) -> None:
        length = len(payload)
        flag = MASKED if self._mask else 0
        if length < 126:
            parts.append(bytes((head, flag | length)))
        elif length < 65536:
            parts.append(bytes((head, flag | 126)) + length.to_bytes(2))
        else:
            parts.append(bytes((head, flag | 127)) + length.to_bytes(8))
            if length >= LARGE:
                self._has_large = True
        if flag:
            at = self._next_key
            if at == len(self._keys):
                self._keys = os.urandom(4 * _KEYS_PER_CALL)
                at = 0
            self._next_key = at + 4
            key = self._keys[at : at + 4]
            parts.append(key)
            payload = apply_mask(payload, key)
        parts.append(payload)

    def _append_prepared(self, parts: list[bytes], frame: PreparedMessage) -> None:
        if self._mask:
            # Each connection masks the message with its own keys. RFC 7692, section 6, always
            # allows messages that are not compressed.
            self._append(parts, _head(frame), frame.to_payload())
        else:
            wire = self._wire(frame)
            if len(wire) >= LARGE:
                self._has_large = True
            parts.append(wire)

    def _append_fragment(self, parts: list[bytes], frame: Fragment, *, flush: bool) -> None:
        """Append a fragment (RFC 6455, section 5.4).

        Args:
            parts: the parts of the frames.
            frame: the fragment.
            flush: no frame follows soon. Otherwise some compressed data may wait for the next one.
        """
        head = FIN if frame.final else 0
        if not frame.first:
            head |= CONT
        else:
            head |= TEXT if isinstance(frame.data, str) else BINARY
        payload = frame.to_payload()
        if self._deflate is not None:
            payload = self._deflate.deflate_part(payload, flush=flush, last=frame.final)
            head |= RSV1 if frame.first else 0
        self._append(parts, head, payload)

    def _wire(self, frame: PreparedMessage) -> bytes:
        """Return the unmasked frame that all connections with the same compression share."""
        deflate = self._deflate
        if deflate is not None and frame.compress and frame.size >= deflate.min_size:
            wire = frame.compressed.get(deflate.shared_key)
            if wire is None:
                wire = self._make_compressed(frame, deflate)
            if wire:
                deflate.forget()
                return wire
        return frame.wire or self._make_wire(frame)

    def _make_wire(self, frame: PreparedMessage) -> bytes:
        parts: list[bytes] = []
        self._append(parts, _head(frame), frame.to_payload())
        frame.wire = b"".join(parts)
        return frame.wire

    def _make_compressed(self, frame: PreparedMessage, deflate: DeflateStreams) -> bytes:
        parts: list[bytes] = []
        if payload := deflate.deflate_shared(frame.to_payload()):
            self._append(parts, RSV1 | _head(frame), payload)
        wire = frame.compressed[deflate.shared_key] = b"".join(parts)
        return wire


def _split(parts: list[bytes]) -> list[Buffer]:
    buffers: list[Buffer] = []
    small: list[bytes] = []
    for part in parts:
        if len(part) < LARGE:
            small.append(part)
        else:
            small.append(part[:_FIRST_WRITE])
            buffers.append(b"".join(small))
            buffers.append(memoryview(part)[_FIRST_WRITE:])
            small = []
    if small:
        buffers.append(b"".join(small))
    return buffers


def _head(frame: PreparedMessage) -> int:
    return FIN | (TEXT if isinstance(frame.message, str) else BINARY)


_OPCODES = {Ping: PING, Pong: PONG, Close: CLOSE}
