"""``trioglock publish``: publish a message, or each line of standard input, on a channel."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import click
import trio
from click.core import ParameterSource

from .._redact import printable, redact_text
from .._text import seconds_text
from ..client import connect
from ..errors import (
    BrokerError,
    BrokerUnavailable,
    ConnectError,
    ConnectionClosed,
    HandshakeRefused,
    InvalidOption,
    InvalidURL,
)
from ..options import DialOptions
from ..pubsub import publish
from ..pubsub.broker import HISTORY_SECONDS
from ..transports import check_url
from .line_reader import EndOfInput, LineReader, UnreadableInput
from .live import PUBLISH, check_channel, check_token, is_loopback
from .options import seconds
from .output import describe_end, describe_failure
from .serve import TOKEN_VARIABLE
from .streams import print_line

__all__ = ["command"]

SERVER = "ws://127.0.0.1:8020"
CLOSE_TIMEOUT = 2  # seconds
MAX_REASON = 200  # characters of a server's message that are printed

EPILOG = f"""
\b
Exit codes:
  0    published
  1    not published; the reason is printed to stderr
  2    invalid arguments
  130  Ctrl-C

\b
Examples:
  trioglock publish news 'The library opens at nine.'
  trioglock publish '' 'for everyone'
  tail -f app.log | trioglock publish logs -
  trioglock publish news hello --redis redis://localhost:6379
  {TOKEN_VARIABLE}=... trioglock publish news hello --to wss://live.example.org
"""


Publisher: TypeAlias = Callable[[str, str], Awaitable[int | None]]
"""Publishes a message on a channel; returns the number of subscribers, None if unknown."""


class NotPublished(Exception):
    """A message was not published; the text of the error is one line without secrets."""


@click.command("publish", short_help="Publish a message.", epilog=EPILOG)
@click.argument("channel")
@click.argument("message")
@click.option(
    "--to",
    "url",
    metavar="URL",
    help=f"Address of a 'trioglock serve' server with a hub.  [default: {SERVER}]",
)
@click.option("--redis", metavar="URL", help="Publish directly through the hubs' Redis.")
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the hub; a server whose hub has a different name refuses the message.  "
    "[default: any; with --redis, trioglock]",
)
@click.option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="With --redis: the value of --history that the servers use.",
)
@seconds(
    "--history-seconds",
    none=True,
    default=f"{HISTORY_SECONDS}",
    show_default=True,
    help="With --history: how long the messages are kept, or 'none' for no limit: the value of "
    "history_seconds that the hubs use. Those of 'trioglock serve' use the default.",
)
@click.option("--sharded", is_flag=True, help="With --redis: for servers that use --sharded.")
@click.option(
    "--publish-token",
    "token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help=f"Token that the server requires. Prefer {TOKEN_VARIABLE}: other users can see the "
    "command line.",
)
@seconds("--timeout", default="10", help="Timeout for connecting, and for each response.")
@click.pass_context
def command(
    context: click.Context,
    channel: str,
    message: str,
    *,
    url: str | None,
    redis: str | None,
    name: str | None,
    history: int | None,
    history_seconds: float | None,
    sharded: bool,
    token: str | None,
    timeout: float,
) -> int:
    """Publish MESSAGE to the subscribers of CHANNEL.

    With '' as CHANNEL, all subscribers receive the message. With - as MESSAGE, each line of
    standard input is a message.
    """
    problem = check_channel(channel)
    if problem is not None:
        raise click.UsageError(problem)
    if redis is not None and url is not None:
        raise click.UsageError("--to and --redis cannot be combined")
    if redis is None and history is not None:
        raise click.UsageError("--history requires --redis: a server knows its own history")
    source = context.get_parameter_source("history_seconds")
    if history is None and source is not ParameterSource.DEFAULT:
        raise click.UsageError("--history-seconds requires --history")
    if redis is None and sharded:
        raise click.UsageError("--sharded requires --redis: a server knows its own broker")
    try:
        message.encode()
        check_token(token)
        if redis is not None:
            opening = _open_redis(
                url=redis,
                name=name or "trioglock",
                history=history,
                history_seconds=history_seconds,
                sharded=sharded,
                timeout=timeout,
            )
        else:
            opening = _open_server(url or SERVER, hub=name, token=token, timeout=timeout)
        return trio.run(_publish, opening, channel, message)
    except UnicodeEncodeError:
        raise click.UsageError("a message must be valid UTF-8") from None
    except (InvalidOption, InvalidURL) as error:
        raise click.UsageError(str(error)) from None
    except NotPublished as error:
        print_line(f"trioglock publish: not published: {error}", sys.stderr)
        return 1


async def _publish(
    opening: AbstractAsyncContextManager[Publisher], channel: str, message: str
) -> int:
    target = f"on {channel}" if channel else "to everyone"
    async with opening as publisher:
        if message == "-":
            count = await _publish_lines(publisher, channel)
            print_line(f"published {count:,} message{'s' * (count != 1)} {target}")
        else:
            delivered = await publisher(channel, message)
            print_line(f"published {target}{_describe_delivery(delivered)}")
    return 0


def _describe_delivery(delivered: int | None) -> str:
    if delivered is None:
        return ""
    count = f"{delivered:,}" if delivered else "no"
    return f": {count} subscriber{'s' * (delivered != 1)}"


async def _publish_lines(publisher: Publisher, channel: str) -> int:
    """Publish each line of standard input as it arrives, and return the number of lines."""
    lines, count = LineReader(sys.stdin), 0
    try:
        while True:
            await publisher(channel, await lines.next_line())
            count += 1
    except EndOfInput:
        return count
    except (NotPublished, UnreadableInput) as error:
        line = f"line {lines.number}: " if isinstance(error, NotPublished) else ""
        raise NotPublished(f"{line}{error}; messages published before this: {count:,}") from None


@asynccontextmanager
async def _open_redis(**options: Any) -> AsyncIterator[Publisher]:
    """Publish through Redis, which does not know the number of subscribers."""

    async def publisher(channel: str, message: str) -> None:
        job = partial(publish, message, channel, **options)
        try:
            await trio.to_thread.run_sync(job, abandon_on_cancel=True)
        except (BrokerUnavailable, BrokerError) as error:
            raise NotPublished(printable(redact_text(str(error)))) from None

    yield publisher


@asynccontextmanager
async def _open_server(
    url: str, *, hub: str | None, token: str | None, timeout: float
) -> AsyncIterator[Publisher]:
    """Publish through a server; see :mod:`.live.sockets` for the messages."""
    host = check_url(DialOptions(url=url))
    fields = {} if hub is None else {"hub": hub}
    try:
        async with connect(
            url,
            additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
            subprotocols=[PUBLISH],
            proxy=None if is_loopback(host) else True,
            max_redirects=0,
            open_timeout=timeout,
            close_timeout=CLOSE_TIMEOUT,
        ) as connection:

            async def publisher(channel: str, message: str) -> int | None:
                request = {"channel": channel, "data": message, **fields}
                try:
                    with trio.fail_after(timeout):
                        await connection.send(json.dumps(request, ensure_ascii=False))
                        return _parse_response(await connection.receive())
                except trio.TooSlowError:
                    raise NotPublished(f"no response within {seconds_text(timeout)}") from None
                except ConnectionClosed as error:
                    raise NotPublished(printable(describe_end(error))) from None

            if connection.subprotocol != PUBLISH:
                raise NotPublished(
                    "the server does not support publishing: is it 'trioglock serve' with a hub?"
                )
            yield publisher
    except ConnectError as error:
        raise NotPublished(_describe_failure(error)) from None
    except ConnectionClosed as error:
        raise NotPublished(printable(describe_end(error))) from None


def _parse_response(frame: Any) -> int | None:
    """The number of subscribers, if the message was published."""
    try:
        response = json.loads(frame)
    except (ValueError, RecursionError):
        response = None
    if not isinstance(response, dict):
        raise NotPublished("the response does not come from a trioglock server")
    if response.get("published") is not True:
        reason = str(response.get("error", "the server gave no reason"))
        raise NotPublished(printable(reason[:MAX_REASON]))
    delivered = response.get("delivered")
    return delivered if isinstance(delivered, int) else None


def _describe_failure(error: ConnectError) -> str:
    """Describe a failure, using the text of the server's response unless that is a web page."""
    if isinstance(error, HandshakeRefused):
        text = error.body.decode(errors="replace").strip()
        if text and error.headers.get("Content-Type", "").startswith("text/plain"):
            return f"{printable(text[:MAX_REASON])} ({error.status})"
    return printable(describe_failure(error))
