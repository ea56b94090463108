"""Draws the state machines from the tables that they keep to: ``python docs/diagrams.py``.

For each table there are two files in ``docs/images/``: the graph in the language of graphviz,
which a test compares with the table, and the picture, which graphviz's program ``dot`` makes of it.
A picture is a card of its own colours, as readable on a dark page as on a light one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trioglock.connection import closing
from trioglock.protocols.gossip.state import TRANSITIONS as GOSSIP_TRANSITIONS
from trioglock.protocols.phoenix.state import TRANSITIONS as PHOENIX_TRANSITIONS

IMAGES = Path(__file__).parent / "images"

INK, CARD, PAPER = "#1f2937", "#f3f4f6", "#ffffff"

WIDTH = 17
"""Letters in a line of a label."""


@dataclass(frozen=True)
class Diagram:
    """A picture of one table.

    Args:
        name: of its files.
        transitions: the table: from each state to those that may follow, and what leads there.
        direction: in which it grows, ``"LR"`` or ``"TB"``.
    """

    name: str
    transitions: Mapping[Any, Mapping[Any, str]]
    direction: str = "TB"

    @property
    def dot(self) -> str:
        """The graph in the language of graphviz."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        font = f'fontname="Helvetica,Arial,sans-serif" fontcolor="{INK}"'
        yield f"// Made from a table in the code by docs/diagrams.py: {self.name}"
        yield f"digraph {self.name} {{"
        room = "pad=0.3 nodesep=0.3 ranksep=0.45"
        yield f'  graph [rankdir={self.direction} bgcolor="{CARD}" {room}]'
        yield f'  node [shape=box style="rounded,filled" fillcolor="{PAPER}" color="{INK}" {font}]'
        yield f'  edge [color="{INK}" fontsize=11 {font}]'
        yield f'  begin [shape=point width=0.12 color="{INK}" fillcolor="{INK}"]'
        first = next(iter(self.transitions))
        yield f"  begin -> {first.name}"
        for state, following in self.transitions.items():
            # Two lines around a state that nothing follows.
            yield f"  {state.name} [peripheries={1 if following else 2}]"
            for other, why in following.items():
                label = "\\n".join(f" {line} " for line in textwrap.wrap(why, WIDTH))
                yield f'  {state.name} -> {other.name} [label="{label}"]'
        yield "}"

    def check(self) -> None:
        """Raise AssertionError unless the files are those of the table."""
        again = "run python docs/diagrams.py"
        assert self._file("dot").read_text(encoding="utf-8") == self.dot, again
        assert self._mark() in self._file("svg").read_text(encoding="utf-8"), again

    def write(self, program: str) -> None:
        """Write the graph, and the picture with graphviz's ``dot``."""
        self._file("dot").write_text(self.dot, encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - our own input
            [program, "-Tsvg"], input=self.dot, capture_output=True, check=True, encoding="utf-8"
        )
        # Without graphviz's own remarks, its version among them.
        picture = re.sub(r"<!--.*?-->\n?", "", done.stdout, flags=re.DOTALL)
        self._file("svg").write_text(f"{picture}<!-- {self._mark()} -->\n", encoding="utf-8")

    def _mark(self) -> str:
        """Tells of which graph a picture was made."""
        return f"sha256:{hashlib.sha256(self.dot.encode()).hexdigest()}"

    def _file(self, kind: str) -> Path:
        return IMAGES / f"{self.name}.{kind}"


DIAGRAMS = (
    Diagram("connection", closing.TRANSITIONS),
    Diagram("phoenix_channel", PHOENIX_TRANSITIONS),
    Diagram("gossip_client", GOSSIP_TRANSITIONS, "LR"),
)


def main() -> int:
    """Write all of them; the exit code."""
    program = shutil.which("dot")
    if program is None:
        sys.stderr.write("graphviz's program dot is needed: apt-get install graphviz\n")
        return 1
    for diagram in DIAGRAMS:
        diagram.write(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
