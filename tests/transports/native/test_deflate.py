"""permessage-deflate (RFC 7692): both ways, in pieces, corrupt, and as a bomb."""

from __future__ import annotations

import os
import zlib

import pytest

from tests.transports.native.frame_bytes import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    RSV1,
    RSV2,
    TEXT,
    decode,
    decode_every_way,
    flat,
    frame,
    new_deflate,
    packed,
    single_bytes,
    traced_memory,
    violation,
)
from trioglock import Deflate
from trioglock.frames import Close, Ping, Violation
from trioglock.transports.native import Decoder, DeflateStreams, Encoder
from trioglock.transports.native.decoder import INFLATE_BUDGET
from trioglock.transports.native.deflate import ClientDeflateFactory

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692, section 7.2.3.1
HELLO_SHARED = bytes.fromhex("f200110000")  # section 7.2.3.2
HELLO_STORED = bytes.fromhex("000500faff48656c6c6f00")  # section 7.2.3.3
HELLO_BFINAL = bytes.fromhex("f348cdc9c9070000")  # section 7.2.3.4
HELLO_TWO_BLOCKS = bytes.fromhex("f24805000000ffffcac9c90700")  # section 7.2.3.5


def compressed(payload: bytes, *, masked: bool = False) -> bytes:
    """A whole text message."""
    return frame(TEXT, payload, rsv=RSV1, masked=masked)


def inflating(max_size: int | None = 2**20) -> Decoder:
    return Decoder(masked=False, max_size=max_size, deflate=new_deflate())


@pytest.mark.parametrize("payload", [HELLO, HELLO_STORED, HELLO_BFINAL, HELLO_TWO_BLOCKS])
def test_the_examples_of_the_rfc_inflate(payload: bytes) -> None:
    """Every legal way to compress one message is understood, again and again."""
    assert decode_every_way(compressed(payload) * 3, deflate=True) == ["Hello"] * 3


def test_blocks_with_bfinal_leave_nothing_behind() -> None:
    """A stream that ends with its message keeps no later bytes in memory."""
    decoder = inflating()
    decoder.feed(compressed(HELLO_BFINAL))
    noise = frame(BINARY, packed(os.urandom(50_000))[0], rsv=RSV1)
    decoder.feed(noise)
    with traced_memory() as measure:
        for _ in range(20):
            decoder.feed(noise)
        kept, _ = measure()
    assert kept < 200_000


def test_what_follows_a_final_block_inside_a_message_is_refused() -> None:
    """The inflater would lose it without a word: 1002, not wrong data."""
    behind = compressed(HELLO_BFINAL + b"lost") + compressed(HELLO)
    assert decode([behind], deflate=True) == [violation(1002)]
    fragments = frame(TEXT, HELLO_BFINAL, fin=False, rsv=RSV1) + frame(CONT, HELLO)
    assert decode([fragments], deflate=True) == [violation(1002)]


def test_a_window_begins_anew_after_a_final_block() -> None:
    """References reach back into the message that ended the stream, and no further."""
    data = compressed(HELLO_BFINAL) + compressed(HELLO_SHARED)
    assert decode_every_way(data, deflate=True) == ["Hello", "Hello"]
    older = compressed(HELLO) + compressed(packed(b"")[0]) + compressed(b"\x03\x00\x00")
    assert decode([older + compressed(HELLO_SHARED)], deflate=True)[-1] == violation(1002)


@pytest.mark.parametrize("masked", [True, False])
def test_compressed_plain_and_control_frames_may_alternate(masked: bool) -> None:
    """RSV1 decides for each message by itself; the shared window outlives plain ones."""
    data = compressed(HELLO, masked=masked) + frame(TEXT, b"plain", masked=masked)
    data += frame(PING, b"?", masked=masked) + compressed(HELLO_SHARED, masked=masked)
    data += frame(CLOSE, masked=masked)
    expected = ["Hello", "plain", Ping(b"?"), "Hello", Close(1005)]
    assert decode_every_way(data, masked=masked, deflate=True) == expected


@pytest.mark.parametrize("takeover", [True, False])
def test_both_sides_understand_each_other(takeover: bool) -> None:
    """With context takeover a repeated message shrinks further, without it does not."""
    encoder = Encoder(mask=True, deflate=new_deflate(takeover=takeover))
    decoder = Decoder(masked=True, max_size=2**20, deflate=new_deflate(takeover=takeover))
    noise = os.urandom(3000)
    sizes = []
    for message in (noise, noise, "text ☃ " * 100, "", b"", noise):
        data = encoder.encode([message])
        sizes.append(len(data))
        assert flat(decoder.feed(data)) == [message]
    assert (sizes[1] < 200) is takeover
    assert (sizes[5] < 200) is takeover


def test_one_deflate_serves_both_directions() -> None:
    """What is sent does not disturb what is received."""
    near, far = new_deflate(), new_deflate()
    ends = [(Encoder(mask=False, deflate=end), end) for end in (near, far)]
    decoders = [Decoder(masked=False, max_size=None, deflate=end) for _, end in ends]
    for number in range(5):
        there, back = f"there {number}", b"back" * number
        assert flat(decoders[1].feed(ends[0][0].encode([there]))) == [there]
        assert flat(decoders[0].feed(ends[1][0].encode([back]))) == [back]


@pytest.mark.parametrize("masked", [True, False])
def test_a_compressed_message_may_come_in_fragments(masked: bool) -> None:
    """Cut anywhere, also inside a character or a code, with control frames between."""
    words = "häll€ 🐻 fragments".encode()
    [payload] = packed(words)
    for at in range(len(payload) + 1):
        data = frame(TEXT, payload[:at], fin=False, rsv=RSV1, masked=masked)
        data += frame(PING, masked=masked) + frame(CONT, fin=False, masked=masked)
        data += frame(CONT, payload[at:], masked=masked)
        assert decode([data], masked=masked, deflate=True) == [Ping(), words.decode()]
        assert decode(single_bytes(data), masked=masked, deflate=True) == [Ping(), words.decode()]
    pieces = packed(words[:2], words[2:], b"")
    flushed = frame(TEXT, pieces[0], fin=False, rsv=RSV1, masked=masked)
    flushed += frame(CONT, pieces[1], fin=False, masked=masked)
    flushed += frame(CONT, pieces[2], masked=masked)
    plain = frame(BINARY, b"plain", masked=masked)
    data = flushed + plain
    assert decode_every_way(data, masked=masked, deflate=True) == [words.decode(), b"plain"]


# What is wrong.


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(compressed(b"\xff\xff\xff"), id="no such block"),
        pytest.param(compressed(HELLO_SHARED), id="refers to a window that is not there"),
        pytest.param(frame(TEXT, b"\x07", fin=False, rsv=RSV1), id="in a fragment"),
        pytest.param(compressed(b"\xff" * 3000), id="long"),
        pytest.param(frame(TEXT, HELLO, rsv=RSV1 | RSV2), id="RSV2"),
        pytest.param(frame(PING, rsv=RSV1), id="compressed ping"),
        pytest.param(
            frame(TEXT, HELLO[:3], fin=False, rsv=RSV1) + frame(CONT, HELLO[3:], rsv=RSV1),
            id="RSV1 in a continuation",
        ),
    ],
)
def test_corrupt_compression_is_1002(data: bytes) -> None:
    """And what came before it in the same chunk still comes out; nothing after."""
    before = frame(TEXT, b"before")
    expected = ["before", violation(1002)]
    assert decode([before + data + before], deflate=True) == expected
    assert decode(single_bytes(before + data), deflate=True) == expected


def test_text_is_validated_after_inflation() -> None:
    """1007 for bad UTF-8, at the first fragment that shows it, or at the end where it is cut."""
    assert decode([compressed(packed(b"ok\xff")[0])], deflate=True) == [violation(1007)]
    assert decode([compressed(packed(b"cut \xe2\x98")[0])], deflate=True) == [violation(1007)]
    unfinished = frame(TEXT, packed(b"ok\xff", b"")[0], fin=False, rsv=RSV1)
    assert decode([unfinished], deflate=True) == [violation(1007)]
    assert decode([frame(BINARY, packed(b"\xff")[0], rsv=RSV1)], deflate=True) == [b"\xff"]


# Limits.


@pytest.mark.parametrize("pieces", [[1000], [400, 600], [1000, 0], [999, 1], [0, 1000]])
@pytest.mark.parametrize("noise", [False, True], ids=["repetitive", "incompressible"])
def test_max_size_is_that_of_the_inflated_message(pieces: list[int], noise: bool) -> None:
    """Exactly that many bytes pass, however well they compress; one more is 1009."""
    payloads = [os.urandom(size) if noise else b"x" * size for size in pieces]
    fragments = packed(*payloads)
    data = frame(BINARY, fragments[0], fin=len(fragments) == 1, rsv=RSV1)
    for number, fragment in enumerate(fragments[1:], 2):
        data += frame(CONT, fragment, fin=number == len(fragments))
    for chunks in ([data], single_bytes(data)):
        assert decode(chunks, deflate=True, max_size=999) == [violation(1009)]
        assert decode(chunks, deflate=True, max_size=1000) == [b"".join(payloads)]
        assert decode(chunks, deflate=True, max_size=None) == [b"".join(payloads)]


def test_a_limit_reached_inside_a_code_is_exact() -> None:
    """One code may stand for 258 bytes: those past the limit are 1009 in a later fragment."""
    [payload] = packed(b"x" * 259)
    for at in range(1, len(payload)):
        data = frame(TEXT, payload[:at], fin=False, rsv=RSV1) + frame(CONT, payload[at:])
        assert decode([data], deflate=True, max_size=258) == [violation(1009)]
        assert decode([data], deflate=True, max_size=259) == ["x" * 259]


def test_a_bomb_is_not_inflated() -> None:
    """A message far beyond ``max_size`` costs about ``max_size``."""
    bomb = compressed(packed(b"x" * 2**24)[0])
    decoder = inflating(2**16)
    with traced_memory() as measure:
        events = decoder.feed(bomb)
        _, peak = measure()
    assert events == [Violation(1009, f"a message is larger than max_size ({2**16} bytes)")]
    assert peak < 2**20


def test_endless_fragments_that_inflate_to_nothing_cost_no_memory() -> None:
    """Nor does a message of empty compressed fragments."""
    decoder = inflating()
    decoder.feed(frame(BINARY, packed(b"begun", b"")[0], fin=False, rsv=RSV1))
    empty = frame(CONT, b"\x00\x00\x00\xff\xff", fin=False) * 1000
    decoder.feed(empty)
    with traced_memory() as measure:
        for _ in range(5):
            assert decoder.feed(empty) == []
        kept, _ = measure()
    assert kept < 10_000
    assert decoder.feed(frame(CONT)) == [[b"begun"]]


def test_many_small_bombs_are_handed_out_in_steps() -> None:
    """One chunk never inflates to much more than the budget before it is taken away."""
    size = 2**18
    [payload] = packed(b"x" * size)
    count = 40
    chunk = frame(BINARY, payload, rsv=RSV1) * count + frame(PING, b"last")
    decoder = inflating(size)
    events = decoder.feed(chunk)
    seen = []
    while decoder.backlog:
        messages = flat(events)
        assert sum(len(item) for item in messages if isinstance(item, bytes)) <= (
            INFLATE_BUDGET + size
        )
        seen += messages
        events = decoder.feed(b"")
    assert len(seen) >= count - INFLATE_BUDGET // size - 1
    assert seen + flat(events) == [b"x" * size] * count + [Ping(b"last")]
    assert decoder.feed(b"") == []


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"", []),
        (frame(TEXT, b"whole"), ["whole"]),
        (frame(TEXT, b"cut off")[:-1], []),
        (frame(TEXT, b"cut off")[:1], []),
        (frame(CLOSE), [Close(1005)]),
        (frame(CONT), [violation(1002)]),
    ],
)
def test_what_waits_behind_a_bomb_is_not_lost(rest: bytes, expected: list[object]) -> None:
    """Whatever it is, and whether the next bytes come before or after it was asked for."""
    bomb = frame(BINARY, packed(b"x" * (INFLATE_BUDGET + 1))[0], rsv=RSV1)
    big = b"x" * (INFLATE_BUDGET + 1)
    assert decode([bomb + rest], deflate=True, max_size=None) == [big, *expected]
    decoder = inflating(None)
    assert decoder.feed(bomb + rest) == []
    assert decoder.backlog
    first, *late = flat(decoder.feed(frame(TEXT, b"cut off")[len(rest) :]))
    assert first == big
    assert not decoder.backlog
    if not expected:
        assert late == ["cut off"]
    else:
        assert [getattr(item, "code", item) for item in late[:1]] == [
            getattr(item, "code", item) for item in expected
        ]


def test_a_bomb_between_fragments_waits_too() -> None:
    """The budget also holds inside one message, whose fragments follow in steps."""
    size = INFLATE_BUDGET + 1
    pieces = packed(b"x" * size, b"y" * size, b"z")
    chunk = frame(TEXT, pieces[0], fin=False, rsv=RSV1) + frame(CONT, pieces[1], fin=False)
    decoder = inflating(None)
    events = decoder.feed(chunk + frame(CONT, pieces[2]))
    for _ in range(2):
        assert events == []
        assert decoder.backlog
        events = decoder.feed(b"")
    assert events == [["x" * size + "y" * size + "z"]]
    assert not decoder.backlog


# Bytes that other implementations send.


@pytest.mark.parametrize("fragments", [1, 3])
def test_fault_63_an_empty_message_without_payload_is_empty(fragments: int) -> None:
    """Some clients leave out the byte that RFC 7692, section 7.2.3.6, requires."""
    data = frame(TEXT, fin=fragments == 1, rsv=RSV1)
    for number in range(1, fragments):
        data += frame(CONT, fin=number == fragments - 1)
    data = compressed(HELLO) + data + compressed(HELLO_SHARED)
    assert decode_every_way(data, deflate=True) == ["Hello", "", "Hello"]


def test_a_stream_may_end_in_any_fragment() -> None:
    """A block with BFINAL, and the empty block after it in a fragment of its own."""
    data = frame(TEXT, HELLO_BFINAL[:-1], fin=False, rsv=RSV1) + frame(CONT, fin=False)
    data += frame(CONT, HELLO_BFINAL[-1:]) + compressed(HELLO_SHARED)
    assert decode_every_way(data, deflate=True) == ["Hello", "Hello"]


def test_the_window_after_a_final_block_spans_all_pieces_of_the_message() -> None:
    """The next message refers to the first byte of a long one that came in many chunks."""
    noise = os.urandom(20_000)
    compressor = zlib.compressobj(wbits=-15)
    final = compressor.compress(noise) + compressor.flush() + b"\0"
    again = zlib.compressobj(wbits=-15, zdict=noise)
    payload = (again.compress(noise) + again.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(payload) < 1000
    data = frame(BINARY, final, rsv=RSV1) + frame(BINARY, payload, rsv=RSV1)
    for size in (1, 1000, len(data)):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert decode(chunks, deflate=True) == [noise, noise]


def test_the_error_of_a_frame_does_not_depend_on_chunks() -> None:
    """Corrupt data after invalid text is 1002 in one chunk and in many."""
    bad = packed(b"\xff" * 50, b"")[0] + b"\xff\xff\xff"
    data = frame(TEXT, bad, rsv=RSV1)
    assert decode_every_way(data, deflate=True) == [violation(1002)]


def test_fault_18_a_window_of_eight_bits_is_accepted_by_a_client() -> None:
    """RFC 7692, section 7.1.2.2: zlib cannot compress with it, so messages are sent plain."""
    factory = ClientDeflateFactory(Deflate())
    extension = factory.process_response_params([("client_max_window_bits", "8")], [])
    encoder = Encoder(mask=False, deflate=DeflateStreams(extension))
    assert encoder.encode(["x" * 500]) == frame(TEXT, b"x" * 500)
    decoder = Decoder(masked=False, max_size=None, deflate=DeflateStreams(extension))
    assert flat(decoder.feed(compressed(HELLO))) == ["Hello"]
