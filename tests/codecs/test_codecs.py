"""Codecs: what goes out comes back, what is malformed is refused in one way."""

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
from trioglock.codecs.libraries import JSON_LIBRARIES

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


@pytest.fixture(params=JSON_LIBRARIES)
def json_codec(request: pytest.FixtureRequest) -> JSON:
    return JSON(library=request.param)


def test_json_goes_there_and_back(json_codec: JSON) -> None:
    """Every library writes text without needless spaces or escapes, and reads it again."""
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
def test_what_is_no_json_is_refused(json_codec: JSON, frame: str | bytes) -> None:
    """Malformed, not UTF-8, or nested without end: always DecodeError, with its cause."""
    with pytest.raises(DecodeError, match="invalid JSON") as caught:
        json_codec.decode(frame)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("message", [object(), {1j: 2}, {"a": object()}])
def test_what_json_cannot_say_is_refused(json_codec: JSON, message: Any) -> None:
    """An EncodeError, which is a TypeError, and not the library's own."""
    with pytest.raises(EncodeError, match="not expressible as JSON"):
        json_codec.encode(message)


def test_endless_messages_are_refused(json_codec: JSON) -> None:
    """A list in itself is an error, not the end of the program."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        json_codec.encode(endless)


@pytest.mark.parametrize("library", JSON_LIBRARIES)
def test_numbers_that_are_none_never_leave(library: Library) -> None:
    """NaN is not JSON: refused or null, but never on the wire."""
    codec = JSON(library=library)
    try:
        frame = codec.encode([float("nan"), float("inf")])
    except EncodeError:
        return
    assert frame == "[null,null]"


def test_the_library_is_chosen_by_what_is_installed() -> None:
    """First msgspec, then orjson, then Python's own, found out once; a new process without both."""
    assert JSON().library == next(n for n in JSON_LIBRARIES if importlib.util.find_spec(n))
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


def test_json_decodes_into_types() -> None:
    """Structs and dataclasses come out; what does not fit is a DecodeError that says where."""
    codec = JSON(Broadcast)
    assert codec.decode('{"event":"a/b","payload":{"k":"v"}}') == Broadcast("a/b", {"k": "v"})
    assert JSON(Point).decode('{"x":1}') == Point(1)
    assert JSON(Point).encode(Point(1, 2)) == '{"x":1,"y":2}'
    with pytest.raises(DecodeError, match=r"payload"):
        codec.decode('{"event":"a/b","payload":3}')


def test_bad_options_are_named() -> None:
    """Unknown libraries and types fail where they are given."""
    with pytest.raises(InvalidOption, match="'msgspec', 'orjson', 'json'"):
        JSON(library="simplejson")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="needs library='msgspec'"):
        JSON(Point, library="json")
    for codec in (JSON, Msgpack):
        with pytest.raises(InvalidOption, match="into"):
            codec(3)
    assert repr(JSON(library="json")) == "JSON(library='json')"


def test_msgpack_goes_there_and_back() -> None:
    """Binary frames, bytes included, untyped and typed."""
    codec = Msgpack()
    message = {**EVENT, "raw": b"\x00\xff"}
    frame = codec.encode(message)
    assert isinstance(frame, bytes)
    assert codec.decode(frame) == message
    assert Msgpack(Point).decode(codec.encode({"x": 3})) == Point(3)
    assert repr(codec) == "Msgpack()"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x92\x01", "text", b"\x91" * 100_000])
def test_what_is_no_msgpack_is_refused(frame: str | bytes) -> None:
    """Cut off, reserved bytes, text, or nested without end: always DecodeError."""
    with pytest.raises(DecodeError, match="invalid MessagePack"):
        Msgpack().decode(frame)
    with pytest.raises(EncodeError, match="not expressible as MessagePack"):
        Msgpack().encode(object())


def test_any_object_with_two_functions_is_a_codec() -> None:
    """Users bring their own; the type checker agrees."""

    class Lines:
        def encode(self, message: list[str], /) -> str:
            return "\n".join(message)

        def decode(self, frame: str | bytes, /) -> list[str]:
            return str(frame).splitlines()

    codec: Codec = Lines()
    assert codec.decode(codec.encode(["a", "b"])) == ["a", "b"]
    codecs: list[Codec] = [JSON(), Msgpack()]
    assert all(one.decode(one.encode([1])) == [1] for one in codecs)
