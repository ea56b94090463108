"""Headers: their values as they may be shown."""

from __future__ import annotations

import re

from .addresses import redact_url
from .names import HIDDEN, is_secret
from .texts import redact_text

__all__ = ["redact_header", "redact_subprotocols"]

_PROTOCOL = re.compile(r"[^\s,'\"()\[\]]++")
_PIECE = re.compile(r"[A-Za-z0-9]{12,}+")
_LONGEST_NAME = 47
_SIGNS = frozenset("=/@")
_ADDRESSES = frozenset({"location", "content-location", "referer"})  # relative ones as well


def redact_header(name: str, value: str) -> str:
    """The value of a header as it may be shown."""
    if name.lower() == "sec-websocket-protocol":
        return redact_subprotocols(value)
    if name.lower() in _ADDRESSES:
        return redact_url(value)
    return HIDDEN if is_secret(name) else redact_text(value)


def redact_subprotocols(names: str) -> str:
    """A list of subprotocols, or a text around it, without the tokens in it.

    Browsers send tokens so, for want of headers: in one word with a telling name, behind it, or
    alone. A protocol's name is short, or made of short words.
    """
    after_telling_name = False

    def hide(found: re.Match[str]) -> str:
        nonlocal after_telling_name
        name = found[0]
        hidden = after_telling_name or _is_token(name)
        after_telling_name = not hidden and is_secret(name)
        return HIDDEN if hidden else name

    return _PROTOCOL.sub(hide, str.__str__(names))


def _is_token(name: str) -> bool:
    # Of Base64 there may be signs left that no name can have.
    if len(name) > _LONGEST_NAME or "bearer." in name.lower() or _SIGNS.intersection(name):
        return True
    return any(any(map(str.isdigit, piece)) for piece in _PIECE.findall(name))
