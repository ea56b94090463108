"""The decoder for ``fragments=True`` returns the same messages, in pieces of bounded size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import CHARACTERS
from tests.transports.native.frame_bytes import (
    BINARY,
    CONT,
    FIN,
    RSV1,
    TEXT,
    frame,
    header,
    new_deflate,
    packed,
    violation,
)
from tests.transports.native.test_against_library import chunked, strange_frames
from trioglock.frames import Close, Data, Fragment, Ping, Violation
from trioglock.transports.native import Encoder
from trioglock.transports.native.decoder import Decoder
from trioglock.transports.native.fragment_decoder import PIECE, FragmentDecoder

HUGE = 2**40


def feed(decoder: Decoder, chunk: bytes) -> list[Any]:
    """All events of a chunk; runs are flattened, and violations have no reason."""
    events = decoder.feed(chunk)
    while decoder.backlog:
        events = [*events, *decoder.feed(b"")]
    return [
        violation(one.code) if isinstance(one, Violation) else one
        for event in events
        for one in (event if isinstance(event, list) else [event])
    ]


def new_decoder(
    max_size: int | None = None, *, masked: bool = False, deflate: bool = False
) -> FragmentDecoder:
    return FragmentDecoder(
        masked=masked, max_size=max_size, deflate=new_deflate() if deflate else None
    )


def joined(events: list[Any]) -> list[Any]:
    """The messages and other events; a control frame comes before the end of its message."""
    items: list[Any] = []
    parts: list[Any] | None = None
    for event in events:
        if not isinstance(event, Fragment):
            items.append(event)
            continue
        assert event.first == (parts is None)
        parts = [*(parts or []), event.data]
        if event.final:
            items.append(parts[0][:0].join(parts))
            parts = None
    return items


# Any fragmentation.

pieces = st.one_of(
    st.lists(st.text(CHARACTERS, max_size=30), max_size=5),
    st.lists(st.binary(max_size=100), max_size=5),
)
pings = st.lists(st.binary(max_size=5).map(Ping), max_size=1)


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Any]]:
    """The frames of each write, with pings between fragments."""
    frames: list[Any] = []
    for message in draw(st.lists(pieces, max_size=5)):
        end = message[0][:0] if message else b""
        for at, piece in enumerate([*message, end]):
            frames += draw(pings)
            frames.append(Fragment(piece, first=not at, final=at == len(message)))
        frames += draw(
            st.lists(
                st.one_of(st.text(CHARACTERS, max_size=10), st.binary(max_size=10)), max_size=1
            )
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(frames)), max_size=5)))
    return [frames[a:b] for a, b in zip([0, *cuts], [*cuts, len(frames)], strict=True)]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    writes=conversations(),
    masked=st.booleans(),
    compression=st.sampled_from(["none", "takeover", "no takeover"]),
    max_size=st.sampled_from([None, 1, 7, 50]),
)
def test_the_same_bytes_come_out(
    data: st.DataObject,
    writes: list[list[Any]],
    masked: bool,
    compression: str,
    max_size: int | None,
) -> None:
    deflates = [
        None if compression == "none" else new_deflate(takeover=compression == "takeover")
        for _ in range(3)
    ]
    encoder = Encoder(mask=masked, deflate=deflates[0])
    chunks = data.draw(chunked(b"".join(encoder.encode(write) for write in writes)))
    decoder = FragmentDecoder(masked=masked, max_size=max_size, deflate=deflates[1])
    events = [event for chunk in chunks for event in feed(decoder, chunk)]
    sent = [one for write in writes for one in write]
    assert joined(events) == joined(sent)
    for event in events:
        if isinstance(event, Fragment):
            assert event.data or event.final
            assert max_size is None or event.size <= max_size + 3
    whole = Decoder(masked=masked, max_size=None, deflate=deflates[2])
    assert [one for chunk in chunks for one in feed(whole, chunk)] == joined(sent)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(data=st.data(), masked=st.booleans(), deflate=st.booleans())
def test_the_same_violations(data: st.DataObject, masked: bool, deflate: bool) -> None:
    wire = b"".join(data.draw(st.lists(strange_frames(masked=masked), max_size=8)))
    chunks = data.draw(chunked(wire))
    fragments = new_decoder(masked=masked, deflate=deflate)
    whole = Decoder(masked=masked, max_size=None, deflate=new_deflate() if deflate else None)
    ours = joined([one for chunk in chunks for one in feed(fragments, chunk)])
    theirs = [one for chunk in chunks for one in feed(whole, chunk)]
    assert [_comparable(one) for one in ours] == [_comparable(one) for one in theirs]


def _comparable(item: object) -> object:
    # Text that is inflated is validated at once, so it may be invalid before it is corrupt.
    return "refused" if isinstance(item, Violation) else item


# Sizes.


@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_a_huge_frame_is_returned_as_it_arrives(head: int) -> None:
    decoder = new_decoder()
    assert feed(decoder, header(FIN | head, HUGE)) == []
    empty: Data = "" if head == TEXT else b""
    for number in range(3):
        [fragment] = feed(decoder, b"x" * 1000)
        assert fragment.first == (number == 0)
        assert not fragment.final
        assert len(fragment.data) == 1000
        assert type(fragment.data) is type(empty)


def test_a_large_chunk_is_divided() -> None:
    [*others, last] = feed(new_decoder(), frame(BINARY, bytes(3 * PIECE)))
    assert [len(one.data) for one in [*others, last]] == [PIECE] * 3
    assert last.final
    assert not any(one.final for one in others)


def test_text_is_divided_between_characters() -> None:
    text = "aé☃𝄞" * 10
    for limit in range(1, 12):
        events = feed(new_decoder(limit), frame(TEXT, text.encode()))
        assert "".join(one.data for one in events) == text
        assert all(len(one.data.encode()) <= max(limit + 3, 4) for one in events)


def test_inflation_is_bounded() -> None:
    """One step inflates 256 KiB, whatever the size of the frame."""
    [payload] = packed(bytes(2**24))
    assert len(payload) < 20_000
    decoder = new_decoder(deflate=True)
    events = decoder.feed(frame(RSV1 | BINARY, payload) + frame(TEXT, b"next"))
    assert decoder.backlog
    assert sum(one.size for one in events if isinstance(one, Fragment)) <= 2**18 + PIECE
    rest = feed(decoder, b"")
    assert sum(len(one.data) for one in [*events, *rest[:-1]]) == 2**24
    assert rest[-1].data == "next"
    assert max(one.size for one in rest) <= PIECE


def test_invalid_text_is_refused_at_its_first_byte() -> None:
    decoder = new_decoder()
    assert feed(decoder, frame(TEXT, b"ok", fin=False)) == [Fragment("ok", first=True, final=False)]
    assert feed(decoder, header(CONT, HUGE) + b"good") == [
        Fragment("good", first=False, final=False)
    ]
    assert feed(decoder, b"\xff") == [violation(1007)]
    assert feed(decoder, b"x") == []


def test_text_that_ends_within_a_character() -> None:
    assert feed(new_decoder(), frame(TEXT, "☃".encode()[:2])) == [violation(1007)]


def test_a_close_frame_within_a_message() -> None:
    events = feed(
        new_decoder(), frame(TEXT, b"a", fin=False) + frame(0x88, b"") + frame(CONT, b"b")
    )
    assert events == [Fragment("a", first=True, final=False), Close(1005)]
