"""Units: numbers as people read them, in what the terminal's encoding can show."""

from __future__ import annotations

__all__ = ["duration", "in_encoding", "is_unicode", "rate"]


def is_unicode(encoding: str) -> bool:
    """Whether every character can be shown."""
    return encoding.lower().replace("-", "").startswith("utf")


def in_encoding(text: str, encoding: str) -> str:
    """The text with what the encoding lacks escaped."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def duration(seconds: float, *, unicode: bool = True) -> str:
    """Three digits and a unit, such as ``412 µs``."""
    for limit, factor, unit in ((1e-3, 1e6, "µs" if unicode else "us"), (1, 1e3, "ms")):
        if seconds < limit:
            return f"{_three(seconds * factor)} {unit}"
    return f"{_three(seconds)} s"


def rate(per_second: float) -> str:
    """Bytes per second, such as ``12.3 MB/s``; a megabyte is a million bytes."""
    return f"{_three(per_second / 1e6)} MB/s"


def _three(number: float) -> str:
    decimals = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{decimals}f}"
