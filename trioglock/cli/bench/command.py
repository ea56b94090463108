"""``trioglock bench``: its arguments, and the order in which things are done."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...errors import InvalidOption, InvalidURL
from ...headers import Headers
from ...options import DialOptions
from ...transports import check_url
from ..options import CarefulCommand, headers, seconds
from .descriptors import allow_descriptors
from .embedded import embedded_echo
from .picture import can_draw, draw_picture
from .plan import Plan
from .run import exit_code, measure, tell

__all__ = ["command"]

SECONDS = 5.0
WARM_UP = 1.0

EPILOG = """
\b
Exit codes:
  0    all went well
  1    something went wrong on the way, or the server does not echo
  2    the command line makes no sense
  3    no connection came about
  130  Ctrl-C; the figures up to then are shown

\b
Examples:
  trioglock bench
  trioglock bench ws://127.0.0.1:8020/ --connections 100 --seconds 30
  trioglock bench wss://example.org/echo --header 'Authorization: Bearer TOKEN'
  trioglock bench --size 16384 --in-flight 32 --binary --json > figures.json
"""


@click.command("bench", cls=CarefulCommand, short_help="Measure an echo server.", epilog=EPILOG)
@click.argument("url", required=False)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="At the same time.",
)
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(0, 2**26),
    default=64,
    show_default=True,
    help="Bytes of a message.",
)
@click.option(
    "--in-flight",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Messages that are on their way on each connection.",
)
@click.option(
    "--seconds",
    metavar="SECONDS",
    callback=seconds(),
    help="How long to measure.  [default: 5]",
)
@click.option(
    "--messages",
    metavar="N",
    type=click.IntRange(1),
    help="How many to measure, instead of for how long.",
)
@click.option(
    "--warm-up",
    metavar="SECONDS",
    callback=seconds(zero=True),
    help="Seconds of traffic before --seconds begin.  [default: 1]",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    callback=seconds(),
    default="10",
    show_default=True,
    help="Seconds that a connection or an echo may take.",
)
@click.option("--binary", is_flag=True, help="Binary messages instead of text.")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option(
    "--header",
    "-H",
    "additional_headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    callback=headers,
    help="Send a header with the opening handshakes. May be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the latencies into this file.",
)
def command(url: str | None, png: Path | None, *, as_json: bool, **given: Any) -> int:
    """Measure how fast a server echoes: messages per second, and latencies.

    Each connection sends a message, waits for it to come back, compares, and sends the next. URL is
    that of an echo server, such as 'trioglock serve echo'; without one, an echo server is started
    in a process of its own and measured.
    """
    _check_picture(png)
    with ExitStack() as stack:
        plan = _plan(url or "ws://127.0.0.1/", proxied=url is not None, **given)
        allow_descriptors(plan.connections)
        if url is None:
            plan = replace(plan, url=stack.enter_context(embedded_echo()))
        figures = measure(plan)
    tell(figures, as_json=as_json)
    if png is not None and figures.latency is not None:
        try:
            draw_picture(figures, png)
        except OSError as error:
            raise click.ClickException(f"{png} cannot be written: {error.strerror}") from None
    return exit_code(figures)


def _check_picture(png: Path | None) -> None:
    """Before anything is measured: whether the picture can be drawn."""
    if png is None:
        return
    hint = "'--png'"
    if not can_draw():
        told = "it needs matplotlib: pip install 'trioglock[plot]'"
        raise click.BadParameter(told, param_hint=hint)
    if not png.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {png.parent}", param_hint=hint)


def _plan(
    url: str,
    *,
    proxied: bool,
    seconds: float | None,
    messages: int | None,
    warm_up: float | None,
    additional_headers: list[tuple[str, str]],
    no_compression: bool,
    **given: Any,
) -> Plan:
    if messages is not None and (seconds is not None or warm_up is not None):
        raise click.UsageError("--messages goes without --seconds and --warm-up")
    if messages is None:
        seconds = SECONDS if seconds is None else seconds
        warm_up = WARM_UP if warm_up is None else warm_up
    try:
        check_url(DialOptions(url=url))
        return Plan(
            url=url,
            seconds=seconds,
            messages=messages,
            warm_up=warm_up or 0.0,
            proxied=proxied,
            compressed=not no_compression,
            headers=Headers(additional_headers),
            **given,
        )
    except (InvalidURL, InvalidOption) as error:
        raise click.UsageError(str(error)) from None
