"""Redaction: what logs, traces, reprs and errors may show of addresses, headers and texts.

A value of the query may be a token whatever its name is, so none is shown; of headers and of texts
only those values are hidden whose names tell that they are secret.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

__all__ = [
    "HIDDEN",
    "printable",
    "redact_header",
    "redact_line",
    "redact_query",
    "redact_repr",
    "redact_text",
    "redact_url",
    "shorten",
    "without_secrets",
    "without_user_info",
]

HIDDEN = "[hidden]"
"""Stands where a secret was."""

_SHORT = 80  # characters or bytes of an item that a line shows

_USER_INFO = re.compile(r"^((?:[a-z][a-z0-9+.-]*:)?/+)?[^/?#]*@", re.IGNORECASE)
_ALL_BEFORE_AT = re.compile(r"^((?:[a-z][a-z0-9+.-]*:)?/+)?.*@", re.IGNORECASE | re.DOTALL)

# Of headers, of members of a JSON object, of parameters; OPEN say only what to log in for.
_SECRET = re.compile(
    r"auth|token|secret|passw|passphrase|credential|cookie|session|signature|jwt|^pwd$|^sig$"
    r"|(?:api|access|private)[-_]?key",
    re.IGNORECASE,
)
_OPEN = frozenset({"www-authenticate", "proxy-authenticate", "author", "authority"})
_LINES = re.compile(r"authorization|cookie", re.IGNORECASE)

# A token as a subprotocol, which browsers use for want of headers: never the name of a protocol.
_TOKEN_IN_LIST = re.compile(r"[^\s,]*bearer[^\s,]*|[^\s,]{48,}", re.IGNORECASE)

# No pattern tries the same run of characters twice: the texts may be a peer's, and long.
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://[^\s'\"<>]++", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic)(\s+)[a-z0-9._~+/=-]{4,}+(?!['\"])", re.IGNORECASE)
# A name and the sign behind it; in JSON there is a quote between them, in a repr perhaps escaped.
_NAME = re.compile(r"(?<![\w-])([\w-]++)\\*+['\"]?\s*+[:=]\s*+")
_VALUE = re.compile(
    r"""
      (?P<open> \\++ ['"]) [^'"]*+         # in quotes that are escaped themselves,
    | (?P<double> ") (?: [^"\\] | \\. )*+  # or are not,
    | (?P<single> ') (?: [^'\\] | \\. )*+
    | [^\s,;&'"{}\[\]()]++                 # or a bare word
    """,
    re.VERBOSE | re.DOTALL,
)
_REST_OF_LINE = re.compile(r"[^'\"\r\n]*+")


def without_user_info(url: str) -> str:
    """The URL without user and password, however malformed it is; its query stays."""
    return _USER_INFO.sub(lambda found: found[1] or "", url)


def without_secrets(url: str) -> str:
    """The same for what is no URL: an unescaped "/" in a password hides no "@" behind it."""
    return _ALL_BEFORE_AT.sub(lambda found: found[1] or "", url)


def redact_query(target: str) -> str:
    """The target of a request, or a URL, with the values of its query hidden."""
    path, mark, query = target.partition("?")
    if not query:
        return target
    query, mark2, _ = query.partition("#")
    hidden = "&".join(_hidden_pair(pair) for pair in query.split("&"))
    return f"{path}{mark}{hidden}{mark2}"


def _hidden_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    # Without a value, the name may be the token itself.
    return f"{name}={HIDDEN}" if value else f"{HIDDEN}{equals}" if name else ""


def redact_url(url: str) -> str:
    """The URL as it may be shown: without user and password, the values of its query hidden."""
    # An unescaped "/" in a password makes a host of its beginning, and a path of the rest.
    _, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    cut_short = slash and ":" in host and "@" in path
    return redact_query(without_secrets(url) if cut_short else without_user_info(url))


def redact_header(name: str, value: str) -> str:
    """The value of a header as it may be shown."""
    if name.lower() == "sec-websocket-protocol":
        return _TOKEN_IN_LIST.sub(HIDDEN, value)
    return HIDDEN if _is_secret(name) else redact_text(value)


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None and name.lower() not in _OPEN


def redact_text(text: str) -> str:
    """A text as it may be shown: addresses in it redacted, and values with secret names hidden."""
    text = _URL.sub(lambda found: redact_url(found[0]), text)
    return _SCHEME.sub(rf"\1\2{HIDDEN}", "".join(_without_members(text)))


def _without_members(text: str) -> Iterator[str]:
    """The text in pieces, without what stands behind secret names."""
    shown = 0
    for name in _NAME.finditer(text):
        if name.start() < shown or not _is_secret(name[1]):
            continue
        value = _VALUE.match(text, name.end())
        if value is None:
            continue
        yield text[shown : name.end()]
        yield next(filter(None, value.groups()), "") + HIDDEN
        shown = value.end()
        if value.lastgroup is None and _LINES.search(name[1]):
            # A header's value may have several words.
            rest = _REST_OF_LINE.match(text, shown)
            shown = shown if rest is None else rest.end()
    yield text[shown:]


def redact_repr(value: Any) -> str:
    """The repr of a dataclass, with ``url`` and ``target`` redacted."""
    shown = []
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if field.name in ("url", "target") and isinstance(content, str):
            # The target of a request is an address only for a proxy.
            is_address = field.name == "url" or "://" in content
            content = redact_url(content) if is_address else redact_query(content)
        shown.append(f"{field.name}={content!r}")
    return f"{type(value).__qualname__}({', '.join(shown)})"


def printable(text: str) -> str:
    """The text with line breaks and other controls escaped: a peer's words cannot forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact_line(text: str) -> str:
    """The text as one line of a log: redacted, and printable."""
    return printable(redact_text(text))


def shorten(item: object) -> str:
    """The item's repr, redacted; of what is long the beginning, cut before its repr is built."""
    if isinstance(item, str | bytes) and len(item) > _SHORT:
        unit = "characters" if isinstance(item, str) else "bytes"
        return f"{redact_text(repr(item[:_SHORT]))}... ({len(item)} {unit})"
    text = redact_text(repr(item))
    return text if len(text) <= 2 * _SHORT else f"{text[: 2 * _SHORT]}..."
