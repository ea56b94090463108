"""Conversion of text-like values to text, and a check of text."""

from __future__ import annotations

__all__ = ["as_text", "count", "is_unicode", "seconds_text"]


def as_text(value: str) -> str:
    """Return the characters of a ``str`` as a plain ``str``.

    ``str(value)`` and f-strings use the ``__str__`` and ``__format__`` of a subclass, which may
    return different text, such as ``"Op.SUBSCRIBE"`` for a member of a ``class Op(str, Enum)``.
    """
    return value if value.__class__ is str else str.__str__(value)


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded in UTF-8; lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def count(number: int, noun: str) -> str:
    """Return a number and a noun, such as ``"1 message"`` or ``"2 messages"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds_text(seconds: float) -> str:
    """Return a duration, such as ``"1 second"`` or ``"0.5 seconds"``."""
    return "1 second" if seconds == 1 else f"{seconds:g} seconds"
