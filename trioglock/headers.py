"""HTTP headers: ordered, case-insensitive, repeatable (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from ._redact import redact_header, shorten
from ._text import as_text

__all__ = ["Headers", "HeadersLike"]

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers as a mapping, or as pairs of name and value."""

is_token: Callable[[str], re.Match[str] | None] = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
).fullmatch
"""Whether a text may be the name of a header or a subprotocol (RFC 9110, section 5.6.2)."""

# The characters of a value (RFC 9110, section 5.5): no control characters except the tab, and only
# characters of latin-1.
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


# Names and values in most handshakes. They are shared, because a server stores the same ones for
# each of many connections. Other text from a peer is not interned, because CPython 3.12.0 to 3.12.6
# never frees interned strings.
_COMMON = (
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Cache-Control",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Date",
    "Host",
    "Origin",
    "Pragma",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "Server",
    "Upgrade",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)
_VALUES = (
    "13",
    "gzip, deflate, br",
    "gzip, deflate, br, zstd",
    "http",
    "https",
    "keep-alive, Upgrade",
    "no-cache",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "Upgrade",
    "websocket",
)
_shared = {
    text.encode(): text for name in _COMMON for text in (name, name.lower(), name.title())
} | {text.encode(): text for text in _VALUES}


def decode_header(data: bytes) -> str:
    """Decode the name or the value of a received header."""
    return _shared.get(data) or data.decode("latin-1")


class Headers(Mapping[str, str]):
    """Read-only headers; ``headers[name]`` joins repeated headers with ``", "`` (RFC 9110, 5.3).

    Args:
        headers: a mapping, or pairs of name and value.

    Raises:
        ValueError: a name or value is not a str, or contains characters that cannot be sent.
    """

    # Alternating names and values: one object per connection instead of one for each pair.
    __slots__ = ("_texts",)

    def __init__(self, headers: HeadersLike = ()) -> None:
        if isinstance(headers, Headers):
            self._texts: tuple[str, ...] = headers._texts  # noqa: SLF001 - of this class
            return
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self._texts = tuple([text for pair in pairs for text in _checked(pair)])

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name in self._texts[::2]}.values())

    def __len__(self) -> int:
        return len({name.lower() for name in self._texts[::2]})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header, in order; an empty list if it is absent.

        Args:
            name: the name of the header; case-insensitive.
        """
        wanted = name.lower()
        return [value for key, value in self.pairs() if key.lower() == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return pairs of name and value as passed to the constructor, with repeated headers."""
        return tuple(zip(self._texts[::2], self._texts[1::2], strict=True))

    def without(self, *names: str) -> Headers:
        """Return a copy without some headers.

        Args:
            names: the names of the headers; case-insensitive.
        """
        dropped = {name.lower() for name in names}
        return checked_headers(
            text for pair in self.pairs() if pair[0].lower() not in dropped for text in pair
        )

    def redacted(self) -> Headers:
        """Return a copy in which secrets are hidden, for logs and errors."""
        return checked_headers(
            text for name, value in self.pairs() for text in (name, redact_header(name, value))
        )

    def __eq__(self, other: object) -> bool:
        return self._texts == other._texts if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._texts)

    def __repr__(self) -> str:
        # Headers appear in logs and tracebacks.
        return f"Headers({list(self.redacted().pairs())!r})"


def checked_headers(texts: Iterable[str]) -> Headers:
    """Create headers from alternating names and values, which have already been checked."""
    headers = Headers.__new__(Headers)
    headers._texts = tuple(texts)  # noqa: SLF001 - a second constructor
    return headers


def _checked(pair: tuple[str, str]) -> tuple[str, str]:
    """Check a pair; error messages never show a value, because it may be a secret."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise ValueError("a header must be a pair of name and value") from None
    if not isinstance(name, str) or not is_token(name):
        raise ValueError(f"{shorten(name)} is not a valid header name")
    name = as_text(name)
    if not isinstance(value, str):
        raise ValueError(f"the value of header {name} must be a str, not {type(value).__name__}")
    if not _is_value(value):
        if any(c in value for c in "\r\n\0"):
            raise ValueError(f"the value of header {name} contains a line break or NUL")
        raise ValueError(
            f"the value of header {name} contains a control character or a non-latin-1 character"
        )
    return name, as_text(value)
