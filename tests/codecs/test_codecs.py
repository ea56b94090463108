"""Codecs: messages survive encoding and decoding; malformed frames raise DecodeError."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from typing import Any, Literal

import msgspec
import pytest

from trioglock import DecodeError, EncodeError, InvalidOption
from trioglock.codecs import JSON, Codec, Msgpack
from trioglock.codecs.json import LIBRARIES

Library = Literal["msgspec", "orjson", "json"]

EVENT = {
    "event": "channels/send",
    "payload": {"message": "grüß dich ☕", "n": [1, 2.5, None, True]},
}


class Broadcast(msgspec.Struct, frozen=True):
    event: str
    payload: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@pytest.fixture(params=LIBRARIES)
def json_codec(request: pytest.FixtureRequest) -> JSON:
    return JSON(library=request.param)


def test_json_round_trip(json_codec: JSON) -> None:
    """Every library writes compact text without escapes for non-ASCII, and decodes it again."""
    frame = json_codec.encode(EVENT)
    assert isinstance(frame, str)
    assert " " not in frame.replace("grüß dich ☕", "")
    assert "grüß dich ☕" in frame
    assert json_codec.decode(frame) == EVENT
    assert json_codec.decode(frame.encode()) == EVENT


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "nonsense",
        '{"a":NaN}',
        '{"a":1e999}',
        "[Infinity]",
        "[-Infinity]",
        '{"a":1}x',
        b"\xff\xfe{}",
        b"\xc3",
        "[" * 100_000,
    ],
)
def test_invalid_json_raises(json_codec: JSON, frame: str | bytes) -> None:
    """DecodeError with its cause for malformed text, invalid UTF-8 and very deep nesting."""
    with pytest.raises(DecodeError, match="invalid JSON") as caught:
        json_codec.decode(frame)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("message", [object(), {1j: 2}, {"a": object()}])
def test_inexpressible_messages_raise(json_codec: JSON, message: Any) -> None:
    """EncodeError instead of the exception of the library."""
    with pytest.raises(EncodeError, match="not expressible as JSON"):
        json_codec.encode(message)


def test_circular_messages_raise(json_codec: JSON) -> None:
    """A list that contains itself raises EncodeError instead of exhausting the stack."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        json_codec.encode(endless)


@pytest.mark.parametrize("library", LIBRARIES)
def test_nan_is_never_sent(library: Library) -> None:
    """NaN and Infinity raise EncodeError or are written as null, depending on the library."""
    codec = JSON(library=library)
    try:
        frame = codec.encode([float("nan"), float("inf")])
    except EncodeError:
        return
    assert frame == "[null,null]"


@pytest.mark.slow
def test_the_default_library() -> None:
    """msgspec, then orjson, then the standard library; checked without the first two as well."""
    assert JSON().library == next(n for n in LIBRARIES if importlib.util.find_spec(n))
    script = """
import sys
sys.modules["msgspec"] = sys.modules["orjson"] = None
import importlib.util
real = importlib.util.find_spec
gone = ("msgspec", "orjson")
importlib.util.find_spec = lambda name, *rest: None if name in gone else real(name, *rest)
from trioglock import InvalidOption
from trioglock.codecs import JSON, Msgpack
assert JSON().library == "json", JSON()
for make in (Msgpack, lambda: JSON(dict), lambda: JSON(library="orjson")):
    try:
        make()
    except InvalidOption as error:
        assert "trioglock[codecs]" in str(error), error
    else:
        raise AssertionError(make)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)  # noqa: S603


def test_typed_json() -> None:
    """Decodes Structs and dataclasses; DecodeError names the field that does not match."""
    codec = JSON(Broadcast)
    assert codec.decode('{"event":"a/b","payload":{"k":"v"}}') == Broadcast("a/b", {"k": "v"})
    assert JSON(Point).decode('{"x":1}') == Point(1)
    assert JSON(Point).encode(Point(1, 2)) == '{"x":1,"y":2}'
    with pytest.raises(DecodeError, match=r"payload"):
        codec.decode('{"event":"a/b","payload":3}')


def test_invalid_options_raise() -> None:
    """Unknown libraries and types raise InvalidOption in the constructor."""
    with pytest.raises(InvalidOption, match="'msgspec', 'orjson' or 'json'"):
        JSON(library="simplejson")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="needs library='msgspec'"):
        JSON(Point, library="json")
    for codec in (JSON, Msgpack):
        with pytest.raises(InvalidOption, match="into"):
            codec(3)
    assert repr(JSON(library="json")) == "JSON(library='json')"


def test_msgpack_round_trip() -> None:
    """Binary frames, with bytes in the message, untyped and typed."""
    codec = Msgpack()
    message = {**EVENT, "raw": b"\x00\xff"}
    frame = codec.encode(message)
    assert isinstance(frame, bytes)
    assert codec.decode(frame) == message
    assert Msgpack(Point).decode(codec.encode({"x": 3})) == Point(3)
    assert repr(codec) == "Msgpack()"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x92\x01", "text", b"\x91" * 100_000])
def test_invalid_msgpack_raises(frame: str | bytes) -> None:
    """DecodeError for truncated frames, reserved bytes, text and very deep nesting."""
    with pytest.raises(DecodeError, match="invalid MessagePack"):
        Msgpack().decode(frame)
    with pytest.raises(EncodeError, match="not expressible as MessagePack"):
        Msgpack().encode(object())


def test_user_defined_codec() -> None:
    """Any object with encode and decode is a Codec, for the type checker too."""

    class Lines:
        def encode(self, message: list[str], /) -> str:
            return "\n".join(message)

        def decode(self, frame: str | bytes, /) -> list[str]:
            return str(frame).splitlines()

    codec: Codec = Lines()
    assert codec.decode(codec.encode(["a", "b"])) == ["a", "b"]
    codecs: list[Codec] = [JSON(), Msgpack()]
    assert all(one.decode(one.encode([1])) == [1] for one in codecs)
