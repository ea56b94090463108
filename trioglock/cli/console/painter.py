"""The painter: lines for a terminal, with colours where the terminal has them."""

from __future__ import annotations

import io
from typing import TextIO

from rich.console import Console as Rich
from rich.console import RenderableType
from rich.highlighter import JSONHighlighter
from rich.text import Text

from ...frames import Data
from .marks import Mark
from .shape import Shape, escaped

__all__ = ["Painter"]

_INDENT = "  "
"""Before the further lines of a message: none of them can pass for a line with a mark."""


class Painter:
    """Makes text for one stream; rich decides what its terminal is able to show.

    Args:
        stream: that the text is for, if the process has it. ``NO_COLOR`` is respected.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.is_terminal: bool = stream is not None and stream.isatty()
        # It never touches the stream: a terminal that stands still would stop us as well.
        self._rich = Rich(
            file=io.StringIO(),
            force_terminal=self.is_terminal,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._json = JSONHighlighter()

    def marked(self, mark: Mark, content: str | Text) -> str:
        """The content behind a mark, its end included."""
        text = Text(escaped(content)) if isinstance(content, str) else content
        text = Text(f"\n{_INDENT}").join(text.split("\n", allow_blank=True))
        return self.plain(Text.assemble((mark.sign, mark.style), " ", text))

    def message(self, message: Data, shape: Shape) -> Text:
        """What the peer has sent."""
        text = Text(escaped(shape.text(message)))
        if shape.highlighted:
            self._json.highlight(text)
        return text

    def plain(self, content: RenderableType) -> str:
        """The content without a mark; whatever is long goes on in the next line of the screen."""
        with self._rich.capture() as capture:
            self._rich.print(content, soft_wrap=isinstance(content, Text | str))
        return capture.get()
