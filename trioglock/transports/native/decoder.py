"""Decodes bytes to events (RFC 6455, section 5; RFC 7692 for compressed messages).

Nearly all traffic is whole, short, uncompressed data frames. They take the *fast path*, one loop
over one received chunk; see :mod:`.fast_path`. The loop stops at any other kind of frame (control
frames, fragments, compressed frames, frames cut off by the end of the chunk, illegal frames), and
:meth:`Decoder._step` processes exactly one frame, or the part of it that was received; then the
fast path continues.

Data is validated as it arrives: a frame with an invalid header is rejected before its payload is
read, and text at its first invalid byte, no matter how chunks and fragments split the data.
"""

from __future__ import annotations

import sys

from ...close_codes import NO_STATUS, TOO_LARGE
from ...frames import (
    MAX_CONTROL_PAYLOAD,
    Close,
    Data,
    Event,
    Ping,
    Pong,
    Run,
    Violation,
    too_large,
)
from .assembler import Assembler
from .deflate import TAIL, DeflateStreams, InflateError
from .fast_path import LEAST_LIMIT, apply_mask, cut_masked, cut_plain

__all__ = ["Decoder", "Refused", "ReportingDecoder", "describe_text_error"]

FIN, RSV, RSV1, OPCODE, MASKED, LENGTH = 0x80, 0x70, 0x40, 0x0F, 0x80, 0x7F
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# Compressed data may inflate a thousandfold. After this many bytes, which take less than a
# millisecond, the remaining bytes wait until the events have been delivered and other tasks have
# run.
INFLATE_BUDGET = 2**18

# Likewise, the number of frames before a pause, for frames that the fast path does not handle, such
# as tiny fragments and pings.
FRAME_BUDGET = 1000


class Refused(Exception):
    """Ends decoding with a violation of the peer."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.violation: Violation = Violation(code, reason)


class Decoder:
    """The receiving direction of one connection.

    Args:
        masked: True if the peer is a client, whose frames must be masked; False if it is a
            server, whose frames must not be masked (RFC 6455, section 5.1).
        max_size: maximum size of one message in bytes, decompressed, with all fragments; None
            for no limit.
        deflate: the negotiated compression, if any.
    """

    __slots__ = (
        "_bad_text",
        "_behind",
        "_compressed",
        "_deflate",
        "_empty",
        "_fast_path",
        "_fin",
        "_inflated",
        "_limit",
        "_mask",
        "_masked",
        "_need",
        "_opcode",
        "_packed",
        "_pieces",
        "_refused",
        "_rest",
        "_size",
        "_waiting",
    )

    def __init__(
        self, *, masked: bool, max_size: int | None, deflate: DeflateStreams | None
    ) -> None:
        self._masked = masked
        self._fast_path = cut_masked if masked else cut_plain
        self._limit = sys.maxsize if max_size is None else max_size
        self._deflate = deflate
        self._rest = b""  # an incomplete header or control frame, or bytes behind a backlog
        self._behind = False  # whole frames may remain in it
        self._refused = False
        # The data frame being received.
        self._need = 0  # missing bytes of its payload
        self._fin = False
        self._mask = b""
        # The message being received; 0 as opcode means none.
        self._opcode = 0
        self._compressed = False
        self._empty = True  # no byte of its payload has been received
        self._size = 0
        self._pieces: Assembler | None = None
        # Inflation.
        self._inflated = 0  # bytes inflated in the current call to feed()
        self._waiting = False  # inflation of the open frame was interrupted
        self._packed = b""  # the bytes that remain to be inflated after that
        self._bad_text = ""  # why the text of the open frame is invalid

    @property
    def backlog(self) -> bool:
        """Whether ``feed(b"")`` continues without new bytes. Let other tasks run before that."""
        return self._waiting or self._behind

    @property
    def partial(self) -> object:
        """The received part of an incomplete message; None if there is none."""
        return (self._size, self._need) if self._opcode else None

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that ``chunk`` completes, in order; none after a Violation or Close."""
        events: list[Event] = []
        if self._refused:
            return events
        self._inflated = 0
        self._behind = False
        try:
            self._decode(chunk, events)
        except Refused as refused:
            self._refused = True
            self._waiting = False
            self._rest = b""
            events.append(refused.violation)
        return events

    def _decode(self, chunk: bytes, events: list[Event]) -> None:
        at: int | None = 0
        left = FRAME_BUDGET
        if self._rest:
            chunk, self._rest = self._rest + chunk, b""
        if self._waiting:
            packed, self._packed, self._waiting = self._packed, b"", False
            data = self._inflate(packed)
            if data is None:
                self._rest = chunk
                return
            self._store(data, events)
        if self._need:
            at = self._payload(chunk, 0, events)
        while at is not None and at < len(chunk):
            if not self._opcode and self._limit >= LEAST_LIMIT:
                run: Run = []
                try:
                    at = self._fast_path(chunk, at, self._limit, run)
                except UnicodeDecodeError as error:
                    raise Refused(1007, describe_text_error(error)) from None
                finally:
                    if run:
                        events.append(run)
                if at == len(chunk):
                    return
            begin = at
            if not left:
                self._rest, self._behind = chunk[at:], True
                return
            left -= 1
            at = self._step(chunk, at, events)
            if at is None and not (self._need or self._refused or self._waiting):
                self._rest = chunk[begin:]

    def _step(self, chunk: bytes, at: int, events: list[Event]) -> int | None:
        """Process one frame; return where it ends, or None if ``chunk`` ends first."""
        if len(chunk) - at < 2:
            return None
        head, second = chunk[at], chunk[at + 1]
        self._check_head(head, second)
        length = second & LENGTH
        at += 2
        if length > 125:
            wide = 2 if length == 126 else 8
            if len(chunk) - at < wide:
                return None
            length = int.from_bytes(chunk[at : at + wide])
            at += wide
        if not head & 0x8 and self._size + length > self._packed_limit(head):
            raise Refused(TOO_LARGE, too_large(self._limit))
        mask = b""
        if self._masked:
            if len(chunk) - at < 4:
                return None
            mask = chunk[at : at + 4]
            at += 4
        if head & 0x8:
            if len(chunk) - at < length:
                return None
            payload = chunk[at : at + length]
            self._control(head & OPCODE, apply_mask(payload, mask) if mask else payload, events)
            return None if self._refused else at + length
        self._open_frame(head, length, mask)
        return self._payload(chunk, at, events)

    def _check_head(self, head: int, second: int) -> None:
        """Reject a frame because of its first two bytes (RFC 6455, section 5.2)."""
        opcode = head & OPCODE
        if bool(second & MASKED) != self._masked:
            raise Refused(1002, "incorrect masking")
        if opcode & 0x8:
            if opcode > PONG:
                raise Refused(1002, f"reserved opcode {opcode}")
            if head & RSV:
                raise Refused(1002, "reserved bits in a control frame")
            if not head & FIN:
                raise Refused(1002, "fragmented control frame")
            if second & LENGTH > MAX_CONTROL_PAYLOAD:
                raise Refused(1002, "control frame too long")
            return
        if opcode > BINARY:
            raise Refused(1002, f"reserved opcode {opcode}")
        if opcode == CONT and not self._opcode:
            raise Refused(1002, "unexpected continuation frame")
        if opcode != CONT and self._opcode:
            raise Refused(1002, "expected a continuation frame")
        allowed = RSV1 if self._deflate is not None and opcode != CONT else 0
        if head & RSV & ~allowed:
            raise Refused(1002, "reserved bits must be 0")

    def _packed_limit(self, head: int) -> int:
        """Return the maximum payload of a frame: incompressible data grows a little."""
        if head & RSV1 or (self._compressed and not head & OPCODE):
            return self._limit + self._limit // 1024 + 64
        return self._limit

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_parse_close(payload))
            # Data after a Close frame is ignored (RFC 6455, section 1.4).
            self._refused = True

    def _open_frame(self, head: int, length: int, mask: bytes) -> None:
        opcode = head & OPCODE
        if opcode != CONT:
            self._opcode = opcode
            self._compressed = bool(head & RSV1)
            self._empty = True
        self._fin = bool(head & FIN)
        self._need = length
        self._mask = mask

    def _payload(self, chunk: bytes, at: int, events: list[Event]) -> int | None:
        """Process the part of the open frame's payload in ``chunk``.

        Returns:
            Where the frame ends, or None if there is more of it.
        """
        data = chunk[at : at + self._need]
        if data:
            self._need -= len(data)
            at += len(data)
            if self._mask:
                data, self._mask = _unmask(data, self._mask)
            self._empty = False
        if not self._compressed:
            self._size += len(data)
        elif not self._empty:
            # A message without any payload is treated as an empty one, although an empty message
            # should consist of one byte (RFC 7692, section 7.2.3.6).
            inflated = self._inflate(data + TAIL if self._fin and not self._need else data)
            if inflated is None:
                self._rest = chunk[at:]
                return None
            data = inflated
        self._store(data, events)
        return None if self._need else at

    def _inflate(self, packed: bytes) -> bytes | None:
        """Inflate a part of the message.

        Returns:
            The last bytes; those before them have been appended. None if the budget was used up.
        """
        deflate = self._deflate
        assert deflate is not None  # RSV1 is rejected without it
        last = self._fin and not self._need
        while True:
            room = min(INFLATE_BUDGET - self._inflated, self._limit - self._size + 1)
            try:
                data = deflate.inflate(packed, room, last=last)
            except InflateError as error:
                raise Refused(1002, str(error)) from None
            packed = deflate.rest
            self._inflated += len(data)
            self._size += len(data)
            if self._size > self._limit:
                raise Refused(TOO_LARGE, too_large(self._limit))
            if not packed and len(data) < room:
                return data
            self._append(data)
            if self._inflated >= INFLATE_BUDGET:
                self._packed, self._waiting = packed, True
                return None

    def _store(self, data: bytes, events: list[Event]) -> None:
        """Append ``data`` to the message; end the frame if it is complete."""
        if self._need or not self._fin:
            self._append(data)
        if not self._need:
            if self._bad_text:
                raise Refused(1007, self._bad_text)
            if self._fin:
                self._finish(data, events)

    def _append(self, data: bytes) -> None:
        """Append to the message. Empty pieces are dropped, so any number of them costs nothing."""
        if not data or self._bad_text:
            return
        if self._pieces is None:
            self._pieces = Assembler(self._opcode == TEXT)
        try:
            self._pieces.append(data)
        except UnicodeDecodeError as error:
            reason = describe_text_error(error)
            if not self._compressed:
                raise Refused(1007, reason) from None
            # Not raised yet: if the rest of the frame is corrupt, that error takes precedence, no
            # matter how the frame is split into chunks.
            self._bad_text = reason

    def _finish(self, data: bytes, events: list[Event]) -> None:
        message: Data
        try:
            if self._pieces is not None:
                message = self._pieces.finish(data)
                self._pieces = None
            else:
                message = data.decode() if self._opcode == TEXT else data
        except UnicodeDecodeError as error:
            raise Refused(1007, describe_text_error(error)) from None
        if self._compressed:
            assert self._deflate is not None
            self._deflate.finish()
            self._compressed = False
        self._opcode = self._size = 0
        if events and isinstance(events[-1], list):
            events[-1].append(message)
        else:
            events.append([message])


class ReportingDecoder:
    """A decoder that returns an empty run when bytes complete no event."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: Decoder | ReportingDecoder) -> None:
        self._decoder = decoder

    @property
    def backlog(self) -> bool:
        return self._decoder.backlog

    @property
    def partial(self) -> object:
        return self._decoder.partial

    def feed(self, chunk: bytes) -> list[Event]:
        return self._decoder.feed(chunk) or [[]]


def describe_text_error(error: UnicodeDecodeError) -> str:
    """Return the reason of a violation."""
    return f"{error.reason} in text"


def _unmask(data: bytes, mask: bytes) -> tuple[bytes, bytes]:
    """Return the plain data, and the mask rotated for the next byte of the frame."""
    turn = len(data) % 4
    return apply_mask(data, mask), mask[turn:] + mask[:turn]


def _parse_close(payload: bytes) -> Close:
    """Parse the payload of a Close frame (RFC 6455, sections 5.5.1 and 7.4)."""
    if not payload:
        return Close(NO_STATUS)
    if len(payload) == 1:
        raise Refused(1002, "Close frame of one byte")
    code = int.from_bytes(payload[:2])
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError as error:
        raise Refused(1007, f"{error.reason} in the reason of a Close frame") from None
    if code == NO_STATUS:
        raise Refused(1002, "close code 1005 on the wire")
    try:
        return Close(code, reason)
    except ValueError:
        raise Refused(1002, f"invalid close code {code}") from None
