"""``trioglock connect``: talk to a WebSocket server, at a prompt or through pipes."""

from __future__ import annotations

from typing import Any

import click

from .connecting import CarefulCommand, connect_options, connecting
from .console import Shape, open_console
from .conversation import Plan
from .exits import EXIT_CODES
from .messages import open_messages
from .running import run_conversation
from .values import seconds

__all__ = ["command"]

EXAMPLES = """\b
Examples:
  trioglock connect wss://example.org/feed
  echo hi | trioglock connect ws://127.0.0.1:8020/ --once
  trioglock connect wss://example.org/feed --json -H 'Authorization: Bearer ...'
  trioglock connect wss://example.org/feed --wait inf < subscribe.jsonl | jq .price
"""


@click.command("connect", cls=CarefulCommand, epilog=f"{EXIT_CODES}\n{EXAMPLES}")
@click.argument("url")
@click.option(
    "--once", is_flag=True, help="Send the input, print the first message that comes, and leave."
)
@click.option(
    "--wait",
    metavar="SECONDS",
    callback=seconds(zero=True),
    help="How long to listen after the end of the input; inf for as long as the peer likes. By "
    "default until nothing has come for a second, at most 10; with --once until a message comes.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Lay out JSON that comes, with colours in a terminal, and send nothing that is no JSON.",
)
@click.option("--raw", is_flag=True, help="Write binary messages as they are, not as digits.")
@click.option("--no-history", is_flag=True, help="Neither read nor keep what was typed.")
@connecting
def command(
    url: str,
    *,
    once: bool,
    wait: float | None,
    as_json: bool,
    raw: bool,
    no_history: bool,
    **given: Any,
) -> int:
    """Talk to the WebSocket server at URL.

    In a terminal there is a prompt with a history, and messages appear above it: "<" was received,
    ">" sent, "~" is a control frame, "*" tells how the connection stands and "!" what went wrong.
    /help lists the commands of the prompt; a text that begins with a slash is typed with two.
    Ctrl-D, /quit and Ctrl-C on an empty line close and leave; a second Ctrl-C drops the connection.

    Through pipes, each line of the input is a message. Only messages go to stdout, all else goes to
    stderr. Binary messages are written "binary:" and their hexadecimal digits. After the end of the
    input it listens for a while, see --wait; what comes until the connection is closed is printed.
    """
    shape = Shape(json=as_json, highlighted=as_json, raw=raw)
    console = open_console(shape, None if no_history else "connect_history")
    options = connect_options(url, given, has_prompt=console.has_prompt)
    awaited = url if given["reconnect"] else None
    return run_conversation(
        console,
        Plan(wait=wait, once=once, awaited=awaited),
        lambda: open_messages(url, console, json=as_json, **options),
        given["trace_file"],
    )
