"""HTTP headers: ordered, case-insensitive, repeatable (RFC 9110, section 5)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from ._redact import redact_header, shorten

__all__ = ["Headers", "HeadersLike"]

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers as a mapping, or as pairs of name and value."""

is_token: Callable[[str], re.Match[str] | None] = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
).fullmatch
"""Whether a text may be the name of a header or a subprotocol (RFC 9110, section 5.6.2)."""

# The characters of a value (RFC 9110, section 5.5): no control characters but the tab, and only
# characters of latin-1.
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class Headers(Mapping[str, str]):
    """Read-only headers; ``headers[name]`` joins repeated headers with ``", "`` (RFC 9110, 5.3).

    Args:
        headers: a mapping, or pairs of name and value.

    Raises:
        ValueError: a name or value is not a str, or has characters that cannot be sent.
    """

    __slots__ = ("_pairs",)

    def __init__(self, headers: HeadersLike = ()) -> None:
        pairs: Iterable[tuple[str, str]]
        if isinstance(headers, Headers):
            pairs = headers.pairs()
        else:
            pairs = headers.items() if isinstance(headers, Mapping) else headers
        self._pairs = tuple(_checked(pair) for pair in pairs)

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name, _ in self._pairs}.values())

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._pairs})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header, in order; an empty list if it is absent.

        Args:
            name: the name of the header; case-insensitive.
        """
        wanted = name.lower()
        return [value for key, value in self._pairs if key.lower() == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return pairs of name and value as passed, including repeated headers."""
        return self._pairs

    def without(self, *names: str) -> Headers:
        """Return a copy without some headers.

        Args:
            names: the names of the headers; case-insensitive.
        """
        dropped = {name.lower() for name in names}
        return Headers(pair for pair in self._pairs if pair[0].lower() not in dropped)

    def redacted(self) -> Headers:
        """Return a copy with hidden secrets, safe to show."""
        return Headers((name, redact_header(name, value)) for name, value in self._pairs)

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        # Headers end up in logs and tracebacks.
        return f"Headers({list(self.redacted().pairs())!r})"


def _checked(pair: tuple[str, str]) -> tuple[str, str]:
    """Check a pair; error messages never show a value, because it may be a secret."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise ValueError("a header must be a pair of name and value") from None
    if not isinstance(name, str) or not is_token(name):
        raise ValueError(f"{shorten(name)} is not a valid header name")
    if not isinstance(value, str):
        raise ValueError(f"the value of header {name} must be a str, not {type(value).__name__}")
    if not _is_value(value):
        if any(c in value for c in "\r\n\0"):
            raise ValueError(f"the value of header {name} contains a line break or NUL")
        raise ValueError(
            f"the value of header {name} contains a control character or a non-latin-1 character"
        )
    return _shared(name), _shared(value)


def _shared(text: str) -> str:
    """Share equal strings: a server holds the same headers for each of many connections."""
    return sys.intern(text) if text.__class__ is str else text
