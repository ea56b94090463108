"""The command line: which commands there are, and their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import trio

from .demo import demo
from .serve import add_serve, run_serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 for failure, 130 for Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="trioglock", description="WebSocket applications for trio."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "demo",
        help="count JSON messages through hooks, against an embedded echo server",
        description="Start an echo server on a free loopback port, connect to it, and send JSON "
        "messages through the hooks of a counting Socket. Needs no network.",
    )
    command.add_argument(
        "--messages", type=_positive, default=1000, help="how many to send (default: 1000)"
    )
    add_serve(commands)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    try:
        if options.command == "serve":
            return run_serve(options, given)
        return trio.run(demo, options.messages)
    except KeyboardInterrupt:
        return 130


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
