"""Frames in, bytes out (RFC 6455, section 5; RFC 7692 for compressed messages)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...frames import Close, Frame, Ping, Pong
from .deflate import Deflate
from .masking import apply_mask

__all__ = ["Encoder"]

FIN, RSV1, MASKED = 0x80, 0x40, 0x80
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

# Masking keys must come from strong entropy (RFC 6455, section 10.3); one system call fetches
# enough for this many frames, and no more: thousands of idle connections keep theirs.
_KEYS_AT_ONCE = 64


class Encoder:
    """One direction of one connection.

    Args:
        mask: True for a client, whose frames are masked (RFC 6455, section 5.1).
        deflate: the negotiated compression, if any.
    """

    def __init__(self, *, mask: bool, deflate: Deflate | None) -> None:
        self._mask = mask
        self._deflate = deflate
        self._keys = b""
        self._next_key = 0

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of ``frames``, one after the other, ready for one write."""
        parts: list[bytes] = []
        for frame in frames:
            kind = frame.__class__
            if kind is str:
                self._append(parts, TEXT, frame.encode())  # type: ignore[union-attr]
            elif kind is bytes:
                self._append(parts, BINARY, frame)  # type: ignore[arg-type]
            else:
                self._append(parts, _OPCODES[kind], frame.to_payload())  # type: ignore[union-attr]
        return b"".join(parts)

    def _append(self, parts: list[bytes], opcode: int, payload: bytes) -> None:
        head = FIN | opcode
        if self._deflate is not None and opcode < CLOSE:
            payload = self._deflate.deflate(opcode, payload)
            head |= RSV1
        length = len(payload)
        flag = MASKED if self._mask else 0
        if length < 126:
            parts.append(bytes((head, flag | length)))
        elif length < 65536:
            parts.append(bytes((head, flag | 126)) + length.to_bytes(2))
        else:
            parts.append(bytes((head, flag | 127)) + length.to_bytes(8))
        if flag:
            at = self._next_key
            if at == len(self._keys):
                self._keys = os.urandom(4 * _KEYS_AT_ONCE)
                at = 0
            self._next_key = at + 4
            key = self._keys[at : at + 4]
            parts.append(key)
            payload = apply_mask(payload, key)
        parts.append(payload)


_OPCODES = {Ping: PING, Pong: PONG, Close: CLOSE}
