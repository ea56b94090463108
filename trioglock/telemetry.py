"""The trace: what one connection does, a line for each step, as WebSockex prints it.

Lines go through :mod:`logging` to the logger ``trioglock.trace`` at level DEBUG. Without a
handler of yours they go to stderr.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

__all__ = ["Trace"]

_SHORT = 80

_logger = logging.getLogger("trioglock.trace")


class Trace:
    """The trace of one connection.

    Args:
        name: what each line begins with.
        on: whether it writes at first.
    """

    __slots__ = ("_name", "on")

    def __init__(self, name: str, *, on: bool = False) -> None:
        self._name = name
        self.on: bool = on
        if on:
            prepare_logging()

    def switch(self, *, on: bool) -> None:
        """Switch it on or off."""
        self.on = on
        if on:
            prepare_logging()

    def line(self, text: str) -> None:
        """Write one line, if switched on."""
        if self.on:
            _logger.debug("*DBG* %s %s", self._name, printable(text))

    def items(self, text: str, items: Iterable[object]) -> None:
        """Write one line for each item, if switched on."""
        if self.on:
            for item in items:
                _logger.debug("*DBG* %s %s: %s", self._name, text, shorten(item))


def printable(text: str) -> str:
    """The text with line breaks and other controls escaped: a peer's words cannot forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(item: object) -> str:
    """The item's repr, cut in the middle of what is long before its repr is built."""
    if isinstance(item, str | bytes) and len(item) > _SHORT:
        unit = "characters" if isinstance(item, str) else "bytes"
        return f"{item[:_SHORT]!r}... ({len(item)} {unit})"
    text = repr(item)
    return text if len(text) <= 2 * _SHORT else f"{text[: 2 * _SHORT]}..."


def prepare_logging() -> None:
    """Let the lines out, also in a program that has not configured logging."""
    _logger.setLevel(logging.DEBUG)
    if not _logger.hasHandlers():
        _logger.addHandler(logging.StreamHandler())
