"""Texts: errors of other libraries, messages, reprs, and whatever else may have a secret in it."""

from __future__ import annotations

import re

from .addresses import redact_query, redact_url
from .members import without_members
from .names import HIDDEN

__all__ = ["redact_start", "redact_text"]

# No pattern tries the same run of characters twice: the texts may be a peer's, and long. In JSON
# the slashes of an address may be escaped.
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z0-9+.-]++:\\*+/\\*+/[^\s'\"<>]++", re.IGNORECASE)
_TARGET = re.compile(r"(?<![^\s'\"<>])/[^\s'\"<>?]*+\?[^\s'\"<>]++")
_PUNCTUATION = ".,:;)}"  # of the sentence around it
_ESCAPED_SLASH = re.compile(r"\\+/")

# As in a header, and not the challenge of one: realm="...".
_CREDENTIALS = re.compile(
    r"\b(?P<scheme> bearer | basic )(?P<space> \s++ )(?! [\w-]++ = \\*+ ['\"] )"
    r"(?P<value> [a-z0-9._~+/=-]{4,}+ )",
    re.IGNORECASE | re.VERBOSE,
)
_WORDS = frozenset({"auth", "authentication", "authorization", "scheme", "token", "tokens"})
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?+")


# Without any of these there is nothing for the patterns to find.
_SUSPECT = re.compile(r"[:=?]|eyJ|['\"],|bearer|basic", re.IGNORECASE)


def redact_text(text: str) -> str:
    """A text as it may be shown: addresses in it redacted, and values with secret names hidden."""
    text = str.__str__(text)
    if not _SUSPECT.search(text):
        return text
    text = _URL.sub(_redacted_url, text)
    text = _TARGET.sub(_redacted_target, text)
    text = _CREDENTIALS.sub(_without_credentials, "".join(without_members(text)))
    return _JWT.sub(HIDDEN, text)


def _redacted_url(found: re.Match[str]) -> str:
    url = found[0].rstrip(_PUNCTUATION)
    return redact_url(_ESCAPED_SLASH.sub("/", url)) + found[0][len(url) :]


def _redacted_target(found: re.Match[str]) -> str:
    target = found[0].rstrip(_PUNCTUATION)
    return redact_query(target) + found[0][len(target) :]


def _without_credentials(found: re.Match[str]) -> str:
    value = found["value"]
    if found["scheme"].lower() == "basic":
        # Base64, and no word of a sentence about the basics.
        is_secret = any(not one.islower() for one in value[1:])
    else:
        is_secret = value.lower() not in _WORDS
    return f"{found['scheme']}{found['space']}{HIDDEN if is_secret else value}"


def redact_start(text: str, length: int) -> str:
    """At most so many characters of a text, redacted: the time is that of the beginning.

    Args:
        text: of any length.
        length: of what is wanted.
    """
    text = str.__str__(text)
    if len(text) > 4 * length:
        text = _before_cut(text[: 4 * length])
    return redact_text(text)[:length]


def _before_cut(text: str) -> str:
    """A text that was cut, without the address in whose middle that was.

    What hides its password stands behind it.
    """
    last = max(map(text.rfind, " \t\r\n'\"<>"))
    for slashes in ("://", ":\\/\\/", ":\\\\/\\\\/"):
        at = text.find(slashes, last + 1)
        if at >= 0:
            return text[: at + len(slashes)]
    return text
