"""Command line options: exit codes, checks of values, and the options of every connection.

Error messages never show a header, a parameter or JSON: any of them may be a secret.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import click

from .._text import is_unicode
from ..client import ConnectOptions
from ..codecs import JSON
from ..errors import EncodeError, InvalidOption
from ..options import DialOptions, FlowOptions, check_headers, check_subprotocols
from ..retry import Backoff

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NOT_CONNECTED",
    "OK",
    "CarefulCommand",
    "connect_arguments",
    "header_option",
    "json_value",
    "load_certificate",
    "pairs",
    "seconds",
    "session_options",
    "topic_name",
]

OK = 0
FAILED = 1
NOT_CONNECTED = 3
INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    closed cleanly: by the peer with 1000, 1001 or no code, or by you
  1    closed by the peer with another code, or lost; a piped line could not be sent
  2    invalid command line
  3    could not connect: refused, unknown host, TLS error or timeout
  130  interrupted by Ctrl-C
"""
"""For the help of commands that open a connection."""

PROMPT_BACKOFF = Backoff(maximum=5, max_attempts=None)
"""The backoff at a prompt, where the user sees each attempt and can quit at any time."""

# Checks of values.

Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A decorator that adds an option to a command."""


def seconds(*names: str, zero: bool = False, none: bool = False, **settings: Any) -> Option:
    """Return an option for a number of seconds.

    Args:
        names: the names of the option and of its parameter.
        zero: allow 0.
        none: allow the word ``none``, which becomes None: no limit.
        settings: further arguments of :func:`click.option`.
    """
    allowed = f"a number of seconds {'that is at least 0' if zero else 'greater than 0'}"
    if none:
        allowed += ", or 'none'"

    def check(_: click.Context, __: click.Parameter, text: Any) -> float | None:
        if text is None or (none and text == "none"):
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (number > 0 or (zero and number == 0)):
            raise click.BadParameter(f"{text!r} is not valid: use {allowed}.")
        return number

    return click.option(*names, metavar="SECONDS", callback=check, **settings)


def _headers(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Split ``Name: value`` into pairs and check them."""
    found = []
    for text in texts:
        name, colon, value = (part.strip() for part in text.partition(":"))
        if not colon:
            raise click.BadParameter("write a header as 'Name: value', in quotes.")
        try:
            check_headers("header", [(name, value)])
        except InvalidOption as error:
            reserved = "handshake" in str(error)
            raise click.BadParameter(
                f"{name} is set by the opening handshake."
                if reserved
                else "write a header as 'Name: value'. The name consists of letters, digits and "
                "characters such as - and _; the value is latin-1 text without line breaks."
            ) from None
        found.append((name, value))
    return found


def _subprotocols(_: click.Context, __: click.Parameter, names: Sequence[str]) -> Sequence[str]:
    """Check the names of subprotocols."""
    try:
        return check_subprotocols(names)
    except InvalidOption as error:
        raise click.BadParameter(f"{error}.") from None


def pairs(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """Split ``name=value`` into a dict."""
    split = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in split):
        raise click.BadParameter("write a parameter as name=value.")
    return {name: value for name, _, value in split}


def topic_name(_: click.Context, __: click.Parameter, text: str) -> str:
    """Check that a topic can be joined."""
    if text in ("", "phoenix") or not is_unicode(text):
        raise click.BadParameter(f"{text!r} is not a topic such as room:1.")
    return text


def json_value(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Parse JSON that can be sent; errors name only the position."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        JSON().encode(value)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"invalid JSON: {error.msg} at column {error.colno}.") from None
    except EncodeError as error:
        raise click.BadParameter(f"{error}.") from None
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"JSON that cannot be read: {error}.") from None
    return value


# Options.

_DEFAULTS: dict[str, Any] = {
    field.name: field.default for kind in (DialOptions, FlowOptions) for field in fields(kind)
}


def _timeout(option: str, name: str, text: str) -> Option:
    return seconds(option, name, help=text, none=True, default=str(_DEFAULTS[name]))


def header_option(name: str) -> Option:
    """Return the ``--header`` option for a parameter with this name."""
    return click.option(
        "--header",
        "-H",
        name,
        multiple=True,
        metavar="'NAME: VALUE'",
        callback=_headers,
        help="Send a header with the opening handshake. Repeatable.",
    )


_SESSION_OPTIONS = (
    seconds(
        "--wait",
        zero=True,
        help="How long to listen after the end of the input; inf for no limit. The default is to "
        "listen until no message has arrived for a second, but at most 10 seconds.",
    ),
    click.option("--no-history", is_flag=True, help="Neither load nor save the input history."),
    header_option("additional_headers"),
    click.option(
        "--subprotocol",
        "-s",
        "subprotocols",
        multiple=True,
        metavar="NAME",
        callback=_subprotocols,
        help="Offer a subprotocol. Repeatable, with the preferred one first.",
    ),
    click.option("--origin", metavar="ORIGIN", help="Send this Origin header."),
    click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
    click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="Trust only the certificates in FILE (PEM).",
    ),
    click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate."),
    click.option(
        "--reconnect",
        is_flag=True,
        help="Reconnect after a loss, and retry the first attempt: at a prompt, at least every "
        f"{PROMPT_BACKOFF.maximum:g} seconds until you quit; in a script, up to "
        f"{Backoff().max_attempts} times in a row, at most a minute apart.",
    ),
    _timeout(
        "--connect-timeout", "open_timeout", "Timeout for connecting and the handshake, or none."
    ),
    _timeout("--close-timeout", "close_timeout", "Timeout for the closing handshake, or none."),
    _timeout("--ping-interval", "ping_interval", "Interval between pings, or none."),
    click.option(
        "--max-size",
        type=click.IntRange(min=1),
        default=_DEFAULTS["max_size"],
        metavar="BYTES",
        help="Maximum size of a received message in bytes.",
    ),
    click.option("--trace", is_flag=True, help="Print every step of the connection to stderr."),
    click.option(
        "--trace-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, writable=True),
        help="Write the trace to FILE instead.",
    ),
)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands with a prompt, and those of :func:`trioglock.connect`."""
    for option in reversed(_SESSION_OPTIONS):
        command = option(command)
    return command


def connect_arguments(url: str, given: dict[str, Any], *, has_prompt: bool) -> ConnectOptions:
    """Return the keyword arguments of :func:`trioglock.connect`.

    Args:
        url: the server's address.
        given: the values of :func:`session_options`.
        has_prompt: whether there is a prompt.

    Raises:
        click.UsageError: the options cannot be combined.
    """
    arguments = ConnectOptions(
        compression=None if given["no_compression"] else "deflate",
        ssl_context=_ssl_context(url, given["ca"], insecure=given["insecure"]),
        reconnect=PROMPT_BACKOFF if given["reconnect"] and has_prompt else given["reconnect"],
        trace=bool(given["trace"] or given["trace_file"]),
    )
    same = ConnectOptions.__annotations__.keys() - arguments.keys()
    arguments.update({name: value for name, value in given.items() if name in same})  # type: ignore[typeddict-item]
    return arguments


def _ssl_context(url: str, ca: str | None, *, insecure: bool) -> ssl.SSLContext | None:
    if not insecure and ca is None:
        return None
    if insecure and ca is not None:
        raise click.UsageError("--insecure and --ca cannot be combined.")
    if not url.lower().startswith("wss:"):
        raise click.UsageError("--insecure and --ca require a wss:// URL.")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError):
        raise click.UsageError(f"--ca: {ca} contains no certificate (PEM).") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load_certificate(certificate: str, key: str | None) -> ssl.SSLContext:
    """Return the TLS configuration of a server.

    Args:
        certificate: a file with a certificate and its chain (PEM).
        key: a file with the private key (PEM); None if it is in the same file.

    Raises:
        InvalidOption: the files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def refuse_encrypted() -> str:
        raise InvalidOption(f"--tls-key: the key in {key or certificate} must not be encrypted")

    try:
        context.load_cert_chain(certificate, key, refuse_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"--tls-key: {key or certificate} is not the key of {certificate}"
        elif key is None:
            problem = (
                f"--tls-cert: {certificate} does not contain a certificate and its private key "
                "(PEM); pass the file with the key to --tls-key"
            )
        else:
            problem = (
                f"--tls-cert, --tls-key: {certificate} and {key} do not contain a certificate and "
                "its private key (PEM)"
            )
        raise InvalidOption(problem) from None
    except OSError as error:
        # The error does not name the file.
        files = certificate if key is None else f"{certificate} or {key}"
        raise InvalidOption(f"--tls-cert: cannot read {files}: {error.strerror}") from None
    return context


class CarefulCommand(click.Command):
    """A command whose error about extra arguments does not show them.

    They may be the rest of a header that was not quoted.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            extra = "1 extra argument" if len(rest) == 1 else f"{len(rest)} extra arguments"
            raise click.UsageError(f"{extra}. Quote a header: -H 'Name: value'.", ctx)
        return rest
