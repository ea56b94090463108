"""Connecting: the options of every command that opens a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..backoff import Backoff
from ..client import ConnectOptions
from .values import headers, seconds, subprotocols

__all__ = ["CarefulCommand", "connect_options", "connecting"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

PATIENT = Backoff(maximum=5, max_attempts=None)
"""For a person, who sees what happens and leaves when it takes too long."""

_OPTIONS = (
    click.option(
        "--header",
        "-H",
        "additional_headers",
        multiple=True,
        metavar="'NAME: VALUE'",
        callback=headers,
        help="Send a header with the opening handshake. May be given again.",
    ),
    click.option(
        "--subprotocol",
        "-s",
        "subprotocols",
        multiple=True,
        metavar="NAME",
        callback=subprotocols,
        help="Offer a subprotocol; the first is preferred. May be given again.",
    ),
    click.option("--origin", metavar="ORIGIN", help="Send this Origin header."),
    click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
    click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="Trust the certificates in FILE (PEM), and no others.",
    ),
    click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate."),
    click.option(
        "--reconnect",
        is_flag=True,
        help="Connect again after a loss; the first time included. At a prompt at least every "
        f"{PATIENT.maximum:g} seconds, until you leave; else ten times, up to a minute apart.",
    ),
    click.option(
        "--connect-timeout",
        "open_timeout",
        default="10",
        show_default=True,
        metavar="SECONDS",
        callback=seconds(none=True),
        help="For dialling and the opening handshake, or none.",
    ),
    click.option(
        "--close-timeout",
        default="10",
        show_default=True,
        metavar="SECONDS",
        callback=seconds(none=True),
        help="For the closing handshake, or none.",
    ),
    click.option(
        "--ping-interval",
        default="20",
        show_default=True,
        metavar="SECONDS",
        callback=seconds(none=True),
        help="Between pings, or none.",
    ),
    click.option(
        "--max-size",
        type=click.IntRange(min=1),
        default=2**20,
        show_default=True,
        metavar="BYTES",
        help="The most bytes of one received message.",
    ),
    click.option("--trace", is_flag=True, help="Print every step of the connection to stderr."),
    click.option(
        "--trace-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, writable=True),
        help="Write the trace to FILE instead.",
    ),
)


class CarefulCommand(click.Command):
    """Does not repeat a word that it has no place for: it may be half of a header."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :meth:`click.Command.parse_args`."""
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            words = "1 word" if len(rest) == 1 else f"{len(rest)} words"
            raise click.UsageError(
                f"{words} too many. A header is one word: -H 'Name: value'.", ctx
            )
        return rest


def connecting(command: CommandT) -> CommandT:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connect_options(url: str, given: dict[str, Any], *, has_prompt: bool) -> ConnectOptions:
    """What :func:`trioglock.connect` takes, from what was given on the command line.

    Args:
        url: where to connect to.
        given: the values of the options above.
        has_prompt: whether a person waits.

    Raises:
        click.UsageError: they do not go together.
    """
    return {
        "additional_headers": given["additional_headers"],
        "subprotocols": given["subprotocols"],
        "origin": given["origin"],
        "compression": None if given["no_compression"] else "deflate",
        "ssl_context": _ssl_context(url, given["ca"], insecure=given["insecure"]),
        "open_timeout": given["open_timeout"],
        "close_timeout": given["close_timeout"],
        "ping_interval": given["ping_interval"],
        "max_size": given["max_size"],
        "reconnect": PATIENT if given["reconnect"] and has_prompt else given["reconnect"],
        "trace": bool(given["trace"] or given["trace_file"]),
    }


def _ssl_context(url: str, ca: str | None, *, insecure: bool) -> ssl.SSLContext | None:
    if not insecure and ca is None:
        return None
    if insecure and ca is not None:
        raise click.UsageError("--insecure and --ca exclude each other: give one of them.")
    if not url.lower().startswith("wss:"):
        raise click.UsageError("--insecure and --ca need an address that begins with wss://.")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError):
        raise click.UsageError(f"--ca: there is no certificate in {ca} (PEM).") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
