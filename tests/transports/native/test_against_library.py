"""Our decoder and websockets' Sans-I/O protocol read the same bytes, legal and mutated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from tests.strategies import CHARACTERS
from tests.transports.native.frame_bytes import FIN, TEXT, frame, header, new_deflate
from tests.transports.native.websockets_parser import MAX_SIZE, Library, assert_agreement
from trioglock.frames import Ping
from trioglock.transports.native import Encoder

pytestmark = pytest.mark.slow

repeatable = settings(deadline=None, derandomize=True)

# What travels.

near_limit = st.integers(MAX_SIZE - 2, MAX_SIZE + 2)
texts = st.one_of(st.text(CHARACTERS, max_size=100), near_limit.map(lambda n: "x" * n))
blobs = st.one_of(st.binary(max_size=140), near_limit.map(lambda n: b"\xe2" * n))
controls = st.one_of(
    st.binary(max_size=125).map(lambda payload: Frame(Opcode.PING, payload)),
    st.binary(max_size=125).map(lambda payload: Frame(Opcode.PONG, payload)),
)


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """One data message, cut into fragments anywhere, with control frames between."""
    text = draw(st.booleans())
    payload = draw(texts).encode() if text else draw(blobs)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames: list[Frame] = []
    for number, piece in enumerate(pieces):
        if number:
            frames += draw(st.lists(controls, max_size=1))
        kind = Opcode.CONT if number else Opcode.TEXT if text else Opcode.BINARY
        frames.append(Frame(kind, piece, fin=number == len(pieces) - 1))
    return frames


closes = st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0" + "☃".encode()]).map(
    lambda payload: [Frame(Opcode.CLOSE, payload)]
)
conversations = st.lists(
    st.one_of(messages(), messages(), controls.map(lambda control: [control])), max_size=6
).flatmap(lambda groups: st.one_of(st.just(groups), closes.map(lambda end: [*groups, end])))


def serialized(groups: list[list[Frame]], *, masked: bool, deflate: bool) -> list[bytes]:
    extensions = [PerMessageDeflate(False, False, 15, 15)] if deflate else []
    return [
        each.serialize(mask=masked, extensions=extensions) for group in groups for each in group
    ]


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data`` cut anywhere: whole, in a few pieces or in many."""
    match draw(st.sampled_from(["whole", "some", "all"])):
        case "whole":
            return [data]
        case "all":
            return [data[at : at + 1] for at in range(len(data))]
        case _:
            cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
            return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@repeatable
@given(st.data(), conversations, st.booleans(), st.booleans())
def test_legal_conversations_are_read_alike(
    data: st.DataObject, groups: list[list[Frame]], masked: bool, deflate: bool
) -> None:
    """Whatever websockets sends, both read the same messages, or find them too large."""
    wire = b"".join(serialized(groups, masked=masked, deflate=deflate))
    assert_agreement(data.draw(chunked(wire)), masked=masked, deflate=deflate)


@repeatable
@given(
    st.data(),
    st.lists(st.one_of(texts, blobs, st.binary(max_size=125).map(Ping)), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_what_our_encoder_sends_is_read_alike(
    data: st.DataObject, sent: list[str | bytes | Ping], masked: bool, deflate: bool
) -> None:
    """Our own bytes mean to websockets what they mean to us."""
    encoder = Encoder(mask=masked, deflate=new_deflate() if deflate else None)
    chunks = data.draw(chunked(encoder.encode(sent)))
    assert_agreement(chunks, masked=masked, deflate=deflate)
    library = Library(masked=masked, deflate=deflate)
    for chunk in chunks:
        library.feed(chunk)
    if not library.ended:
        assert library.items == sent


# What should not travel.


bad_texts = st.sampled_from([b"ok\xff", b"\xed\xa0\x80", b"\xe2\x98", b"\x83", b"\xf0\x80"])
payloads = st.one_of(
    bad_texts,
    st.binary(max_size=20),
    st.sampled_from([b"", b"plain", b"\x03\xe8", b"\x03\xed"]),
    st.integers(120, MAX_SIZE + 5).map(lambda n: b"y" * n),
)
# Whole messages, fragments, control frames, compressed ones, and their illegal neighbours.
usual_heads = st.sampled_from([0x81, 0x82, 0x01, 0x80, 0x00, 0x88, 0x89])
strange_heads = st.one_of(
    st.sampled_from([0xC1, 0x41, 0x08, 0x0A, 0xA1, 0x83]), st.integers(0, 255)
)


@st.composite
def strange_frames(draw: st.DrawFn, *, masked: bool) -> bytes:
    """A frame of any kind, mostly legal, perhaps in the wrong role or without its end."""
    head = draw(st.one_of(usual_heads, usual_heads, usual_heads, strange_heads))
    payload = draw(payloads)
    match draw(st.integers(0, 15)):
        case 0:
            return header(head, len(payload), masked=not masked) + payload
        case 1:
            return header(head, draw(st.sampled_from([126, 400, 2**40])), masked=masked) + payload
        case 2 | 3:
            return frame(TEXT, draw(bad_texts), masked=masked)
        case _:
            return frame(head & 0xF, payload, fin=head >= FIN, rsv=head & 0x70, masked=masked)


@repeatable
@given(st.data(), st.booleans(), st.booleans())
def test_strange_frames_are_refused_alike(data: st.DataObject, masked: bool, deflate: bool) -> None:
    """Both give the same messages before the same close code."""
    good = frame(TEXT, b"good", masked=masked)
    strange = data.draw(st.lists(strange_frames(masked=masked), min_size=1, max_size=5))
    chunks = data.draw(chunked(good + b"".join(strange)))
    assert_agreement(chunks, masked=masked, deflate=deflate)


@repeatable
@given(st.data(), conversations, st.booleans(), st.booleans())
def test_mutated_conversations_are_refused_alike(
    data: st.DataObject, groups: list[list[Frame]], masked: bool, deflate: bool
) -> None:
    """Bytes changed, lost, doubled or put in anywhere: the same messages, the same close code."""
    pieces = serialized(groups, masked=masked, deflate=deflate)
    if len(pieces) > 1 and data.draw(st.booleans()):
        pieces = data.draw(st.permutations(pieces))
    wire = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(wire)))
        match data.draw(st.sampled_from(["flip", "lose", "insert", "cut"])):
            case "flip" if at < len(wire):
                wire[at] ^= 1 << data.draw(st.integers(0, 7))
            case "lose":
                del wire[at : at + data.draw(st.integers(1, 4))]
            case "insert":
                wire[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case _:
                del wire[at:]
    assert_agreement(data.draw(chunked(bytes(wire))), masked=masked, deflate=deflate)


@repeatable
@given(st.data(), st.binary(max_size=60), st.booleans(), st.booleans())
def test_arbitrary_bytes_are_refused_alike(
    data: st.DataObject, noise: bytes, masked: bool, deflate: bool
) -> None:
    """Nothing that arrives can raise, and both call it the same."""
    assert_agreement(data.draw(chunked(noise)), masked=masked, deflate=deflate)
