"""Patterns of channels, matched as Redis matches them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeAlias

from .message import EVERYONE

__all__ = ["ChannelFilter", "Matcher", "compile_pattern", "is_pattern"]

Matcher: TypeAlias = Callable[[str], bool]

_SPECIAL = frozenset("*?[\\")


def is_pattern(text: str) -> bool:
    """Whether a text contains a character that is special in a pattern."""
    return not _SPECIAL.isdisjoint(text)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Matcher:
    """Return a function that checks whether a channel matches a pattern, as PSUBSCRIBE does.

    ``*`` matches any number of characters, including slashes, ``?`` matches one, ``[ae]`` one of
    those listed, ``[a-e]`` one of a range, ``[^e]`` one that is not listed, and a backslash makes
    the next character literal. As in Redis, UTF-8 bytes are compared: ``?`` matches one byte.
    """
    first, *others = _segments(pattern.encode())
    expression = first
    if others:
        # Finding each segment at its first occurrence is sufficient, so no backtracking is needed.
        expression += b"".join(b"(?>.*?%s)" % segment for segment in others[:-1])
        expression += b".*" + others[-1]
    match = re.compile(expression, re.DOTALL).fullmatch
    return lambda channel: match(channel.encode()) is not None


def _segments(pattern: bytes) -> list[bytes]:
    """Return the regular expressions of the parts of a pattern between its asterisks."""
    parts = [b""]
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            parts.append(b"")
        elif byte == b"?":
            parts[-1] += b"."
        elif byte == b"[":
            part, position = _parse_set(pattern, position)
            parts[-1] += part
        else:
            if byte == b"\\" and position < len(pattern):
                byte = pattern[position : position + 1]
                position += 1
            parts[-1] += re.escape(byte)
    return [parts[0], *(part for part in parts[1:-1] if part), *parts[1:][-1:]]


def _parse_set(pattern: bytes, position: int) -> tuple[bytes, int]:
    """Return the regular expression of a set, and the position after it; the end closes it."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    listed: set[int] = set()
    while position < len(pattern):
        left = len(pattern) - position
        byte = pattern[position]
        if byte == ord("\\") and left >= 2:
            listed.add(pattern[position + 1])
            position += 2
        elif byte == ord("]"):
            position += 1
            break
        elif left >= 3 and pattern[position + 1] == ord("-"):
            low, high = sorted((byte, pattern[position + 2]))
            listed.update(range(low, high + 1))
            position += 3
        else:
            listed.add(byte)
            position += 1
    return _expression(set(range(256)) - listed if negated else listed), position


def _expression(listed: set[int]) -> bytes:
    if not listed:
        return b"(?!)"
    return b"[%s]" % b"".join(re.escape(bytes([byte])) for byte in sorted(listed))


class ChannelFilter:
    """The channels of a subscriber: broadcasts, and one channel or those that match a pattern.

    Args:
        pattern: the channel or the pattern.
        literal: whether it is a channel even if it contains special characters.
        everyone: whether broadcasts are included.
    """

    __slots__ = ("_everyone", "_matches", "channel", "pattern")

    def __init__(self, pattern: str, *, literal: bool = False, everyone: bool = True) -> None:
        is_channel = literal or not is_pattern(pattern)
        self.channel: str | None = pattern if is_channel else None
        """The channel; None for a pattern."""
        self.pattern: str = pattern
        """The channel or the pattern."""
        self._everyone = everyone
        self._matches: Matcher = pattern.__eq__ if is_channel else compile_pattern(pattern)

    def __call__(self, channel: str) -> bool:
        return self._everyone if channel == EVERYONE else self._matches(channel)

    def names(self) -> Iterator[str]:
        """The names of the channels; for a pattern, only that of broadcasts."""
        if self._everyone:
            yield EVERYONE
        if self.channel:
            yield self.channel
