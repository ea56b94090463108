"""Lines: texts of peers that cannot break a log, forge a line of it, or fill it."""

from __future__ import annotations

from .texts import redact_start

__all__ = ["LONGEST", "printable", "redact_line"]

LONGEST = 1000
"""The most characters of a line."""


def printable(text: str) -> str:
    """The text with line breaks and other controls escaped: a peer's words cannot forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact_line(text: str, longest: int = LONGEST) -> str:
    """The text as one line of a log: redacted, printable, and not too long.

    Args:
        text: of anybody.
        longest: the most characters that are shown of it.
    """
    shown = printable(redact_start(text, longest))
    if len(shown) <= longest and len(text) <= longest:
        return shown
    return f"{shown[:longest]}... ({len(text)} characters)"
