"""``trioglock serve``: a hub, or a target of one's own, from a shell."""

from __future__ import annotations

import errno
import sys
from typing import Any

import click
import trio

from ..errors import InvalidOption, TrioglockError
from .options import seconds
from .serving import serve_one
from .settings import TOKEN_VARIABLE, Settings
from .targets import check_target
from .workers import Workers

__all__ = ["command"]

EPILOG = """
\b
Signals:
  SIGTERM, Ctrl-C  drain and end
  SIGHUP           start the worker processes anew, one after the other

\b
Exit codes:
  0  ended by a signal, in good order
  1  it cannot serve: the line on standard error says why
  2  the command line makes no sense

\b
Examples:
  trioglock serve
  trioglock serve --port 8020 --workers 4 --redis redis://localhost:6379
  trioglock serve myproject.live:hub --host 0.0.0.0
  trioglock serve echo
"""


@click.command("serve", short_help="Serve a hub or a target.", epilog=EPILOG)
@click.argument("target", required=False)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8020,
    show_default=True,
    metavar="N",
    help="0 for a free one.",
)
@click.option("--workers", type=int, default=1, show_default=True, metavar="N", help="Processes.")
@click.option("--redis", metavar="URL", help="Where hubs meet, such as redis://localhost:6379.")
@click.option(
    "--name",
    default="trioglock",
    show_default=True,
    metavar="NAME",
    help="Of the new Hub: those of one name meet in Redis. The default is that of sock-drawer.",
)
@click.option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="Messages that Redis keeps for the new Hub.",
)
@click.option(
    "--drain",
    default="30",
    show_default=True,
    metavar="SECONDS",
    callback=seconds(),
    help="Seconds that connections have to end at shutdown.",
)
@click.option(
    "--page/--no-page",
    default=None,
    help="Whether a hub shows its traffic on a page at /. By default it does on a loopback "
    "address; elsewhere everyone who can reach the port could see all of it.",
)
@click.option(
    "--page-host",
    "page_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers reach the page, such as that of a proxy; may be repeated.",
)
@click.option(
    "--publish-token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help=f"What 'trioglock publish' has to show. Better set {TOKEN_VARIABLE}, which other users "
    "cannot see. Without a token only a loopback address takes publications.",
)
@click.option("--ready-fd", type=int, hidden=True)
def command(**given: Any) -> int:
    """Serve a hub: a browser listens to the channel that its path names, and gets what is
    published there.

    Or serve TARGET, written module:name: a Hub, a Socket class, a function that makes one, or a
    handler; 'echo' sends back what it gets. The page at / of a hub shows what is published on any
    channel as it happens.
    """  # noqa: D205 - click makes a paragraph of the first lines
    try:
        settings = Settings(**given)
        check_target(settings)
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None
    try:
        if settings.workers > 1 and not settings.is_worker:
            return trio.run(Workers(settings).run)
        trio.run(serve_one, settings)
    except TrioglockError as error:
        print(f"trioglock serve: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"trioglock serve: {_no_socket(settings, error)}", file=sys.stderr)
        return 1
    return 0


def _no_socket(settings: Settings, error: OSError) -> str:
    """Why it cannot listen, and what helps."""
    words = error.strerror or str(error)
    hint = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
    return f"cannot listen on {settings.host}:{settings.port}: {words}{hint}"
