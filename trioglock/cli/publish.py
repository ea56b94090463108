"""``trioglock publish``: publish a message, or each line of standard input, on a channel."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import click
import trio

from .._redact import printable, redact_text
from ..client import connect
from ..connection import Connection
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
from ..transports import check_url
from .console import EndOfInput, UnreadableInput
from .console.lines import Lines
from .exits import words_of_end, words_of_failure
from .live import PUBLISH, check_channel, check_token, is_loopback
from .serve import TOKEN_VARIABLE
from .values import seconds

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


class NotPublished(Exception):
    """A message was not published; the message of the error is one line without secrets."""


@click.command("publish", short_help="Publish a message.", epilog=EPILOG)
@click.argument("channel")
@click.argument("message")
@click.option(
    "--to",
    "url",
    metavar="URL",
    help=f"Address of a 'trioglock serve' with a hub.  [default: {SERVER}]",
)
@click.option("--redis", metavar="URL", help="Publish directly through the Redis of the hubs.")
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the hub; a server whose hub has another name refuses the message.  "
    "[default: any, with --redis trioglock]",
)
@click.option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="With --redis: the --history of the servers.",
)
@click.option(
    "--publish-token",
    "token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help=f"Token that the server requires. Prefer {TOKEN_VARIABLE}: other users can see a "
    "command line.",
)
@click.option(
    "--timeout",
    default="10",
    show_default=True,
    metavar="SECONDS",
    callback=seconds(),
    help="For connecting, and for each response.",
)
def command(channel: str, message: str, **options: Any) -> int:
    """Publish MESSAGE to the subscribers of CHANNEL.

    With '' as CHANNEL, all subscribers receive the message. With - as MESSAGE, each line of
    standard input is a message.
    """
    _check(channel, message, **options)
    try:
        return trio.run(partial(_publish, channel, message, **options))
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
    problem = check_channel(channel)
    if problem is not None:
        raise click.UsageError(problem)
    try:
        message.encode()
    except UnicodeEncodeError:
        raise click.UsageError("a message must be valid UTF-8") from None
    if redis is not None and url is not None:
        raise click.UsageError("--to and --redis exclude each other")
    if redis is None and history is not None:
        raise click.UsageError("--history needs --redis: a server knows its own history")
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
    target = f"on {channel}" if channel else "to everyone"
    async with AsyncExitStack() as stack:
        if redis is not None:
            publisher: Publisher = RedisPublisher(redis, name or "trioglock", history, timeout)
        else:
            publisher = await stack.enter_async_context(
                _connect(url or SERVER, hub=name, token=token, timeout=timeout)
            )
        if message != "-":
            delivered = await publisher.publish(channel, message)
            click.echo(f"published {target}{_describe_delivery(delivered)}")
        else:
            count = await _publish_lines(publisher, channel)
            click.echo(f"published {count:,} message{'s' * (count != 1)} {target}")
    return 0


def _describe_delivery(delivered: int | None) -> str:
    if delivered is None:
        return ""
    count = f"{delivered:,}" if delivered else "no"
    return f": {count} subscriber{'s' * (delivered != 1)}"


async def _publish_lines(publisher: Publisher, channel: str) -> int:
    """Publish each line of standard input when it arrives, and return how many there were."""
    lines, count = Lines(sys.stdin), 0
    try:
        while True:
            await publisher.publish(channel, await lines.next())
            count += 1
    except EndOfInput:
        return count
    except (NotPublished, UnreadableInput) as error:
        line = f"line {lines.number}: " if isinstance(error, NotPublished) else ""
        raise NotPublished(f"{line}{error}; published before: {count:,}") from None


class Publisher(ABC):
    """Publishes messages on the channels of one hub."""

    @abstractmethod
    async def publish(self, channel: str, message: str) -> int | None:
        """Publish a message.

        Returns:
            The number of subscribers that it was delivered to; None if unknown.

        Raises:
            NotPublished: it was not published, or this is unknown.
        """


class RedisPublisher(Publisher):
    """Publishes through a Redis server, which does not know the number of subscribers."""

    def __init__(self, url: str, name: str, history: int | None, timeout: float) -> None:
        self._publish = partial(publish, name=name, url=url, history=history, timeout=timeout)

    async def publish(self, channel: str, message: str) -> None:
        job = partial(self._publish, message, channel)
        try:
            await trio.to_thread.run_sync(job, abandon_on_cancel=True)
        except (BrokerUnavailable, BrokerError) as error:
            raise NotPublished(printable(redact_text(str(error)))) from None


class ServerPublisher(Publisher):
    """Publishes through ``trioglock serve``; see :mod:`.live.publishing` for the messages.

    Args:
        connection: a connection with the subprotocol.
        hub: required name of the server's hub; None for any.
        timeout: seconds to wait for a response.
    """

    def __init__(self, connection: Connection[None], hub: str | None, timeout: float) -> None:
        self._connection = connection
        self._hub = {} if hub is None else {"hub": hub}
        self._timeout = timeout

    async def publish(self, channel: str, message: str) -> int | None:
        request = {"channel": channel, "data": message, **self._hub}
        try:
            with trio.fail_after(self._timeout):
                await self._connection.send(json.dumps(request, ensure_ascii=False))
                response = _parse_response(await self._connection.receive())
        except trio.TooSlowError:
            raise NotPublished(f"no response within {self._timeout:g} seconds") from None
        except ConnectionClosed as error:
            raise NotPublished(printable(words_of_end(error))) from None
        if response.get("published") is not True:
            reason = str(response.get("error", "the server gave no reason"))
            raise NotPublished(printable(reason[:MAX_REASON]))
        delivered = response.get("delivered")
        return delivered if isinstance(delivered, int) else None


def _parse_response(frame: Any) -> dict[str, Any]:
    try:
        response = json.loads(frame)
    except (ValueError, RecursionError):
        response = None
    if not isinstance(response, dict):
        raise NotPublished("the response of the server is not from trioglock")
    return response


@asynccontextmanager
async def _connect(
    url: str, *, hub: str | None, token: str | None, timeout: float
) -> AsyncIterator[Publisher]:
    """Connect to a server; every failure is raised as NotPublished."""
    host = check_url(DialOptions(url=url))
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
            if connection.subprotocol != PUBLISH:
                raise NotPublished(
                    "the server does not support publishing: is it 'trioglock serve' with a hub?"
                )
            yield ServerPublisher(connection, hub, timeout)
    except HandshakeRefused as error:
        raise NotPublished(_describe_refusal(error)) from None
    except ConnectError as error:
        raise NotPublished(printable(words_of_failure(error))) from None
    except ConnectionClosed as error:
        raise NotPublished(printable(words_of_end(error))) from None


def _describe_refusal(error: HandshakeRefused) -> str:
    """The text of the response, unless it is a page."""
    text = error.body.decode(errors="replace").strip()
    if not text or not error.headers.get("Content-Type", "").startswith("text/plain"):
        return printable(words_of_failure(error))
    return f"{printable(text[:MAX_REASON])} ({error.status})"
