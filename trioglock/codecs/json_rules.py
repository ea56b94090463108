"""The rules of JSON for all libraries: which values can be encoded, and which text is valid.

The libraries disagree about sets, bytes, NaN, keys, surrogates, large integers and the depth of
nesting. These functions decide such cases. The allowed values are those that orjson accepts without
further checks, so the common case is fast.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = ["MAX_DEPTH", "check_depth", "check_surrogates", "is_plain"]

MAX_DEPTH = 200
"""Maximum nesting of lists and dicts. orjson encodes 254 levels, the others several hundred."""

_SCALARS = frozenset({str, int, bool, type(None)})
_ALLOWED = "dict, list, tuple, str, int, float, bool, None, UUID or Enum"

_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_string = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_escape = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)", re.DOTALL
)


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a value has only the exact types of JSON, which all libraries encode alike.

    Raises:
        TypeError: a value or key has no equivalent in JSON.
        ValueError: a number is not finite, the nesting is too deep, or a value contains itself.
    """
    kind = value.__class__
    if kind in _SCALARS:
        return True
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number")
        return True
    if not depth:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep, or it contains itself")
    plain = True
    if kind is dict:
        for key, item in value.items():
            if key.__class__ is not str:
                plain = _check_key(key)
            if item.__class__ not in _SCALARS and not is_plain(item, depth - 1):
                plain = False
        return plain
    if not (kind is list or kind is tuple):
        return _check_other(value, depth)
    for item in value:
        if item.__class__ not in _SCALARS and not is_plain(item, depth - 1):
            plain = False
    return plain


def _check_other(value: Any, depth: int) -> bool:
    if isinstance(value, Enum):
        is_plain(value.value, depth)
    elif isinstance(value, dict):
        is_plain(dict(value), depth)
    elif isinstance(value, list | tuple):
        is_plain(list(value), depth)
    elif isinstance(value, float):
        is_plain(float(value), depth)
    elif not isinstance(value, str | int | UUID):
        raise TypeError(f"{type(value).__name__} is not a JSON type; use {_ALLOWED}")
    return False


def _check_key(key: object) -> bool:
    if not isinstance(key, str):
        raise TypeError(f"a key of a dict must be str, not {type(key).__name__}")
    return False


def check_depth(frame: str | bytes) -> None:
    """Check the nesting of JSON text.

    Raises:
        ValueError: the nesting is too deep.
    """
    if len(frame) <= 2 * MAX_DEPTH:
        return
    data = frame.encode() if isinstance(frame, str) else frame
    if (_has_many(data, b"[") or _has_many(data, b"{")) and _is_too_deep(data):
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _has_many(data: bytes, bracket: bytes) -> bool:
    """Whether ``bracket`` occurs more than MAX_DEPTH / 2 times; faster than ``count``."""
    at = -1
    for _ in range(MAX_DEPTH // 2 + 1):
        at = data.find(bracket, at + 1)
        if at < 0:
            return False
    return True


def _is_too_deep(data: bytes) -> bool:
    # Removing closed pairs, innermost first, quickly shows that ordinary messages are not nested
    # deeply.
    brackets = data.translate(None, _OTHERS)
    while len(brackets) > MAX_DEPTH:
        rest = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(rest) > len(brackets) // 2:
            break
        brackets = rest
    else:
        return False
    depth = 0
    for bracket in _string.sub(b"", data).translate(None, _OTHERS):
        depth += 1 if bracket in b"[{" else -1
        if not 0 <= depth <= MAX_DEPTH:
            return depth > 0  # a negative depth is an error that the library finds
    return False


def check_surrogates(text: str) -> None:
    """Check that JSON text is Unicode, including its escapes.

    Raises:
        ValueError: it contains a lone surrogate.
    """
    if not text.isascii():
        text.encode()
    if "\\u" in text and any(_escape.findall(text)):
        raise ValueError("a lone surrogate is not valid Unicode")
