"""Text is UTF-8: what is not is refused at its first bad byte, however it is cut."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.cases import case_of
from tests.transports.native.frame_bytes import (
    BINARY,
    CONT,
    TEXT,
    decode_every_way,
    drain,
    flat,
    frame,
    single_bytes,
    violation,
)
from trioglock.frames import Violation
from trioglock.transports.native import Decoder

BAD_UTF8 = [
    pytest.param(b"ok\xff", 2, id="no such byte"),
    pytest.param(b"\x80", 0, id="continuation without start"),
    pytest.param(b"\xc0\xaf", 0, id="overlong, two bytes"),
    pytest.param(b"\xc1\xbf", 0, id="overlong, 0xc1"),
    pytest.param(b"a\xe0\x80\xaf", 2, id="overlong, three bytes"),
    pytest.param(b"\xf0\x80\x80\xaf", 1, id="overlong, four bytes"),
    pytest.param(b"\xed\xa0\x80", 1, id="surrogate, high"),
    pytest.param(b"\xed\xbf\xbf", 1, id="surrogate, low"),
    pytest.param(b"\xf4\x90\x80\x80", 1, id="above U+10FFFF"),
    pytest.param(b"\xf5\x80\x80\x80", 0, id="0xf5"),
    pytest.param(b"\xe2\x98!", 2, id="cut off by ASCII"),
    pytest.param(b"\xf0\x9f\x90\xf0", 3, id="cut off by a start"),
]


@pytest.mark.parametrize(("payload", "bad"), BAD_UTF8)
def test_bad_text_is_refused_at_its_first_bad_byte(payload: bytes, bad: int, masked: bool) -> None:
    """1007 does not wait for the end of the frame, nor for that of the message."""
    rest = b"!" * 10
    inside = frame(TEXT, payload + rest, masked=masked)
    start = len(inside) - len(rest) - len(payload)
    assert first_bad_byte(single_bytes(inside), masked=masked) == start + bad
    fragments = [frame(TEXT, b"ok", fin=False, masked=masked)]
    fragments += [frame(CONT, byte, fin=False, masked=masked) for byte in single_bytes(payload)]
    assert first_bad_byte(fragments, masked=masked) == 1 + bad


def first_bad_byte(chunks: Iterable[bytes], *, masked: bool) -> int:
    """The number of the chunk at which a decoder reports 1007."""
    decoder = Decoder(masked=masked, max_size=None, deflate=None)
    for number, chunk in enumerate(chunks):
        match decoder.feed(chunk):
            case []:
                pass
            case [Violation(1007)]:
                return number
            case other:
                raise AssertionError(other)
    raise AssertionError("never refused")


def test_bad_text_is_1007_for_every_chunking(masked: bool) -> None:
    """Whole frames and fragments alike; characters cut off by the end of the message too."""
    for payload in (*(case.values[0] for case in BAD_UTF8), b"\xe2\x98", b"\xf0"):
        with case_of(payload):
            assert isinstance(payload, bytes)
            good = frame(TEXT, b"good", masked=masked)
            whole = good + frame(TEXT, payload, masked=masked) + good
            assert decode_every_way(whole, masked=masked) == ["good", violation(1007)]
            parts = frame(TEXT, payload[:1], fin=False, masked=masked)
            parts += frame(CONT, payload[1:], masked=masked)
            assert decode_every_way(good + parts + good, masked=masked) == ["good", violation(1007)]
            unfinished = frame(TEXT, payload, fin=False, masked=masked) + frame(CONT, masked=masked)
            assert decode_every_way(unfinished, masked=masked) == [violation(1007)]


def test_what_is_no_text_in_utf8_is_fine_in_binary(masked: bool) -> None:
    """Only text is validated."""
    for case in BAD_UTF8:
        payload = case.values[0]
        assert isinstance(payload, bytes)
        assert decode_every_way(frame(BINARY, payload, masked=masked), masked=masked) == [payload]


def test_the_words_of_a_violation_do_not_depend_on_chunks() -> None:
    """The result does not depend on how the bytes are cut."""
    data = frame(TEXT, b"ok") + frame(TEXT, b"ab\xff")
    whole = Decoder(masked=False, max_size=None, deflate=None).feed(data)
    decoder = Decoder(masked=False, max_size=None, deflate=None)
    assert flat(whole) == [item for byte in single_bytes(data) for item in drain(decoder, byte)]
