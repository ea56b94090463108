"""The entry: from the words of a command line to an exit code.

The libraries of the extra ``cli`` are asked for here and imported below, so that whoever lacks
them is told what to install.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]

LIBRARIES = ("click", "rich", "prompt_toolkit")
"""What the extra ``cli`` brings."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 for failure, 2 for a command line that makes no sense, 130
        for Ctrl-C; a command may have more.
    """
    if not all(find_spec(name) for name in LIBRARIES):
        print("trioglock's command line needs: pip install 'trioglock[cli]'", file=sys.stderr)
        return 1
    from .group import run  # noqa: PLC0415 - see above

    return run(sys.argv[1:] if arguments is None else arguments)
