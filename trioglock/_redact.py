"""Redaction: hides secrets in the URLs, headers and texts that logs, reprs and errors show.

All values of a query are hidden, because any of them may be a token. Headers, and string members of
JSON messages, are hidden if their names denote secrets. Other text is shown as it is, except
for the URLs, header lines and credentials in it. No function in this module raises an exception,
and each takes time linear in the length of its argument, which may come from a peer.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

__all__ = [
    "HIDDEN",
    "MAX_LINE",
    "is_secret",
    "label",
    "printable",
    "redact_header",
    "redact_line",
    "redact_query",
    "redact_repr",
    "redact_subprotocols",
    "redact_text",
    "redact_url",
    "safe_repr",
    "safe_str",
    "shorten",
    "without_secrets",
    "without_user_info",
]

HIDDEN = "[hidden]"
"""Replaces a secret."""

MAX_LINE = 1000
"""Maximum length of a line in characters."""

_MAX_ITEM = 80  # maximum number of characters or bytes of a message in a line

# Possessive quantifiers (++, *+) throughout: no pattern backtracks over a peer's long text.

# Names of headers and JSON members.
_SECRET_NAME = re.compile(
    r"auth(?!or(?!i[sz]))|token(?!iz)|secret(?!ar)|passw|passphrase|passcode|credential|cookie"
    r"|session|sessid|signature|jwt|csrf|xsrf|bearer"
    r"|(?:api|access|private|secret|listen|subscription|functions|master|account|shared|signing)"
    r"[-_]?key|(?:^|[_-])(?:pass|pwd|sig|otp)$|(?-i:[a-z]Pass$)",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"^(?:www|proxy)-authenticate$|[_-](?:type|count|uri|url|endpoint|method|expir[a-z]*|in|at)$",
    re.IGNORECASE,
)

# URLs.
_URL_START = re.compile(r"(?:[a-z0-9+.-]*+:)?/++", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#]*+")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*+\]|[^:]*+)(?::[0-9]*+)?+\Z")

_PUBLIC_PAIR = re.compile(r"vsn=[0-9.]{1,8}\Z")  # the version of the Phoenix protocol

# URLs, request targets and credentials in a text.
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z0-9+.-]++:/++[^\s'\"<>]++", re.IGNORECASE)
_TARGET = re.compile(r"(?<![^\s'\"<>])/[^\s'\"<>?]*+\?[^\s'\"<>]++")
_PUNCTUATION = ".,:;)}"
# Not (...)++, which Python before 3.11.5 matches incorrectly (gh-106052); nothing follows it.
_MEMBER = re.compile(r"(['\"])([\w-]++)\1:\s*+(['\"])((?:(?!\3)[^\\]|\\.)+)", re.DOTALL)
_CREDENTIALS = re.compile(
    r"\b(bearer|basic)(\s++)(?![\w-]++=['\"])([a-z0-9._~+/=-]{4,}+)", re.IGNORECASE
)
_CREDENTIAL_WORDS = frozenset({"auth", "authentication", "authorization", "scheme", "token"})
_HEADER = re.compile(
    r"(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]*(?:key|token)):"
    r"[ \t]++(?!\[hidden\])[^\r\n'\"]++",
    re.IGNORECASE,
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?+")
_SUSPECT = re.compile(r"[:?]|eyJ|bearer|basic", re.IGNORECASE)  # every match contains one

# Subprotocols.
_SUBPROTOCOL = re.compile(r"[^\s,'\"()\[\]]++")
_LONG_WORD = re.compile(r"[A-Za-z0-9]{12,}+")
_MAX_SUBPROTOCOL = 47


def is_secret(name: str) -> bool:
    """Whether a header or JSON member with this name contains a secret."""
    return _SECRET_NAME.search(name) is not None and _PUBLIC_NAME.search(name) is None


# URLs.


def _split(url: str) -> tuple[str, str]:
    """Split a URL before the user information or the host."""
    start = _URL_START.match(url)
    at = start.end() if start else 0
    return url[:at], url[at:]


def without_user_info(url: str) -> str:
    """Remove user and password from a URL, which may be malformed. The query is kept."""
    start, rest = _split(url)
    authority = _AUTHORITY.match(rest)
    skipped = 0 if authority is None else authority[0].rfind("@") + 1
    return start + rest[skipped:] if skipped else str.__str__(url)


def without_secrets(url: str) -> str:
    """Remove everything up to the last "@", which also covers an unescaped "/" in a password."""
    start, rest = _split(url)
    return start + rest[rest.rfind("@") + 1 :]


def redact_query(target: str) -> str:
    """Hide the values of the query and the fragment of a URL or request target."""
    target, mark, _ = str.__str__(target).partition("#")
    path, question, query = target.partition("?")
    return f"{path}{question}{'&'.join(map(_redact_pair, query.split('&')))}{mark}"


def _redact_pair(pair: str) -> str:
    if _PUBLIC_PAIR.match(pair):
        return pair
    name, equals, value = pair.partition("=")
    # A name without a value may be the token itself.
    return f"{name}={HIDDEN}" if value else f"{HIDDEN}{equals}" if name else ""


def redact_url(url: str) -> str:
    """Remove user and password from a URL, and hide the values of its query."""
    if "?" not in url and "@" not in url and "#" not in url:
        return url  # the same object, because thousands of connections share it
    url = str.__str__(url)
    shown = without_user_info(url)
    authority = _AUTHORITY.match(_split(shown)[1])
    if shown == url and authority is not None and not _HOST_AND_PORT.match(authority[0]):
        # An unescaped "/", "?" or "#" in the password: the user looks like the host, and the
        # start of the password like an invalid port.
        shown = without_secrets(url)
    return redact_query(shown)


# Headers.


def redact_header(name: str, value: str) -> str:
    """Hide the secrets in the value of a header."""
    lower = name.lower()
    if lower == "sec-websocket-protocol":
        return redact_subprotocols(value)
    if lower in ("location", "content-location", "referer"):
        return redact_url(value)
    return HIDDEN if is_secret(name) else redact_text(value)


def redact_subprotocols(names: str) -> str:
    """Hide tokens in a list of subprotocols, or in a text that contains such a list.

    Browsers cannot set headers, so tokens are sent as subprotocols: as one word that contains
    "bearer", after a name like "access_token", or alone. Real subprotocols are short, or consist of
    short words.
    """
    after_secret_name = False

    def hide(found: re.Match[str]) -> str:
        nonlocal after_secret_name
        name = found[0]
        hidden = after_secret_name or _is_token(name)
        after_secret_name = not hidden and is_secret(name)
        return HIDDEN if hidden else name

    return _SUBPROTOCOL.sub(hide, str.__str__(names))


def _is_token(name: str) -> bool:
    if len(name) > _MAX_SUBPROTOCOL or "bearer." in name.lower() or set("=/@").intersection(name):
        return True
    return any(any(map(str.isdigit, word)) for word in _LONG_WORD.findall(name))


# Texts.


def redact_text(text: str) -> str:
    """Redact URLs, request targets, header lines, credentials and JSON members in a text."""
    text = str.__str__(text)
    if not _SUSPECT.search(text):
        return text
    text = _URL.sub(partial(_redact_found, redact_url), text)
    text = _TARGET.sub(partial(_redact_found, redact_query), text)
    text = _MEMBER.sub(_redact_member, text)
    text = _HEADER.sub(rf"\1: {HIDDEN}", text)
    text = _CREDENTIALS.sub(_redact_credentials, text)
    return _JWT.sub(HIDDEN, text)


def _redact_found(redact: Any, found: re.Match[str]) -> str:
    address = found[0].rstrip(_PUNCTUATION)
    return f"{redact(address)}{found[0][len(address) :]}"


def _redact_member(found: re.Match[str]) -> str:
    if not is_secret(found[2]):
        return found[0]
    return found[0][: found.start(4) - found.start()] + HIDDEN


def _redact_credentials(found: re.Match[str]) -> str:
    scheme, space, value = found.groups()
    if scheme.lower() == "basic":
        hidden = not value[1:].islower()  # Base64, not a word of a sentence
    else:
        hidden = value.lower() not in _CREDENTIAL_WORDS
    return f"{scheme}{space}{HIDDEN if hidden else value}"


def _redact_start(text: str, length: int) -> str:
    """Redact and return at most ``length`` characters, in time that depends only on ``length``."""
    text = str.__str__(text)
    if len(text) > 4 * length:
        text = text[: 4 * length]
        # Drop a URL at the cut: its "@", which marks the password, may be cut off.
        last_space = max(map(text.rfind, " \t\r\n'\"<>"))
        scheme = text.find(":/", last_space + 1)
        if scheme >= 0:
            text = text[: scheme + 1]
    return redact_text(text)[:length]


def printable(text: str) -> str:
    """Escape line breaks and other control characters, so that a text cannot forge log lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact_line(text: str, max_length: int = MAX_LINE) -> str:
    """Redact a text and format it as one line of a log.

    Args:
        text: any text.
        max_length: the maximum number of characters to show.
    """
    line = printable(_redact_start(text, max_length))
    if len(line) <= max_length and len(text) <= max_length:
        return line
    return f"{line[:max_length]}... ({len(text)} characters)"


# Values.


def safe_repr(value: object) -> str:
    """Return the repr of a value, or a description if its ``__repr__`` raises."""
    try:
        return str.__str__(repr(value))
    except Exception as error:  # noqa: BLE001 - raised by user code
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def safe_str(error: BaseException) -> str:
    """Return the message of an exception, or a description if its ``__str__`` raises."""
    try:
        return str.__str__(str(error))
    except Exception as raised:  # noqa: BLE001 - raised by user code
        return f"<{type(error).__name__} whose str raises {type(raised).__name__}>"


def label(function: object) -> str:
    """Return the name of a function. Its repr may show the arguments of a partial, or an object."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def redact_repr(value: Any) -> str:
    """Return the repr of a dataclass with redacted URLs and subprotocols."""
    fields = [
        f"{field.name}={_redact_field(field.name, getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if field.repr
    ]
    return f"{type(value).__qualname__}({', '.join(fields)})"


def _redact_field(name: str, content: Any) -> str:
    if name in ("subprotocol", "subprotocols"):
        return redact_subprotocols(safe_repr(content))
    if name not in ("url", "target"):
        return safe_repr(content)
    if not isinstance(content, str):
        return redact_text(safe_repr(content))
    # A request target is a path, except in a request to a proxy.
    is_url = name == "url" or "://" in content
    return repr(redact_url(content) if is_url else redact_query(content))


def shorten(value: object) -> str:
    """Return the redacted repr of a value, shortened if it is long."""
    if isinstance(value, str):
        start = repr(_redact_start(str.__getitem__(value, slice(4 * _MAX_ITEM + 1)), _MAX_ITEM))
        return start if len(value) <= _MAX_ITEM else f"{start}... ({len(value)} characters)"
    if isinstance(value, bytes):
        text = bytes.__getitem__(value, slice(4 * _MAX_ITEM + 1)).decode("latin-1")
        start = repr(_redact_start(text, _MAX_ITEM).encode("latin-1"))
        return start if len(value) <= _MAX_ITEM else f"{start}... ({len(value)} bytes)"
    text = safe_repr(value)
    start = _redact_start(text, 2 * _MAX_ITEM)
    return start if len(text) <= 2 * _MAX_ITEM else f"{start}..."
