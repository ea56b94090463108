"""Control frames as values: what may be made, and what may not."""

from __future__ import annotations

import enum

import pytest

from trioglock import Close, Ping, Pong

ALLOWED = [*range(1000, 1004), 1005, *range(1007, 1015), 3000, 3999, 4000, 4999]
REFUSED = [-1, 0, 1, 999, 1004, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65536, True]


def test_a_close_is_1000_without_words_by_default() -> None:
    """``Close()`` is the normal closure."""
    assert Close() == Close(1000, "")


@pytest.mark.parametrize("code", ALLOWED)
def test_codes_that_may_be_sent(code: int) -> None:
    """RFC 6455, section 7.4, and 1005 for a frame without a code."""
    close = Close(code)
    assert (close.code, close.reason) == (code, "")
    assert close.to_payload() == (b"" if code == 1005 else code.to_bytes(2, "big"))


@pytest.mark.parametrize("code", REFUSED)
def test_codes_that_may_not_be_sent(code: int) -> None:
    """The text names the code and all that is allowed."""
    text = rf"close code {code} may not be sent; allowed are 1000-1003, 1007-1014, 3000-4999.* 1005"
    with pytest.raises(ValueError, match=text):
        Close(code)


@pytest.mark.parametrize("code", [None, "1000", 1000.0, b"\x03\xe8"])
def test_a_code_is_an_int(code: object) -> None:
    """Anything else is refused with its value."""
    with pytest.raises(ValueError, match="a close code is an int, not"):
        Close(code)  # type: ignore[arg-type]


def test_a_code_may_be_of_an_enumeration() -> None:
    """Named codes work as their numbers do."""

    class Code(enum.IntEnum):
        BYE = 4001

    assert Close(Code.BYE, "x").to_payload() == b"\x0f\xa1x"
    assert Close(Code.BYE) == Close(4001)


def test_a_reason_has_at_most_123_bytes() -> None:
    """Bytes count, not characters (RFC 6455, section 5.5)."""
    assert len(Close(1000, "x" * 123).to_payload()) == 125
    assert len(Close(1000, "☃" * 41).to_payload()) == 125
    for reason in ("x" * 124, "☃" * 41 + "x"):
        with pytest.raises(ValueError, match="at most 123 bytes of UTF-8"):
            Close(1000, reason)


@pytest.mark.parametrize("reason", [None, b"bye", 5, ["bye"], "\ud800"])
def test_a_reason_is_text(reason: object) -> None:
    """Not bytes, and nothing that has no form in UTF-8."""
    with pytest.raises(ValueError):
        Close(1000, reason)  # type: ignore[arg-type]


def test_without_a_code_there_is_no_reason() -> None:
    """The wire has no room for a reason alone."""
    with pytest.raises(ValueError, match=r"1005.*carries no reason"):
        Close(1005, "why")


@pytest.mark.parametrize("kind", [Ping, Pong])
def test_pings_and_pongs_carry_up_to_125_bytes(kind: type[Ping | Pong]) -> None:
    """Longer ones are refused with their length."""
    assert kind().payload == b""
    assert kind(b"x" * 125).payload == b"x" * 125
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        kind(b"x" * 126)


@pytest.mark.parametrize("kind", [Ping, Pong])
@pytest.mark.parametrize("payload", ["text", None, 5, bytearray(b"x"), memoryview(b"x")])
def test_pings_and_pongs_carry_bytes(kind: type[Ping | Pong], payload: object) -> None:
    """Mutable bytes could change while they wait: they are refused like text."""
    with pytest.raises(ValueError, match="payload of a control frame is bytes, not"):
        kind(payload)  # type: ignore[arg-type]


def test_frames_are_values() -> None:
    """Equal by content and kind, hashable, never changed."""
    assert Ping(b"x") == Ping(b"x")
    assert len({Ping(b"x"), Ping(b"x"), Pong(b"x"), Close(1000, "x"), Close(1000, "x")}) == 3
    for frame, field in ((Ping(), "payload"), (Pong(), "payload"), (Close(), "code")):
        with pytest.raises(AttributeError):
            setattr(frame, field, b"y")
