"""``trioglock phoenix``: join a topic of a Phoenix server, at a prompt or through pipes."""

from __future__ import annotations

from typing import Any

import click

from .channels import Topic, open_channel
from .connecting import CarefulCommand, connect_options, connecting
from .console import Shape, open_console
from .conversation import Plan
from .exits import EXIT_CODES
from .running import run_conversation
from .values import json_value, pairs, seconds, topic_name

__all__ = ["command"]

EXAMPLES = """\b
Examples:
  trioglock phoenix ws://localhost:4000/socket join room:1
  trioglock phoenix ws://localhost:4000/socket join room:1 --param user=al
  echo 'shout {"text": "hi"}' | trioglock phoenix ws://localhost:4000/socket join room:1
"""


@click.command("phoenix", cls=CarefulCommand, epilog=f"{EXIT_CODES}\n{EXAMPLES}")
@click.argument("url")
@click.argument("verb", metavar="join", type=click.Choice(["join"]), expose_value=False)
@click.argument("topic", callback=topic_name)
@click.option(
    "--params", "payload", metavar="JSON", callback=json_value, help="The payload of the join."
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="A param of the socket, part of its address. May be given again.",
)
@click.option(
    "--token",
    envvar="TRIOGLOCK_TOKEN",
    metavar="TOKEN",
    help="The auth_token of Phoenix 1.8. Others can see a command line: better set the environment "
    "variable TRIOGLOCK_TOKEN.",
)
@click.option(
    "--push",
    "pushes",
    multiple=True,
    metavar="'EVENT JSON'",
    help="Push this first. May be given again.",
)
@click.option(
    "--timeout",
    default="10",
    show_default=True,
    metavar="SECONDS",
    callback=seconds(),
    help="For the answer to the join, and for each reply.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    callback=seconds(zero=True),
    help="How long to listen after the end of the input; inf for as long as the server likes. By "
    "default until nothing has come for a second, at most 10.",
)
@click.option("--no-history", is_flag=True, help="Neither read nor keep what was typed.")
@connecting
def command(
    url: str,
    topic: str,
    *,
    payload: Any,
    params: dict[str, str],
    token: str | None,
    pushes: tuple[str, ...],
    timeout: float,
    wait: float | None,
    no_history: bool,
    **given: Any,
) -> int:
    """Join TOPIC of the Phoenix socket at URL; /websocket is appended to its path.

    A line, typed or from a pipe, is an event and its payload, such as: shout {"text": "hi"}. It is
    pushed, and the reply is printed as event, status, response. What the server sends is printed
    as event, payload; who comes and goes as presence + name and presence - name. Binary payloads
    are written "binary:" and their hexadecimal digits.

    Prompt, pipes and the end are those of trioglock connect; see its help.
    """
    console = open_console(Shape(highlighted=True), None if no_history else "phoenix_history")
    options = connect_options(url, given, has_prompt=console.has_prompt)
    awaited = url if given["reconnect"] else None
    wanted = Topic(name=topic, payload=payload, params=params, token=token, timeout=timeout)
    return run_conversation(
        console,
        Plan(wait=wait, opening=pushes, awaited=awaited),
        lambda: open_channel(url, wanted, console, **options),
        given["trace_file"],
    )
