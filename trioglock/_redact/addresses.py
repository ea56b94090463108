"""Addresses: URLs, and the targets of requests."""

from __future__ import annotations

import re

from .names import HIDDEN

__all__ = ["redact_query", "redact_url", "without_secrets", "without_user_info"]

_BEGINNING = re.compile(r"(?:[a-z0-9+.-]*+:)?/++", re.IGNORECASE)
_HOST = re.compile(r"[^/?#]*+")
_WITH_PORT = re.compile(r"(?:\[[^\]]*+\]|[^:]*+)(?::[0-9]*+)?+\Z")


def _parts(url: str) -> tuple[str, str]:
    """What is before the user or the host, and the rest; of anything."""
    found = _BEGINNING.match(url)
    at = found.end() if found else 0
    return url[:at], url[at:]


def without_user_info(url: str) -> str:
    """The URL without user and password, however malformed it is; its query stays."""
    beginning, rest = _parts(url)
    host = _HOST.match(rest)
    return beginning + rest[0 if host is None else host[0].rfind("@") + 1 :]


def without_secrets(url: str) -> str:
    """The same for what is no URL: an unescaped "/" in a password hides no "@" behind it."""
    beginning, rest = _parts(url)
    return beginning + rest[rest.rfind("@") + 1 :]


def redact_query(target: str) -> str:
    """The target of a request, or a URL, with the values of its query and its fragment hidden."""
    target, mark, _ = str.__str__(target).partition("#")
    path, question, query = target.partition("?")
    hidden = "&".join(map(_hidden_pair, query.split("&")))
    return f"{path}{question}{hidden}{mark}"


def _hidden_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    # Without a value, the name may be the token itself.
    return f"{name}={HIDDEN}" if value else f"{HIDDEN}{equals}" if name else ""


def redact_url(url: str) -> str:
    """The URL as it may be shown: without user and password, the values of its query hidden."""
    if "?" not in url and "@" not in url and "#" not in url:
        return url  # the same object: thousands of connections have one
    url = str.__str__(url)
    shown = without_user_info(url)
    host = _HOST.match(_parts(shown)[1])
    if shown == url and host is not None and not _WITH_PORT.match(host[0]):
        # With an unescaped "/", "?" or "#" in a password, the user is the host, and what should be
        # the port is no number.
        shown = without_secrets(url)
    return redact_query(shown)
