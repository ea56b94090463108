"""Control frames: valid and invalid values."""

from __future__ import annotations

import enum

import pytest

from tests.cases import case_of
from trioglock import Close, Ping, Pong

ALLOWED = [*range(1000, 1004), 1005, *range(1007, 1015), 3000, 3999, 4000, 4999]
REFUSED = [-1, 0, 1, 999, 1004, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65536, True]


def test_a_close_is_1000_without_a_reason_by_default() -> None:
    """``Close()`` is a normal closure."""
    assert Close() == Close(1000, "")


def test_valid_close_codes() -> None:
    """RFC 6455, section 7.4, and 1005 for a frame without a code."""
    for code in ALLOWED:
        with case_of(code):
            close = Close(code)
            assert (close.code, close.reason) == (code, "")
            assert close.to_payload() == (b"" if code == 1005 else code.to_bytes(2, "big"))


@pytest.mark.parametrize("code", REFUSED)
def test_invalid_close_codes(code: int) -> None:
    """The message names the code and the valid ones."""
    text = rf"close code {code} cannot be sent; use 1000-1003, 1007-1014, 3000-4999.* 1005"
    with pytest.raises(ValueError, match=text):
        Close(code)


@pytest.mark.parametrize("code", [None, "1000", 1000.0, b"\x03\xe8"])
def test_a_code_is_an_int(code: object) -> None:
    """The message names the type of another value."""
    with pytest.raises(ValueError, match="a close code must be an int, not"):
        Close(code)  # type: ignore[arg-type]


def test_a_code_may_be_an_enum() -> None:
    """An IntEnum is equal to its number."""

    class Code(enum.IntEnum):
        BYE = 4001

    assert Close(Code.BYE, "x").to_payload() == b"\x0f\xa1x"
    assert Close(Code.BYE) == Close(4001)


def test_a_reason_has_at_most_123_bytes() -> None:
    """The limit counts bytes, not characters (RFC 6455, section 5.5)."""
    assert len(Close(1000, "x" * 123).to_payload()) == 125
    assert len(Close(1000, "☃" * 41).to_payload()) == 125
    for reason in ("x" * 124, "☃" * 41 + "x"):
        with pytest.raises(ValueError, match="at most 123 bytes of UTF-8"):
            Close(1000, reason)


@pytest.mark.parametrize("reason", [None, b"bye", 5, ["bye"], "\ud800"])
def test_a_reason_is_text(reason: object) -> None:
    """Bytes and text that UTF-8 cannot encode are refused."""
    with pytest.raises(ValueError):
        Close(1000, reason)  # type: ignore[arg-type]


def test_without_a_code_there_is_no_reason() -> None:
    """A Close frame cannot contain a reason alone."""
    with pytest.raises(ValueError, match=r"1005.*cannot have a reason"):
        Close(1005, "why")


@pytest.mark.parametrize("kind", [Ping, Pong])
def test_pings_and_pongs_carry_up_to_125_bytes(kind: type[Ping | Pong]) -> None:
    """The message names the length of a longer payload."""
    assert kind().payload == b""
    assert kind(b"x" * 125).payload == b"x" * 125
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        kind(b"x" * 126)


@pytest.mark.parametrize("kind", [Ping, Pong])
@pytest.mark.parametrize("payload", ["text", None, 5, bytearray(b"x"), memoryview(b"x")])
def test_pings_and_pongs_carry_bytes(kind: type[Ping | Pong], payload: object) -> None:
    """Mutable buffers are refused, because they could change before they are sent."""
    with pytest.raises(ValueError, match="payload of a control frame must be bytes, not"):
        kind(payload)  # type: ignore[arg-type]


def test_frames_are_values() -> None:
    """They are compared by value, hashable and immutable."""
    assert Ping(b"x") == Ping(b"x")
    assert len({Ping(b"x"), Ping(b"x"), Pong(b"x"), Close(1000, "x"), Close(1000, "x")}) == 3
    for frame, field in ((Ping(), "payload"), (Pong(), "payload"), (Close(), "code")):
        with pytest.raises(AttributeError):
            setattr(frame, field, b"y")
