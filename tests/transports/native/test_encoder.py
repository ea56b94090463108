"""The encoder: every frame in its shortest legal form, masked for a client."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.transports.native.frame_bytes import (
    BINARY,
    CLOSE,
    FIN,
    KEY,
    MASKED,
    PING,
    PONG,
    RSV1,
    TEXT,
    apply_key,
    decode,
    frame,
    header,
    new_deflate,
)
from tests.transports.native.websockets_parser import Library
from trioglock.frames import Close, Frame, Ping, Pong, PreparedMessage
from trioglock.transports.native import Encoder, fast_path

CONVERSATION: list[Frame] = [
    "text ☃", b"\x00binary\xff", "", b"", Ping(), Ping(b"p" * 125), Pong(b"answer"), "x" * 126,
    b"x" * 65536, PreparedMessage("text ☃"), PreparedMessage(b"\x00"), Close(1001, "bye ☃"),
]  # fmt: skip


def plain(*, mask: bool) -> Encoder:
    return Encoder(mask=mask, deflate=None)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70001])
def test_the_length_takes_its_shortest_form(length: int) -> None:
    """RFC 6455, section 5.2: the minimal number of bytes must be used."""
    assert plain(mask=False).encode(["x" * length]) == frame(TEXT, b"x" * length)
    assert plain(mask=False).encode([b"\xff" * length]) == frame(BINARY, b"\xff" * length)
    masked = plain(mask=True).encode([b"\xff" * length])
    assert masked[: -length or None][:-4] == header(FIN | BINARY, length, masked=True)[:-4]
    assert decode([masked], masked=True) == [b"\xff" * length]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("häll€", frame(TEXT, "häll€".encode())),
        (b"\x00\xff", frame(BINARY, b"\x00\xff")),
        (Ping(b"p" * 125), frame(PING, b"p" * 125)),
        (Ping(), frame(PING)),
        (Pong(b"answer"), frame(PONG, b"answer")),
        (Close(), frame(CLOSE, b"\x03\xe8")),
        (Close(4999, "☃"), frame(CLOSE, b"\x13\x87\xe2\x98\x83")),
        (Close(1005), frame(CLOSE)),
    ],
)
def test_each_kind_of_frame_has_its_bytes(sent: Frame, expected: bytes) -> None:
    """Opcode, FIN and payload as RFC 6455 writes them; 1005 stands for no code at all."""
    assert plain(mask=False).encode([sent]) == expected


def test_frames_leave_in_one_piece_and_in_order() -> None:
    """A batch is the frames one after the other; no frames are no bytes."""
    encoder = plain(mask=False)
    batch = encoder.encode(CONVERSATION)
    assert batch == b"".join(plain(mask=False).encode([item]) for item in CONVERSATION)
    assert encoder.encode([]) == b""
    assert encoder.encode(["lazy"]) == frame(TEXT, b"lazy")


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("deflate", [True, False])
def test_what_we_send_is_read(mask: bool, deflate: bool) -> None:
    """Our decoder and websockets read the same frames, compressed and not."""
    encoder = Encoder(mask=mask, deflate=new_deflate() if deflate else None)
    data = encoder.encode(CONVERSATION)
    expected = [
        item.message if isinstance(item, PreparedMessage) else item for item in CONVERSATION
    ]
    assert decode([data], masked=mask, deflate=deflate) == expected
    library = Library(masked=mask, deflate=deflate, max_size=2**20)
    library.feed(data)
    assert library.items == expected


def test_only_data_is_compressed() -> None:
    """RSV1 marks compressed messages; control frames stay as they are (RFC 7692, section 6)."""
    encoder = Encoder(mask=False, deflate=new_deflate())
    assert encoder.encode(["x" * 1000])[0] == FIN | RSV1 | TEXT
    assert encoder.encode([b"x" * 1000])[0] == FIN | RSV1 | BINARY
    assert len(encoder.encode(["x" * 1000])) < 50
    for control in (Ping(b"x" * 100), Pong(b"x" * 100), Close(1000, "x" * 100)):
        assert encoder.encode([control]) == plain(mask=False).encode([control])


def test_every_frame_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from the operating system, are never used twice and never run out."""
    given: list[bytes] = []

    def urandom(size: int) -> bytes:
        start = sum(map(len, given))
        given.append(b"".join(n.to_bytes(4, "big") for n in range(start // 4, (start + size) // 4)))
        return given[-1]

    monkeypatch.setattr("os.urandom", urandom)
    encoder = plain(mask=True)
    count = 2500
    data = encoder.encode(["\0\0"] * 3) + b"".join(encoder.encode([b""]) for _ in range(count))
    keys = [data[at * 8 + 2 : at * 8 + 6] for at in range(3)]
    assert [data[at * 8 + 6 : at * 8 + 8] for at in range(3)] == [key[:2] for key in keys]
    keys += [data[24 + at * 6 + 2 : 24 + at * 6 + 6] for at in range(count)]
    assert keys == [n.to_bytes(4, "big") for n in range(3 + count)]
    assert all(len(piece) > 4 for piece in given), "one system call serves many frames"


def test_masks_are_not_predictable() -> None:
    """Two encoders do not share their keys (RFC 6455, section 10.3)."""
    first, second = (plain(mask=True).encode([Ping(b"")] * 20) for _ in range(2))
    assert first != second
    assert first[1] == second[1] == MASKED


@pytest.mark.parametrize("item", [None, 5, bytearray(b"x"), memoryview(b"x"), ["x"]])
def test_what_is_no_frame_is_a_bug_of_ours(item: object) -> None:
    """The send queue lets nothing else through; should it, no wrong bytes leave."""
    with pytest.raises(KeyError):
        plain(mask=False).encode([item])  # type: ignore[list-item]


def test_masking_works_without_the_compiled_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where websockets has no C code, its Python function masks the same."""
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    # The source, also if the imported module is a compiled one.
    spec = importlib.util.spec_from_file_location(
        "trioglock.transports.native.fast_path_in_python",
        Path(fast_path.__file__).with_name("fast_path.py"),
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.apply_mask is not fast_path.apply_mask
    for length in (0, 1, 4, 1001):
        payload = bytes(n % 256 for n in range(length))
        assert module.apply_mask(payload, KEY) == apply_key(payload)
        assert fast_path.apply_mask(payload, KEY) == apply_key(payload)
