"""Names of headers, of members of a JSON object, of parameters: which tell of a secret."""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "holds_secret", "holds_secrets", "is_secret", "takes_line"]

HIDDEN = "[hidden]"
"""Stands where a secret was."""

_SECRET = re.compile(
    r"auth(?!or(?!i[sz]))|token(?!iz)|secret(?!ar)|passw|passphrase|passcode|credential|cookie|session|sessid"
    r"|signature|jwt|csrf|xsrf|bearer|(?:api|access|private|secret|listen|subscription|functions|master|account|shared|signing)"
    r"[-_]?key"
    r"|(?:^|[_-])(?:pass|pwd|sig|otp)$|(?-i:[a-z]Pass$)",
    re.IGNORECASE,
)

# They say only what to log in for, or something about the secret.
_OPEN = re.compile(
    r"^(?:www|proxy)-authenticate$|[_-](?:type|count|uri|url|endpoint|method|expir[a-z]*|in|at)$",
    re.IGNORECASE,
)
_LINES = re.compile(r"authorization|cookie", re.IGNORECASE)
_SESSION = re.compile(r"session", re.IGNORECASE)
_PLAIN = frozenset({"true", "false", "null", "none", "undefined"})


def is_secret(name: str) -> bool:
    """Whether a value of this name is a secret."""
    return _SECRET.search(name) is not None and _OPEN.search(name) is None


def holds_secret(name: str, word: str) -> bool:
    """Whether ``word``, a bare value of a secret name, may be one: ``max_tokens=5`` is not."""
    return not (word.lower() in _PLAIN or (name.endswith(("s", "S")) and word.isdigit()))


def holds_secrets(name: str) -> bool:
    """Whether all in a list or object of a secret name may be: not in what is called a session."""
    return is_secret(_SESSION.sub("", name))


def takes_line(name: str) -> bool:
    """Whether it is a header whose value may have several words."""
    return _LINES.search(name) is not None
