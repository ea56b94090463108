"""websockets' reading of the same bytes, and where ours differs from it on purpose."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from tests.transports.native.frame_bytes import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    MASKED,
    PING,
    PONG,
    RSV1,
    TEXT,
    Item,
    decode,
    violation,
)
from trioglock.frames import Close, Ping, Pong, Violation

MAX_SIZE = 300

_silent = logging.Logger("silent")  # noqa: LOG001 - in no hierarchy, on purpose
_silent.disabled = True


class Inflater(PerMessageDeflate):
    """The library's extension, with an error instead of losing data behind a final block."""

    ended = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        decoded = super().decode(frame, max_size=max_size)
        if self.decoder.eof:
            self.ended = True
            raise ProtocolError("a block with BFINAL")
        return decoded


class Library:
    """websockets' reading of the bytes of one connection, in the words of our decoder.

    The library hands up frames; joining them to messages and validating UTF-8 is the work of the
    layers above it, done here frame by frame.
    """

    def __init__(self, *, masked: bool, deflate: bool, max_size: int = MAX_SIZE) -> None:
        side = Side.SERVER if masked else Side.CLIENT
        self._protocol = Protocol(side, state=State.OPEN, max_size=max_size, logger=_silent)
        self.inflater = Inflater(False, False, 15, 15)
        if deflate:
            self._protocol.extensions = [self.inflater]
        self._opcode = TEXT
        self._pieces: list[bytes] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self.items: list[Item] = []
        self.frames = 0

    @property
    def room(self) -> int:
        """What is left of the limit for the next fragment."""
        return MAX_SIZE - sum(map(len, self._pieces))

    @property
    def ended(self) -> bool:
        """Whether a Close frame or a violation has come."""
        return bool(self.items) and isinstance(self.items[-1], Close | Violation)

    def feed(self, chunk: bytes) -> None:
        if self.ended:
            return
        self._protocol.receive_data(chunk)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            self._take(event)
            if self.ended:
                return
            self.frames += 1
        if self._protocol.parser_exc is not None:
            assert self._protocol.close_sent is not None
            self.items.append(violation(int(self._protocol.close_sent.code)))

    def _take(self, frame: Frame) -> None:
        payload = bytes(frame.data)
        if frame.opcode == PING:
            self.items.append(Ping(payload))
        elif frame.opcode == PONG:
            self.items.append(Pong(payload))
        elif frame.opcode == CLOSE:
            close = self._protocol.close_rcvd
            assert close is not None
            self.items.append(Close(int(close.code), close.reason))
        else:
            self._take_data(frame, payload)

    def _take_data(self, frame: Frame, payload: bytes) -> None:
        if frame.opcode != CONT:
            self._opcode = int(frame.opcode)
        self._pieces.append(payload)
        if self._opcode == TEXT:
            try:
                self._utf8.decode(payload, frame.fin)
            except UnicodeDecodeError:
                self.items.append(violation(1007))
                return
        if frame.fin:
            whole = b"".join(self._pieces)
            self._pieces = []
            self.items.append(whole.decode() if self._opcode == TEXT else whole)


@dataclass(frozen=True)
class Head:
    """The start of one frame."""

    first: int
    second: int
    length: int
    legal: bool
    missing: int
    """How many bytes of the frame had not come."""

    @property
    def control(self) -> bool:
        return bool(self.first & 0x8)

    @property
    def long_control(self) -> bool:
        return self.control and self.second & 0x7F > 125


def heads(data: bytes, *, masked: bool, deflate: bool) -> Iterator[Head]:
    """Where frames begin, by nothing but their lengths, and whether each may stand there."""
    at, open_message = 0, False
    while at + 2 <= len(data):
        first, second = data[at], data[at + 1]
        start = at + 2
        length = second & 0x7F
        if length > 125:
            wide = 2 if length == 126 else 8
            length = int.from_bytes(data[start : start + wide].ljust(wide, b"\0"), "big")
            start += wide
        start += 4 if masked else 0
        opcode, fin, control = first & 0xF, bool(first & FIN), bool(first & 0x8)
        bits = RSV1 if deflate and opcode in (TEXT, BINARY) else 0
        legal = (
            opcode in tuple(Opcode)
            and not first & 0x70 & ~bits
            and bool(second & MASKED) == masked
            and (fin and second & 0x7F <= 125 if control else (opcode == CONT) == open_message)
        )
        yield Head(first, second, length, legal, max(0, start + length - len(data)))
        if not control:
            open_message = not fin
        at = start + length


def assert_agreement(chunks: list[bytes], *, masked: bool, deflate: bool) -> None:
    """Both read the same, but for the differences that we want, listed here and nowhere else."""
    data = b"".join(chunks)
    ours = decode(chunks, masked=masked, max_size=MAX_SIZE, deflate=deflate)
    library = Library(masked=masked, deflate=deflate)
    for chunk in chunks:
        library.feed(chunk)
    starts = [*heads(data, masked=masked, deflate=deflate)]
    # The frame with which the library has not come to an end, or at which it failed.
    last = starts[library.frames] if library.frames < len(starts) else None
    early = isinstance(ours[-1] if ours else None, Violation) and not library.ended

    # 1. We refuse a frame for its header, and text for its first bad byte; the library waits for
    #    the whole frame. It gets what is missing, as zeros, and must then refuse it too.
    if early and last is not None:
        library.feed(bytes(min(last.missing, 2 * MAX_SIZE)))
    theirs = library.items
    if ours == theirs:
        return

    before = theirs[:-1] if library.ended else theirs
    # 2. A control frame whose length is written in more bytes than it may have is illegal for us;
    #    the library looks at the length alone, and takes a short one.
    illegal = next((number for number, head in enumerate(starts) if not head.legal), len(starts))
    taken = library.frames + bool(theirs and isinstance(theirs[-1], Close))
    if illegal < taken and starts[illegal].long_control:
        assert ours[-1] == violation(1002), (ours, theirs)
        assert ours[:-1] == theirs[: len(ours) - 1], (ours, theirs)
        return
    assert last is not None, (ours, theirs)
    match theirs[-1] if theirs else None:
        # 3. A frame that is illegal by its header and too large besides: the header comes first.
        case Violation(1009) if not last.legal:
            assert ours == [*before, violation(1002)], (ours, theirs)
        # 4. For the library control frames count towards max_size, for us data alone does.
        case Violation(1009) if last.control:
            assert ours[: len(before)] == before, (ours, theirs)
        # 5. We let compressed data be a little larger than what it inflates to; the limit on
        #    what comes out is the same.
        case Violation(1009) if deflate and last.length > library.room:
            assert ours[: len(before)] == before, (ours, theirs)
        # 6. Compressed blocks may be marked as the last. We refuse them inside a message, and
        #    go on after them between messages; the library would hand up empty messages.
        case Violation(1002) if library.inflater.ended:
            assert ours[: len(before)] == before, (ours, theirs)
        # 7. A Close frame between fragments ends the connection cleanly for us.
        case Violation(1002) if last.legal and last.first == FIN | CLOSE:
            assert ours[:-1] == before, (ours, theirs)
            assert isinstance(ours[-1], Close), (ours, theirs)
        case _:
            raise AssertionError((ours, theirs))
