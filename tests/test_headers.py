"""Headers: ordered, case-insensitive, repeatable, and silent about secrets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import FrozenInstanceError

import pytest

from trioglock import Handshake, Headers

PAIRS = (("Set-Cookie", "a=1"), ("X-Tag", "one"), ("set-cookie", "b=2"), ("Empty", ""))


@pytest.fixture
def headers() -> Headers:
    """A few, one of them repeated in other letters."""
    return Headers(PAIRS)


def test_names_are_found_in_any_case(headers: Headers) -> None:
    """RFC 9110, section 5.1."""
    assert headers["x-tag"] == headers["X-TAG"] == "one"
    assert headers["empty"] == ""
    assert "X-tAg" in headers
    assert headers.get("x-tag") == "one"


def test_what_is_absent_is_absent(headers: Headers) -> None:
    """As in any mapping; a key that is no text is simply not there."""
    with pytest.raises(KeyError, match="Missing"):
        headers["Missing"]
    assert "Missing" not in headers
    unfit: object = 5
    assert unfit not in headers
    assert headers.get("Missing") is None
    assert headers.get_all("Missing") == []


def test_repeated_headers_are_kept_and_joined(headers: Headers) -> None:
    """``[...]`` joins with a comma, ``get_all`` lists, ``pairs`` shows what was written."""
    assert headers["Set-Cookie"] == "a=1, b=2"
    assert headers.get_all("SET-COOKIE") == ["a=1", "b=2"]
    assert headers.pairs() == PAIRS


def test_iteration_gives_each_name_once(headers: Headers) -> None:
    """Length, names and items agree, in the order of first appearance."""
    assert [name.lower() for name in headers] == ["set-cookie", "x-tag", "empty"]
    assert len(headers) == len(list(headers)) == 3
    assert dict(headers.items())["X-Tag"] == "one"
    assert not Headers()
    assert headers


@pytest.mark.parametrize(
    "given", [{"A": "1", "B": "2"}, [("A", "1"), ("B", "2")], iter([["A", "1"], ["B", "2"]])]
)
def test_mappings_and_pairs_are_taken(given: Iterable[tuple[str, str]]) -> None:
    """And Headers themselves."""
    headers = Headers(given)
    assert headers.pairs() == (("A", "1"), ("B", "2"))
    assert Headers(headers) == headers


def test_without_leaves_the_original_alone(headers: Headers) -> None:
    """A copy that lacks the named headers, in any case."""
    assert headers.without("SET-cookie", "empty", "missing").pairs() == (("X-Tag", "one"),)
    assert headers.pairs() == PAIRS


def test_headers_are_values(headers: Headers) -> None:
    """Equal by what was written, hashable, not to be changed."""
    assert headers == Headers(PAIRS)
    assert hash(headers) == hash(Headers(PAIRS))
    assert headers != Headers(PAIRS[:3])
    assert headers != dict(PAIRS)
    with pytest.raises(TypeError):
        headers["X"] = "y"  # type: ignore[index]


NOT_TOKENS = ["", " ", "é", "a(b)", *(f"a{c}b" for c in " :\t\r\n\0\x01\x7f")]


@pytest.mark.parametrize("name", [*NOT_TOKENS, 5, None, b"a"])
def test_a_name_is_a_token(name: object) -> None:
    """RFC 9110, section 5.1; the text shows the name."""
    with pytest.raises(ValueError, match="is not a valid header name"):
        Headers([(name, "value")])  # type: ignore[list-item]


BREAK, CONTROL = "a line break or NUL", "a control character or a non-latin-1"


@pytest.mark.parametrize(
    ("problem", "value"),
    [
        *((BREAK, value) for value in ("a\r\nEvil: 1", "a\nb", "a\rb", "a\0b")),
        *((CONTROL, value) for value in ("a\x01b", "a\x1bb", "a\x7fb", "sn\u2603w")),
    ],
)
def test_a_value_is_one_line_of_latin_1(problem: str, value: str) -> None:
    """RFC 9110, section 5.5; the message names the header."""
    with pytest.raises(ValueError, match=f"X-Tag contains {problem}"):
        Headers({"X-Tag": value})
    assert Headers({"X-Tag": "tab\tand h\xe4ll\xf6"})["X-Tag"] == "tab\tand h\xe4ll\xf6"


@pytest.mark.parametrize("value", [5, None, b"value", ["value"]])
def test_a_value_is_text(value: object) -> None:
    """The message names the header and the type."""
    with pytest.raises(ValueError, match=f"X-Tag must be a str, not {type(value).__name__}"):
        Headers({"X-Tag": value})  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", [5, "x", ("A",), ("A", "1", "2"), None])
def test_a_header_is_a_pair(pair: object) -> None:
    """Nothing else can be taken apart."""
    with pytest.raises(ValueError, match="a header must be a pair of name and value"):
        Headers([pair])  # type: ignore[list-item]


SECRET = ["Authorization", "authorization", "Cookie", "Set-Cookie", "PROXY-Authorization"]


@pytest.mark.parametrize("name", SECRET)
@pytest.mark.parametrize("value", [b"hunter2", "hunter2\n"])
def test_a_complaint_hides_secrets(name: str, value: object) -> None:
    """A value that cannot be sent is not shown in the error either."""
    for given in ([(name, value)], [(name, "Bearer", value)]):
        with pytest.raises(ValueError) as caught:
            Headers(given)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)


def test_a_handshake_cannot_be_changed() -> None:
    """What the two sides told each other is a fact."""
    handshake = Handshake(url="ws://x")
    assert handshake.response_headers == Headers()
    with pytest.raises(FrozenInstanceError):
        handshake.url = "ws://y"  # type: ignore[misc]
