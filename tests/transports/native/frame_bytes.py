"""Frames built by hand, byte for byte, and decoders fed in every way."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from websockets.extensions.permessage_deflate import PerMessageDeflate

from trioglock.frames import Close, Data, Event, Fragment, Ping, Pong, Violation
from trioglock.transports.native import Decoder, DeflateStreams

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, MASKED = 0x80, 0x80
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
KEY = b"\x37\xfa\x21\x3d"

Item: TypeAlias = Data | Ping | Pong | Close | Violation


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = False
) -> bytes:
    """One frame, legal or not."""
    head = (FIN if fin else 0) | rsv | opcode
    return header(head, len(payload), masked=masked) + (apply_key(payload) if masked else payload)


def header(head: int, length: int, *, masked: bool = False) -> bytes:
    """The first byte, the length in its shortest form and the masking key."""
    flag = MASKED if masked else 0
    if length < 126:
        size = bytes((flag | length,))
    elif length < 65536:
        size = bytes((flag | 126,)) + length.to_bytes(2, "big")
    else:
        size = bytes((flag | 127,)) + length.to_bytes(8, "big")
    return bytes((head,)) + size + (KEY if masked else b"")


def apply_key(payload: bytes) -> bytes:
    """Masked or unmasked with ``KEY``, which is the same."""
    repeated = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


def new_deflate(*, takeover: bool = True) -> DeflateStreams:
    """Compression as two peers agree on it, with or without context takeover both ways."""
    return DeflateStreams(PerMessageDeflate(not takeover, not takeover, 15, 15))


def packed(*pieces: bytes) -> list[bytes]:
    """The payloads of one message's compressed fragments (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    out = [compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    assert out[-1].endswith(b"\x00\x00\xff\xff")
    return [*out[:-1], out[-1][:-4]]


def flat(events: Iterable[Event]) -> list[Item]:
    """Messages and control frames in one list."""
    items: list[Item] = []
    for event in events:
        if isinstance(event, list):
            items.extend(event)
        else:
            assert not isinstance(event, Fragment)
            items.append(event)
    return items


def drain(decoder: Decoder, chunk: bytes) -> list[Item]:
    """All that ``chunk`` completes, in as many steps as the decoder wants."""
    items = flat(decoder.feed(chunk))
    while decoder.backlog:
        items += flat(decoder.feed(b""))
    return items


def decode(
    chunks: Iterable[bytes],
    *,
    masked: bool = False,
    max_size: int | None = 2**20,
    deflate: bool = False,
) -> list[Item]:
    """What a new decoder makes of ``chunks``; the words of a violation are left out."""
    decoder = Decoder(masked=masked, max_size=max_size, deflate=new_deflate() if deflate else None)
    items = [item for chunk in chunks for item in drain(decoder, chunk)]
    return [Violation(item.code, "") if isinstance(item, Violation) else item for item in items]


def decode_every_way(
    data: bytes, *, masked: bool = False, max_size: int | None = 2**20, deflate: bool = False
) -> list[Item]:
    """What ``data`` means, which must be the same for every chunking."""
    whole = decode([data], masked=masked, max_size=max_size, deflate=deflate)
    for chunks in chunkings(data):
        items = decode(chunks, masked=masked, max_size=max_size, deflate=deflate)
        assert items == whole, f"cut into {[len(chunk) for chunk in chunks]}"
    return whole


def single_bytes(data: bytes) -> list[bytes]:
    """Every byte in a chunk of its own."""
    return [data[at : at + 1] for at in range(len(data))]


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    """Every byte separately, and every way to cut in two."""
    yield single_bytes(data)
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]


def violation(code: int) -> Violation:
    """A violation as :func:`decode` gives it."""
    return Violation(code, "")


@contextmanager
def traced_memory() -> Iterator[Callable[[], tuple[int, int]]]:
    """Measure memory in a block; call the result in it for the current and the peak size."""
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()
