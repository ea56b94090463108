"""The decoder: what legal bytes mean, what illegal ones are called, and when."""

from __future__ import annotations

from itertools import product

import pytest

from tests.cases import case_of
from tests.transports.native.frame_bytes import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    KEY,
    MASKED,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Item,
    decode,
    decode_every_way,
    flat,
    frame,
    header,
    single_bytes,
    traced_memory,
    violation,
)
from trioglock.frames import Close, Event, Ping, Pong, Violation
from trioglock.transports.native import Decoder


def plain(*, masked: bool = False, max_size: int | None = 2**20) -> Decoder:
    return Decoder(masked=masked, max_size=max_size, deflate=None)


# Whole messages.


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70001])
def test_every_length_is_read_in_one_chunk_and_in_many(length: int, masked: bool) -> None:
    """The three forms of the length meet without gap or overlap, wherever the header is cut."""
    text, binary = "x" * length, bytes(n % 251 for n in range(length))
    data = frame(TEXT, text.encode(), masked=masked) + frame(BINARY, binary, masked=masked)
    assert decode([data], masked=masked) == [text, binary]
    for size in (4093, len(data) - 1):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert decode(pieces, masked=masked) == [text, binary]
    for at in range(min(16, len(data))):
        assert decode([data[:at], data[at:]], masked=masked) == [text, binary]
    assert decode([*single_bytes(data[:20]), data[20:]], masked=masked) == [text, binary]


def test_chunks_may_be_cut_anywhere(masked: bool) -> None:
    """A conversation of every legal kind of frame means the same for every chunking."""
    expected: list[Item] = [
        "plain", b"\x00\xff", "", b"", Ping(b"between"), "häll€ 🐻 fragments", Pong(), "x" * 126,
        Ping(), Pong(b"p" * 125), b"after", Close(4000, "bye ☃"),
    ]  # fmt: skip
    words = "häll€ 🐻 fragments".encode()
    frames = [
        frame(TEXT, b"plain", masked=masked),
        frame(BINARY, b"\x00\xff", masked=masked),
        frame(TEXT, masked=masked),
        frame(BINARY, masked=masked),
        frame(TEXT, words[:2], fin=False, masked=masked),
        frame(PING, b"between", masked=masked),
        frame(CONT, b"", fin=False, masked=masked),
        frame(CONT, words[2:7], fin=False, masked=masked),
        frame(CONT, words[7:], masked=masked),
        frame(PONG, masked=masked),
        frame(TEXT, b"x" * 126, masked=masked),
        frame(PING, masked=masked),
        frame(PONG, b"p" * 125, masked=masked),
        frame(BINARY, b"af", fin=False, masked=masked),
        frame(CONT, b"ter", masked=masked),
        frame(CLOSE, b"\x0f\xa0" + "bye ☃".encode(), masked=masked),
    ]
    assert decode_every_way(b"".join(frames), masked=masked) == expected


def test_a_message_comes_out_with_its_last_byte(masked: bool) -> None:
    """Nothing is held back for a later chunk, and nothing comes out early."""
    decoder = plain(masked=masked)
    data = frame(TEXT, b"hello", masked=masked)
    assert [decoder.feed(byte) for byte in single_bytes(data[:-1])] == [[]] * (len(data) - 1)
    assert decoder.feed(data[-1:]) == [["hello"]]


def test_messages_in_a_row_come_as_one_run() -> None:
    """A run is cut only by a control frame; fragments do not cut it."""
    events = plain().feed(
        frame(TEXT, b"a")
        + frame(BINARY, b"b")
        + frame(TEXT, b"c", fin=False)
        + frame(CONT, b"c")
        + frame(PING)
        + frame(TEXT, b"d", fin=False)
        + frame(CONT)
    )
    assert events == [["a", b"b", "cc"], Ping(), ["d"]]


def test_plain_messages_and_one_whole_fragment_mean_the_same() -> None:
    """What the fast lane takes and what it leaves alone give equal messages."""
    payload = "fast = slow ☃".encode()
    fast = plain().feed(frame(TEXT, payload) + frame(BINARY, payload))
    slow = plain().feed(
        frame(TEXT, payload, fin=False) + frame(CONT)
        + frame(BINARY, fin=False) + frame(CONT, payload)
    )  # fmt: skip
    assert flat(fast) == flat(slow) == ["fast = slow ☃", payload]
    assert [type(item) for item in flat(slow)] == [str, bytes]


def test_a_message_may_have_65536_fragments(masked: bool) -> None:
    """Many fragments make one message, with control frames between."""
    count = 65536
    middle = frame(CONT, b"\xe2\x98", fin=False, masked=masked)
    middle += frame(CONT, b"\x83", fin=False, masked=masked)
    data = frame(TEXT, fin=False, masked=masked) + middle * (count // 4)
    data += frame(PING, b"alive", masked=masked) + middle * (count // 4)
    data += frame(CONT, masked=masked)
    assert decode([data], masked=masked) == [Ping(b"alive"), "☃" * (count // 2)]


@pytest.mark.slow
def test_endless_empty_fragments_cost_no_memory() -> None:
    """A message that never grows and never ends keeps nothing of its fragments."""
    decoder = plain()
    decoder.feed(frame(BINARY, b"begun", fin=False))
    empty = frame(CONT, fin=False) * 1000
    decoder.feed(empty)
    with traced_memory() as measure:
        for _ in range(50):
            assert decoder.feed(empty) == []
        kept, _ = measure()
    assert kept < 10_000
    assert decoder.feed(frame(CONT)) == [[b"begun"]]


# Limits.


def test_the_largest_message_passes_and_one_byte_more_is_1009(masked: bool) -> None:
    """``max_size`` is inclusive, for one frame as for the sum of its fragments."""
    for opcode, whole in ((TEXT, "x" * 300), (BINARY, b"x" * 300)):
        for pieces in ([300], [100, 200], [300, 0], [0, 300], [1] * 300):
            data = message(opcode, pieces, masked=masked)
            assert decode([data], masked=masked, max_size=300) == [whole]
            assert decode(single_bytes(data), masked=masked, max_size=300) == [whole]
            assert decode([data], masked=masked, max_size=299) == [violation(1009)]
            assert decode(single_bytes(data), masked=masked, max_size=299) == [violation(1009)]


def message(opcode: int, pieces: list[int], *, masked: bool) -> bytes:
    """A message of ``x``, one fragment for each length."""
    opcodes = [opcode] + [CONT] * (len(pieces) - 1)
    ends = [False] * (len(pieces) - 1) + [True]
    return b"".join(
        frame(code, b"x" * length, fin=fin, masked=masked)
        for code, length, fin in zip(opcodes, pieces, ends, strict=True)
    )


def test_the_limit_counts_each_message_by_itself() -> None:
    """Messages that came before do not use up the limit."""
    data = (message(TEXT, [5, 5], masked=False) + message(BINARY, [10], masked=False)) * 3
    assert decode_every_way(data, max_size=10) == ["x" * 10, b"x" * 10] * 3


@pytest.mark.parametrize("length", [11, 126, 65536, 2**40, 2**63, 2**64 - 1])
def test_a_frame_too_large_is_refused_for_its_header(length: int) -> None:
    """1009 comes as soon as the length is known, before mask and payload."""
    head = header(FIN | BINARY, length)
    decoder = plain(max_size=10)
    assert decode(single_bytes(head[:-1]), max_size=10) == []
    assert decoder.feed(head) == [Violation(1009, "a message is larger than max_size (10 bytes)")]
    fragment = frame(TEXT, b"x" * 9, fin=False) + header(CONT, 2)
    assert decode([fragment], max_size=10) == [violation(1009)]


def test_without_a_limit_any_length_passes() -> None:
    """``max_size=None`` reads what the default would refuse."""
    data = frame(BINARY, b"x" * (2**20 + 1))
    assert decode([data], max_size=2**20) == [violation(1009)]
    assert decode([data], max_size=None) == [b"x" * (2**20 + 1)]
    assert decode([header(FIN | BINARY, 2**62)], max_size=None) == []


def test_control_frames_do_not_count_towards_the_limit() -> None:
    """Pings may be longer than what is left of ``max_size``."""
    data = frame(TEXT, b"abc", fin=False) + frame(PING, b"p" * 125) + frame(CONT)
    assert decode_every_way(data, max_size=3) == [Ping(b"p" * 125), "abc"]


# What is illegal.

ILLEGAL = [
    *((FIN | RSV1 | op, 0) for op in (TEXT, BINARY, PING)),
    *((FIN | RSV2 | op, 0) for op in (TEXT, PONG, CLOSE)),
    *((FIN | RSV3 | op, 0) for op in (BINARY, CLOSE)),
    *((FIN | op, 0) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *((op, 0) for op in (CLOSE, PING, PONG)),
    *((FIN | op, 126) for op in (CLOSE, PING, PONG)),
    (FIN | PING, 65536),
    (FIN | CONT, 0),
    (CONT, 5),
]


def test_an_illegal_head_is_1002(masked: bool) -> None:
    """Refused for its first two bytes, whatever would follow, after all that came before."""
    before = frame(BINARY, b"before", masked=masked) + frame(PING, masked=masked)
    for head, length in ILLEGAL:
        with case_of(hex(head), length):
            illegal = header(head, length, masked=masked)
            events = decode_every_way(before + illegal, masked=masked)
            assert events == [b"before", Ping(), violation(1002)]
            decoder = plain(masked=masked, max_size=1)
            assert decoder.feed(illegal[:1]) == []
            codes = [getattr(event, "code", None) for event in decoder.feed(illegal[1:2])]
            assert codes == [1002]


def test_masking_in_the_wrong_role_is_1002(masked: bool) -> None:
    """Clients must mask, servers must not; no frame of the wrong kind gets through."""
    for opcode, length in product((TEXT, BINARY, PING, CLOSE), (0, 2, 125)):
        with case_of(opcode, length):
            payload = b"\x03\xe8" + b"x" * (length - 2) if length else b""
            good = frame(TEXT, b"good", masked=masked)
            data = good + frame(opcode, payload, masked=not masked)
            assert decode_every_way(data, masked=masked) == ["good", violation(1002)]
            assert decode([header(FIN | TEXT, 70000, masked=not masked)], masked=masked) == [
                violation(1002)
            ]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_data_between_fragments_is_1002(opcode: int, fin: bool, masked: bool) -> None:
    """A new message may begin only once the last one has ended."""
    data = frame(TEXT, b"begun", fin=False, masked=masked)
    data += frame(PING, masked=masked) + frame(opcode, b"new", fin=fin, masked=masked)
    assert decode_every_way(data, masked=masked) == [Ping(), violation(1002)]


@pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3])
def test_reserved_bits_in_a_continuation_are_1002(rsv: int) -> None:
    """Also where the first fragment was in order."""
    data = frame(TEXT, b"begun", fin=False) + frame(CONT, b"end", rsv=rsv)
    assert decode_every_way(data) == [violation(1002)]


# The end.


CLOSE_FRAMES = [
    (b"", Close(1005)),
    (b"\x03\xe8", Close(1000)),
    (b"\x03\xe9going away", Close(1001, "going away")),
    (b"\x0b\xb8" + b"r" * 123, Close(3000, "r" * 123)),
    (b"\x13\x87\xe2\x98\x83", Close(4999, "☃")),
    (b"\x03", violation(1002)),
    *(
        (code.to_bytes(2, "big"), violation(1002))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    ),
    (b"\x03\xe8\xff", violation(1007)),
    (b"\x03\xe8\xe2\x98", violation(1007)),
    (b"\x03\xe8\xed\xa0\x80", violation(1007)),
]


def test_a_close_frame_says_what_its_payload_means(masked: bool) -> None:
    """No code is 1005; codes that may not travel are 1002; a bad reason is 1007."""
    for payload, expected in CLOSE_FRAMES:
        with case_of(payload):
            data = frame(TEXT, b"last", masked=masked) + frame(CLOSE, payload, masked=masked)
            assert decode_every_way(data, masked=masked) == ["last", expected]


def test_a_close_between_fragments_is_a_close() -> None:
    """The unfinished message is lost; the Close frame is not an error."""
    data = frame(TEXT, b"never finish", fin=False) + frame(CLOSE, b"\x03\xe8") + frame(CONT)
    assert decode_every_way(data) == [Close(1000)]


@pytest.mark.parametrize(
    "last",
    [
        frame(CLOSE, b"\x03\xe8"), frame(CLOSE), frame(CLOSE, b"\x03"), frame(3), frame(CONT),
        frame(TEXT, b"\xff"), frame(TEXT, b"\xff", fin=False), frame(BINARY, b"x" * 31),
        frame(TEXT, b"x", masked=True),
    ],
)  # fmt: skip
def test_nothing_comes_after_the_end(last: bytes) -> None:
    """After Close or Violation, in the same chunk or a later one, the decoder is silent."""
    after = frame(TEXT, b"x") + frame(PING) + frame(CLOSE)
    decoder = plain(max_size=30)
    events: list[Event] = decoder.feed(frame(TEXT, b"first") + last + after)
    assert events[0] == ["first"]
    assert len(events) == 2
    assert isinstance(events[1], Close | Violation)
    for chunk in (after, b"", *single_bytes(after)):
        assert decoder.feed(chunk) == []
        assert not decoder.backlog
    assert len(decode_every_way(frame(TEXT, b"first") + last + after, max_size=30)) == 2


def test_the_masking_key_may_be_anything() -> None:
    """Each frame has its own key, also one of zeros; it turns with every cut."""
    zeros = bytes((FIN | TEXT, MASKED | 2)) + b"\0\0\0\0" + b"hi"
    keyed = bytes((FIN | TEXT, MASKED | 5)) + KEY + bytes.fromhex("7f9f4d5158")  # RFC 6455, 5.7
    assert decode_every_way(zeros + keyed + zeros, masked=True) == ["hi", "Hello", "hi"]
