"""Text of other types than ``str``, whose ``str()`` and ``format()`` are not their characters."""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind", "Level", "Loud"]


class Kind(str, Enum):  # noqa: UP042 - the str() of a StrEnum is its value
    """The most common such type: ``str(Kind.NEWS)`` is ``"Kind.NEWS"``."""

    NEWS = "news"
    OTHER = "other"
    NOUN = "noun"
    SECRET = "secret"
    UMLAUT = "\u00fcber"


class Level(int, Enum):
    """Its ``str()`` is not its number."""

    ONE = 1


class Loud(str):
    """Text that hides its characters."""

    __slots__ = ()

    def __str__(self) -> str:
        return "WRONG"

    def __format__(self, spec: str) -> str:
        return "WRONG"
