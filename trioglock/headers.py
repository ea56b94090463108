"""HTTP headers as they were on the wire: ordered, case-insensitive, repeatable (RFC 9110, 5)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from ._redact import redact_header, shorten

__all__ = ["TOKEN", "Headers", "HeadersLike"]

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""What may be given for headers: a mapping, or pairs of name and value."""

TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""The characters of a header's name, and of a subprotocol's (RFC 9110, section 5.6.2)."""

# What a value may consist of (RFC 9110, section 5.5), and websockets takes from a peer: no control
# characters but the tab, and nothing that has no byte.
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class Headers(Mapping[str, str]):
    """Read-only headers; ``headers[name]`` joins repeated ones with ``", "`` (RFC 9110, 5.3).

    Args:
        headers: a mapping, or pairs of name and value.

    Raises:
        ValueError: a name or value is not text, or has characters that cannot be sent.
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
        """Every value of one header, in order; empty if it is absent.

        Args:
            name: in upper or lower case.
        """
        wanted = name.lower()
        return [value for key, value in self._pairs if key.lower() == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Name and value as they were written, repeated headers included."""
        return self._pairs

    def without(self, *names: str) -> Headers:
        """A copy that lacks these headers.

        Args:
            names: in upper or lower case.
        """
        dropped = {name.lower() for name in names}
        return Headers(pair for pair in self._pairs if pair[0].lower() not in dropped)

    def redacted(self) -> Headers:
        """A copy as it may be shown: the values that are secret are hidden."""
        return Headers((name, redact_header(name, value)) for name, value in self._pairs)

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        # A handshake's headers end up in logs and tracebacks.
        return f"Headers({list(self.redacted().pairs())!r})"


def _checked(pair: tuple[str, str]) -> tuple[str, str]:
    """The pair; complaints never show a value, it may be a secret."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise ValueError("a header is a pair of name and value") from None
    if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
        raise ValueError(f"{shorten(name)} is not the name of a header")
    if not isinstance(value, str):
        raise ValueError(f"the value of header {name} is a str, not {type(value).__name__}")
    if any(c in value for c in "\r\n\0"):
        raise ValueError(f"the value of header {name} contains a line break or NUL")
    if not _is_value(value):
        raise ValueError(
            f"the value of header {name} contains a control character, or one beyond latin-1"
        )
    return _shared(name), _shared(value)


def _shared(text: str) -> str:
    """The same object for the same words: a server sends them to each of many connections."""
    return sys.intern(text) if text.__class__ is str else text
