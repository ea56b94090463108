"""Codecs: messages survive encoding and decoding; malformed frames raise DecodeError."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import subprocess
import sys
import uuid
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.cases import case_of
from trioglock import DecodeError, EncodeError, InvalidOption
from trioglock.codecs import JSON, Codec, Msgpack
from trioglock.codecs.json import LIBRARIES

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


class Text(str):
    __slots__ = ()


class Number(float):
    pass


class Plain(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    SUBSCRIBE = "subscribe"


class Level(enum.IntEnum):
    ONE = 1


class Wrapped(enum.Enum):
    TEXT = "text"
    LIST = ("x",)
    SET = frozenset({1})


class Pair(NamedTuple):
    a: int
    b: str


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


REJECTED_TEXTS: list[str | bytes] = [
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
    '"\\ud800"',
    '["\\ude00\\ud83d"]',
    '{"a\\\\\\ud800":1}',
    '{"a":"\\udfff","a":1}',
    '"\ud800"',
    b'"\xed\xa0\x80"',
    b"\xef\xbb\xbf{}",
    "1" * 5000,
    '"\x01"',
    "[" * 201 + "]" * 201,
    '[{"a":' * 101 + "1" + "}]" * 101,
    '"[",' + "[" * 201 + "]" * 201,
]


def test_fault_47_every_library_rejects_the_same_text(json_codec: JSON) -> None:
    """DecodeError with its cause: malformed text, a lone surrogate, deep nesting."""
    for frame in REJECTED_TEXTS:
        with case_of(frame):
            with pytest.raises(DecodeError, match="invalid JSON") as caught:
                json_codec.decode(frame)
            assert caught.value.__cause__ is not None


DECODED_TEXTS: list[tuple[str, Any]] = [
    ('"\\ud83d\\ude00 \\\\ud800 \\u0000"', "\N{GRINNING FACE} \\ud800 \0"),
    ("[18446744073709551616,-9223372036854775809]", [2**64, -(2**63) - 1]),
    ("1" * 4000, int("1" * 4000)),
    ('{"a":1,"a":2}', {"a": 2}),
    ("[1e-999,-0.0,1E+2]", [0.0, -0.0, 100.0]),
    ('["' + "[" * 300 + '\\"' + "{" * 300 + '"]', ["[" * 300 + '"' + "{" * 300]),
    ("[" + "[[]]," * 300 + "1]", [[[]]] * 300 + [1]),
]


def test_fault_47_every_library_decodes_the_same_text(json_codec: JSON) -> None:
    """Including integers of any size, escapes, duplicate keys, and brackets in strings."""
    for frame, message in DECODED_TEXTS:
        with case_of(frame):
            assert json_codec.decode(frame) == message
            assert json_codec.decode(frame.encode()) == message
            assert [repr(json_codec.decode(frame))] == [repr(message)]


def nested(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = {"a": innermost}
    return innermost


def circular() -> Any:
    endless: list[Any] = []
    endless += [endless, endless]
    return endless


REFUSED_VALUES: list[Any] = [
    object(),
    {1j: 2},
    "\ud800",
    {"\udfff": 1},
    float("nan"),
    [None, float("-inf")],
    {1},
    frozenset(),
    b"a",
    bytearray(b"a"),
    memoryview(b"a"),
    {1: 2},
    {None: 2},
    {True: 2},
    {1.5: 2},
    decimal.Decimal(1),
    dt.date(2026, 1, 1),
    Point(1),
    Broadcast("a", {}),
    Wrapped.SET,
    iter(()),
    [10**5000],
    nested(200, []),
    circular(),
]


def test_fault_22_every_library_refuses_the_same_values(json_codec: JSON) -> None:
    """EncodeError instead of the exception of the library, wherever in the message the value is."""
    for number, value in enumerate(REFUSED_VALUES):
        with case_of(number):  # some have no repr
            for message in (value, [value], {"a": ("b", value, None)}):
                with pytest.raises(EncodeError, match="not expressible as JSON"):
                    json_codec.encode(message)


ENCODED_VALUES: list[tuple[Any, str]] = [
    ("grüß\0\x7f\N{GRINNING FACE}", '"grüß\\u0000\x7f\N{GRINNING FACE}"'),
    (2**64, str(2**64)),
    (-(10**4000), str(-(10**4000))),
    (Text("a"), '"a"'),
    ({Text("a"): 1}, '{"a":1}'),
    (Number(1.5), "1.5"),
    (Wrapped.TEXT, '"text"'),
    (Wrapped.LIST, '["x"]'),
    (Plain.SUBSCRIBE, '"subscribe"'),
    ({Plain.SUBSCRIBE: Plain.SUBSCRIBE}, '{"subscribe":"subscribe"}'),
    (Level.ONE, "1"),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (collections.OrderedDict(a=1), '{"a":1}'),
    (Pair(1, "b"), '[1,"b"]'),
    ((1, True, None, -0.0), "[1,true,null,-0.0]"),
    (nested(199, [1]), '{"a":' * 199 + "[1]" + "}" * 199),
]


def test_fault_22_every_library_encodes_the_same_values(json_codec: JSON) -> None:
    """Including subclasses, enumerations and integers of any size."""
    for value, text in ENCODED_VALUES:
        with case_of(value):
            assert json_codec.encode(value) == text


def test_fault_22_msgspec_without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library msgspec encodes sets and bytes itself, so they are refused before."""
    monkeypatch.setattr("trioglock.codecs.json.find_spec", lambda _name: None)
    codec = JSON(library="msgspec")
    assert codec.encode(EVENT) == JSON(library="json").encode(EVENT)
    assert codec.encode({Text("a"): Number(1)}) == '{"a":1.0}'
    for value in ({1}, b"a", {1: 2}, float("nan"), Point(1), "\ud800", nested(201, 1)):
        with pytest.raises(EncodeError, match="not expressible as JSON"):
            codec.encode(["a", {"b": value}])


def test_fault_22_typed_messages_have_no_nan() -> None:
    """With a type, msgspec encodes what it supports; NaN would become null."""

    @dataclasses.dataclass
    class Price:
        value: float | None
        tags: set[str]

    codec = JSON(Price)
    assert codec.encode(Price(None, {"a"})) == '{"value":null,"tags":["a"]}'
    with pytest.raises(EncodeError, match="nan"):
        codec.encode(Price(float("nan"), set()))


@pytest.mark.slow
def test_the_default_library() -> None:
    """The standard library, whatever is installed; msgspec for types."""
    assert JSON().library == "json"
    assert JSON(Point).library == "msgspec"
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
        JSON(library="simplejson")  # type: ignore[call-overload]
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
