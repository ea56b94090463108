"""``trioglock publish``: one message, or one a line, for those who listen to a channel."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import click
import trio

from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions
from ..transports import check_url
from .live import channel_problem, check_token
from .options import seconds
from .outlets import NotPublished, Outlet, RedisOutlet, open_server_outlet
from .pipe import EndOfInput, LineReader, UnreadableInput
from .settings import TOKEN_VARIABLE

__all__ = ["command"]

SERVER = "ws://127.0.0.1:8020"

NAME = "trioglock"

EPILOG = f"""
\b
Exit codes:
  0    published
  1    not published: the line on standard error says why
  2    the command line makes no sense
  130  Ctrl-C

\b
Examples:
  trioglock publish news 'The library opens at nine.'
  trioglock publish '' 'for everyone'
  tail -f app.log | trioglock publish logs -
  trioglock publish news hello --redis redis://localhost:6379
  {TOKEN_VARIABLE}=... trioglock publish news hello --to wss://live.example.org
"""


@click.command("publish", short_help="Publish a message.", epilog=EPILOG)
@click.argument("channel")
@click.argument("message")
@click.option(
    "--to",
    "url",
    metavar="URL",
    help=f"A running 'trioglock serve' with a hub.  [default: {SERVER}]",
)
@click.option("--redis", metavar="URL", help="Publish at Redis instead, where hubs listen.")
@click.option(
    "--name",
    help="Of the hub; a server with another one refuses.  [default: any, or at Redis trioglock]",
)
@click.option(
    "--history", type=click.IntRange(1), help="With --redis: the --history of the servers."
)
@click.option(
    "--publish-token",
    "token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help=f"What the server asks for. Better set {TOKEN_VARIABLE}, which other users cannot see.",
)
@click.option(
    "--timeout",
    default="10",
    show_default=True,
    metavar="SECONDS",
    callback=seconds(),
    help="For a connection, and for each answer.",
)
def command(channel: str, message: str, **given: Any) -> int:
    """Publish MESSAGE on CHANNEL: whoever listens there gets it.

    An empty CHANNEL is for everyone. With - for MESSAGE each line of standard input is a message.
    """
    _check(channel, message, **given)
    try:
        return trio.run(partial(_publish, channel, message, **given))
    except NotPublished as error:
        click.echo(f"trioglock publish: not published: {error}", err=True)
        return 1
    except (InvalidOption, InvalidURL) as error:
        raise click.UsageError(str(error)) from None


def _check(
    channel: str,
    message: str,
    *,
    url: str | None,
    redis: str | None,
    history: int | None,
    token: str | None,
    **_: Any,
) -> None:
    problem = channel_problem(channel)
    if problem is not None:
        raise click.UsageError(problem)
    try:
        message.encode()
    except UnicodeEncodeError:
        raise click.UsageError("a message is UTF-8") from None
    if redis is not None and url is not None:
        raise click.UsageError("--to and --redis exclude each other: give one of them")
    if redis is None and history is not None:
        raise click.UsageError("--history needs --redis: a server knows it itself")
    try:
        check_token(token)
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None


async def _publish(
    channel: str,
    message: str,
    *,
    url: str | None,
    redis: str | None,
    name: str | None,
    history: int | None,
    token: str | None,
    timeout: float,
) -> int:
    async with AsyncExitStack() as stack:
        if redis is not None:
            outlet: Outlet = RedisOutlet(redis, name or NAME, history, timeout)
        else:
            url = url or SERVER
            host = check_url(DialOptions(url=url))
            outlet = await stack.enter_async_context(
                open_server_outlet(url, host=host, hub=name, token=token, timeout=timeout)
            )
        if message == "-":
            await _publish_lines(outlet, channel)
        else:
            told = _told(await outlet.publish(channel, message))
            click.echo(f"published {_where(channel)}{told}")
    return 0


async def _publish_lines(outlet: Outlet, channel: str) -> None:
    """Each line as it comes: the input may be one that never ends."""
    lines, published = LineReader(sys.stdin), 0
    try:
        while True:
            await outlet.publish(channel, await lines.next_line())
            published += 1
    except EndOfInput:
        messages = "message" if published == 1 else "messages"
        click.echo(f"published {published:,} {messages} {_where(channel)}")
    except (NotPublished, UnreadableInput) as error:
        told = f"line {lines.number}: {error}" if isinstance(error, NotPublished) else str(error)
        raise NotPublished(f"{told}; published before: {published:,}") from None


def _where(channel: str) -> str:
    return f"on {channel}" if channel else "to everyone"


def _told(delivered: int | None) -> str:
    if delivered is None:
        return ""
    return f": {delivered:,} got it" if delivered else ": nobody listens"
