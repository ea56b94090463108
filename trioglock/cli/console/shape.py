"""Shapes: what a message looks like, for people and for pipes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

from ...frames import Data

__all__ = ["Shape", "escaped", "json_problem"]

BINARY = "binary:"
"""What the hexadecimal digits of a binary message begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How received messages are printed.

    Args:
        json: text that is JSON is laid out.
        highlighted: a terminal shows JSON in it with colours.
        raw: binary messages are written as they are.
    """

    json: bool = False
    highlighted: bool = False
    raw: bool = False

    def text(self, message: Data) -> str:
        """The message as text."""
        if not isinstance(message, str):
            return BINARY + message.hex()
        laid_out = _laid_out(message) if self.json else None
        return message if laid_out is None else laid_out

    def line(self, message: Data) -> bytes:
        """The message as it goes into a pipe, its end included."""
        if self.raw and isinstance(message, bytes):
            return message
        return self.text(message).encode() + b"\n"


def _laid_out(text: str) -> str | None:
    """JSON over several lines; None for what is none."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def json_problem(text: str) -> str | None:
    """Why ``text`` is no JSON (RFC 8259), and where; None if it is."""
    try:
        # Numbers are not converted: Python limits their digits, JSON does not.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        return f"{error.msg} at {line}column {error.colno}"
    except ValueError as error:
        name = str(error)
        return f"{name} is no JSON at column {text.index(name) + 1}"
    except RecursionError:
        return "nested too deeply"
    return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def escaped(text: str) -> str:
    """The text with its control characters spelt out: a peer must not command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
