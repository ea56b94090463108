"""Formats messages and events for standard streams.

On a terminal, each line starts with a mark, and control characters are escaped so that a peer
cannot control the terminal. In a pipe, messages have no mark and are not escaped.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, TextIO

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.highlighter import JSONHighlighter
from rich.text import Text

from ..close_codes import NORMAL
from ..disconnect import HandshakeFailed, LocalClose, RemoteClose
from ..errors import ConnectionClosed, ReconnectFailed, describe_attempts
from ..frames import Data
from .options import FAILED, OK

__all__ = [
    "BINARY",
    "Mark",
    "MessageFormat",
    "Renderer",
    "describe_end",
    "describe_failure",
    "describe_unsent",
    "end_code",
    "format_binary",
    "json_problem",
]

_INDENT = "  "
"""The indentation of continuation lines, so that none of them looks like a line with a mark."""


class Mark(Enum):
    """The character and the style at the beginning of a line."""

    RECEIVED = ("<", "green")
    SENT = (">", "cyan")
    CONTROL = ("~", "magenta")
    STATUS = ("*", "blue")
    PROBLEM = ("!", "bold red")
    TRACE = (":", "bright_black")

    def __init__(self, sign: str, style: str) -> None:
        self.sign: str = sign
        self.style: str = style


BINARY = "binary:"
"""The prefix of a binary message that is printed as text."""


def format_binary(payload: bytes) -> str:
    """Return a binary message as text, such as ``binary:00ff``."""
    return BINARY + payload.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFormat:
    """How received messages are printed."""

    json: bool = False  # indent messages that are JSON; in a pipe, print each message on one line
    highlight: bool = False  # color JSON in a terminal
    raw: bool = False  # write binary messages unchanged

    def to_text(self, message: Data) -> str:
        """Return the text of a message for a terminal."""
        if not isinstance(message, str):
            return format_binary(message)
        if self.json:
            try:
                return json.dumps(json.loads(message), indent=2, ensure_ascii=False)
            except (ValueError, RecursionError):
                pass  # not JSON, or more digits than Python converts
        return message

    def to_line(self, message: Data) -> bytes:
        """Return the bytes to write to a pipe, including the line ending."""
        if isinstance(message, bytes):
            return message if self.raw else format_binary(message).encode() + b"\n"
        if self.json and "\n" in message and json_problem(message) is None:
            # JSON strings contain no line breaks, so the lines can be joined. Parsing and encoding
            # the message again could change numbers and repeated keys.
            message = " ".join(line.strip(" \t\r") for line in message.split("\n"))
        return message.encode() + b"\n"


class Renderer:
    """Renders text for one stream, in color if it is a terminal that supports colors.

    ``NO_COLOR`` is respected. The renderer does not write to the stream, because writing to a
    stopped terminal would block.
    """

    def __init__(self, stream: TextIO | None, message_format: MessageFormat) -> None:
        self.is_terminal: bool = stream is not None and stream.isatty()
        self._format = message_format
        self._highlighter = JSONHighlighter()
        self._rich = RichConsole(
            file=io.StringIO(),
            force_terminal=self.is_terminal,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def event(self, mark: Mark, content: str | Text) -> str:
        """Render a line with a mark, including the line ending."""
        text = Text(_escape(content)) if isinstance(content, str) else content
        text = Text(f"\n{_INDENT}").join(text.split("\n", allow_blank=True))
        return self.plain(Text.assemble((mark.sign, mark.style), " ", text))

    def message(self, message: Data) -> Text:
        """Render a received message, without a mark."""
        text = Text(_escape(self._format.to_text(message)))
        if self._format.highlight:
            self._highlighter.highlight(text)
        return text

    def plain(self, content: RenderableType) -> str:
        """Render without a mark. Long lines wrap and are never cut."""
        with self._rich.capture() as capture:
            self._rich.print(content, soft_wrap=isinstance(content, Text | str))
        return capture.get()


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def json_problem(text: str) -> str | None:
    """Return why and where ``text`` is not JSON (RFC 8259); None if it is."""
    try:
        # Numbers are not converted: Python limits their number of digits, but JSON does not.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        return f"{error.msg} at {line}column {error.colno}"
    except ValueError as error:
        name = str(error)
        return f"{name} is not JSON at column {text.index(name) + 1}"
    except RecursionError:
        return "nested too deeply"
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def end_code(error: ConnectionClosed) -> int:
    """Return the exit code for the end of a connection."""
    cause = error.cause
    clean = (isinstance(cause, LocalClose) and cause.clean) or (
        isinstance(cause, RemoteClose) and cause.code in NORMAL
    )
    return OK if clean and not error.unsent and error.__cause__ is None else FAILED


def describe_end(error: ConnectionClosed) -> str:
    """Describe the end of a connection in one line."""
    text = "closed" if error.cause is None else str(error.cause)
    if isinstance(error.cause, LocalClose) and error.sent is None:
        text = "not connected"  # closed between two attempts to reconnect
    if isinstance(error.__cause__, ReconnectFailed):
        text += f"; {describe_attempts(error.__cause__)}"
    return f"{text}; {describe_unsent(len(error.unsent))}" if error.unsent else text


def describe_unsent(count: int) -> str:
    """Describe the number of messages that were not sent."""
    return "1 message was not sent" if count == 1 else f"{count} messages were not sent"


def describe_failure(error: Exception) -> str:
    """Describe in one line why a connection could not be opened."""
    return str(error if isinstance(error, ReconnectFailed) else HandshakeFailed(error=error))
