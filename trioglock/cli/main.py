"""The entry point of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]

LIBRARIES = ("click", "rich", "prompt_toolkit")
"""The main dependencies of the ``cli`` extra."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; by default ``sys.argv[1:]``.

    Returns:
        The exit code: 0 for success, 1 for failure, 2 for an invalid command line, 130 for Ctrl-C.
        Commands may define more.
    """
    if not all(find_spec(name) for name in LIBRARIES):
        print("trioglock's command line needs: pip install 'trioglock[cli]'", file=sys.stderr)
        return 1
    from .group import run  # noqa: PLC0415 - imports click, which may be missing

    return run(sys.argv[1:] if arguments is None else arguments)
