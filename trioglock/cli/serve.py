"""``trioglock serve``: serve a hub, channels, or your own target, from a shell."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import socket
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import click
import trio

from .._scope import open_scope
from ..channels import Channel, Channels
from ..channels.handshake import ChannelsTarget
from ..errors import InvalidOption, TrioglockError
from ..hooks import Socket
from ..pubsub import Hub, MemoryBroker, RedisBroker
from ..pubsub.socket import HubTarget
from ..server import ServeOptions, Server, serve
from .echo import Echo
from .live import AccessRules, Endpoints, check_token, is_wildcard
from .options import load_certificate, seconds
from .plain_requests import PlainRequests, check_health_path
from .reload import SourceWatcher, restart
from .static_files import MAX_FILE_SIZE, StaticFiles
from .streams import print_line, print_log
from .workers import READY, SIGNALS, end_line, run_workers

__all__ = ["Settings", "command", "describe_server", "load_target", "open_server"]

TOKEN_VARIABLE = "TRIOGLOCK_PUBLISH_TOKEN"  # noqa: S105 - the name of a variable

RELOAD_TIMEOUT = 1
"""Maximum number of seconds for connections to finish with ``--reload``, because the user waits."""

DEFAULT_NAME = "trioglock"
"""The name of the new Hub."""

KINDS = (
    "a Hub, a Channels, a Socket class, a function that returns a Socket, an async handler, or a "
    "mapping of paths to targets"
)

LISTENING_ERRORS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}

EPILOG = """
\b
Signals:
  SIGTERM, Ctrl-C  stop accepting connections, drain, and exit
  SIGHUP           replace the worker processes one by one

\b
Exit codes:
  0  stopped by a signal
  1  could not serve; the reason is printed to stderr
  2  invalid arguments

\b
Examples:
  trioglock serve
  trioglock serve --port 8020 --workers 4 --redis redis://localhost:6379
  trioglock serve myproject.live:hub --host 0.0.0.0
  trioglock serve myproject.live:channels --workers 4
  trioglock serve myproject.live:hub --static public --reload
  trioglock serve echo
"""

SHARDED_PAGE = "the page shows all channels, but a sharded hub has no patterns: leave out --page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of the command.

    Raises:
        InvalidOption: they cannot be combined.
    """

    target: str | None = None
    host: str = "127.0.0.1"
    port: int = 8020
    workers: int = 1
    redis: str | None = field(default=None, repr=False)
    name: str | None = None
    history: int | None = None
    sharded: bool = False
    drain: float = 0
    shutdown_timeout: float = 30
    page: bool | None = None
    page_hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    publish_token: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    static: str | None = None
    health: str | None = None
    log_level: str | None = None
    reload: bool = False
    ready_fd: int | None = None
    """The file descriptor to which a worker writes once it is serving; None in
    other processes."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidOption(f"--workers must be at least 1, not {self.workers}")
        given = (self.redis, self.history, self.name)
        if self.target is not None and (self.sharded or any(one is not None for one in given)):
            raise InvalidOption(
                "--redis, --history, --sharded and --name configure a new Hub: pass them to your "
                "target instead"
            )
        if self.workers > 1 and self.target is None and self.redis is None:
            raise InvalidOption("a Hub in several workers requires --redis to connect them")
        if self.history and self.redis is None:
            raise InvalidOption("--history requires --redis")
        if self.sharded and self.redis is None:
            raise InvalidOption("--sharded requires --redis with a Redis Cluster")
        if self.sharded and self.page:
            raise InvalidOption(SHARDED_PAGE)
        if self.target is None:
            self.make_hub()
        elif self.target != "echo" and not all(self.target.partition(":")):
            raise InvalidOption(f"TARGET must be echo or module:name, not {self.target}")
        check_token(self.publish_token)
        _ = self.access_rules  # checks the other options
        self._check_http()
        if self.workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
            raise InvalidOption("--workers requires a system with SO_REUSEPORT, such as Linux")

    def _check_http(self) -> None:
        if self.page and self.static is not None:
            raise InvalidOption("--static serves its own page at /: leave out --page")
        if self.health is not None:
            check_health_path(self.health)
            if self.health == "/" and (self.access_rules.has_page or self.static is not None):
                raise InvalidOption(
                    "--health / would replace the page: choose another path, such as /health"
                )
        if self.tls_key is not None and self.tls_cert is None:
            raise InvalidOption("--tls-key requires --tls-cert")
        if self.reload:
            self._check_reload()
        if self.is_worker:
            return  # open_server() reports files that cannot be used
        self.make_ssl_context()
        self.make_static_files()
        key, root = self.tls_key or self.tls_cert, self.static
        if key and root and Path(key).resolve().is_relative_to(Path(root).resolve()):
            raise InvalidOption(f"--static would serve the private key in {key}: move it elsewhere")

    def _check_reload(self) -> None:
        if self.workers > 1:
            raise InvalidOption(
                "--reload serves in one process: leave out --workers, or use SIGHUP to replace them"
            )
        if self.target in (None, "echo"):
            raise InvalidOption("--reload requires a TARGET in your own module: module:name")
        if os.name != "posix":
            raise InvalidOption("--reload requires a POSIX system")

    @property
    def is_worker(self) -> bool:
        return self.ready_fd is not None

    @property
    def access_rules(self) -> AccessRules:
        return AccessRules(
            self.host,
            token=self.publish_token,
            page=self.page if self.static is None else False,
            page_hosts=self.page_hosts,
            origins=self.origins,
        )

    def make_ssl_context(self) -> ssl.SSLContext | None:
        return None if self.tls_cert is None else load_certificate(self.tls_cert, self.tls_key)

    def make_static_files(self) -> StaticFiles | None:
        return None if self.static is None else StaticFiles(self.static)

    def make_hub(self) -> Hub:
        name = DEFAULT_NAME if self.name is None else self.name
        if self.redis is None:
            return Hub(name)
        return Hub(name, RedisBroker(self.redis, history=self.history, sharded=self.sharded))


@click.command("serve", short_help="Serve a hub, channels or a target.", epilog=EPILOG)
@click.argument("target", required=False)
@click.option("--host", default="127.0.0.1", metavar="HOST", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8020,
    metavar="N",
    help="Port to listen on; 0 for a free one.",
)
@click.option("--workers", type=int, default=1, metavar="N", help="Number of processes.")
@click.option(
    "--redis",
    metavar="URL",
    help="Redis server that connects hubs, such as redis://localhost:6379.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the new Hub. Hubs with the same name are connected through Redis.  "
    f"[default: {DEFAULT_NAME}]",
)
@click.option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="Number of messages that Redis keeps for each channel of the new Hub.",
)
@click.option(
    "--sharded",
    is_flag=True,
    help="Spread the channels of the new Hub over the nodes of a Redis Cluster. There is no page.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Allow pages from this origin, such as https://example.org, to connect; '*' allows all "
    "pages. Can be repeated. By default, a server on a loopback address allows only pages from "
    "this machine, and a server on any other address allows all pages.",
)
@seconds(
    "--drain",
    zero=True,
    default="0",
    help="At shutdown, close connections one by one over this time, so that clients do not all "
    "reconnect at once. By default, all connections are closed at once.",
)
@seconds(
    "--shutdown-timeout",
    default="30",
    help="Time that handlers have to finish at shutdown, after the last connection is closed.",
)
@click.option(
    "--page/--no-page",
    default=None,
    help="Show the traffic of a hub on a page at /. By default, the page is served only on a "
    "loopback address, because anyone who can reach the port can see all messages.",
)
@click.option(
    "--page-host",
    "page_hosts",
    multiple=True,
    metavar="NAME",
    help="Additional host name of the page, such as that of a proxy. Can be repeated.",
)
@click.option(
    "--publish-token",
    metavar="TOKEN",
    envvar=TOKEN_VARIABLE,
    help="Token that 'trioglock publish' must send. Without a token, publishing is possible on "
    f"a loopback address only. Prefer {TOKEN_VARIABLE}: other users can see the command line.",
)
@click.option(
    "--tls-cert",
    metavar="FILE",
    help="Serve https:// and wss:// with the certificate and its chain in FILE (PEM).",
)
@click.option(
    "--tls-key",
    metavar="FILE",
    help="File with the private key (PEM). By default, the key is in the file of --tls-cert.",
)
@click.option(
    "--static",
    metavar="DIR",
    help="Answer plain HTTP requests with the files in DIR, of up to "
    f"{MAX_FILE_SIZE // 2**20} MiB each. They replace the page of a hub. A request for a directory "
    "returns its index.html. Hidden files are not served.",
)
@click.option(
    "--health",
    metavar="PATH",
    help="Answer plain HTTP requests for PATH with 200, or with 503 while the server is shutting "
    "down or a hub cannot reach its broker.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    metavar="LEVEL",
    help="Print log messages of trioglock at this level and above: debug, info, warning, error or "
    "critical. If TARGET configures logging, its handlers receive the messages instead.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Restart whenever a .py file of the project changes. For development only.",
)
@click.option("--worker", is_flag=True, hidden=True)
def command(*, worker: bool, **options: Any) -> int:
    """Serve a hub, a server for Phoenix Channels, or your own target.

    TARGET is the module:name of a Hub, a Channels, a Socket class, a function that returns a
    Socket, an async handler, or a mapping of paths to targets. The command opens the hubs of its
    targets. 'echo' is an echo server.

    Without TARGET, the command serves a new Hub. Browsers subscribe to the channel in the path of
    their URL. A hub has a page at / that shows the messages of all channels live.
    """
    try:
        if worker:  # started by run_workers(), which writes the settings to standard input
            line = sys.stdin.buffer.readline()
            if not line:
                return 1
            options = json.loads(line)
        settings = Settings(**options)
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None
    report = StartReport(settings)
    level = settings.log_level
    watcher = SourceWatcher() if settings.reload else None
    try:
        if settings.workers > 1 and not settings.is_worker:
            return trio.run(run_workers, settings)
        # No signals are handled yet, so that Ctrl-C and SIGTERM can end a slow import.
        target = load_target(settings)
        with nullcontext() if level is None else print_log("trioglock", level):
            trio.run(_serve_until_signal, settings, target, report, watcher)
    except TrioglockError as error:
        report.failed(str(error))
        if watcher is None:
            return 1
        watcher.add_error(error)
        trio.run(_wait_changed, watcher)
    except OSError as error:
        report.failed(_describe_listening_error(error, settings))
        return 1
    if watcher is not None and watcher.changed is not None:
        print_line(f"{watcher.changed} has changed")
        restart()
    return 0


class StartReport:
    """Reports once whether the server could start: to the parent of a worker, or to the user."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parent: FileIO | None = None
        if settings.ready_fd is not None:
            self._parent = FileIO(settings.ready_fd, "w")

    def serving(self, text: str) -> None:
        """Report that the server is listening; the text is for the user."""
        if self._parent is None:
            print_line(text)
        else:
            self._write_to_parent(READY + text.encode(errors="replace"))

    def failed(self, reason: str) -> None:
        """Report why the server has ended."""
        if self._parent is None or self._parent.closed:
            print_line(f"trioglock serve: {reason}", sys.stderr)
        else:
            self._write_to_parent(reason.encode(errors="replace"))

    def _write_to_parent(self, text: bytes) -> None:
        assert self._parent is not None
        with self._parent, suppress(OSError):  # the parent may be gone
            self._parent.write(text)


def _describe_listening_error(error: OSError, settings: Settings) -> str:
    """Describe why the server cannot listen; raise other errors, such as those of the target."""
    reason = error.strerror or str(error)
    if not reason.startswith("cannot listen"):
        if not (isinstance(error, socket.gaierror) or error.errno in LISTENING_ERRORS):
            raise error
        reason = f"cannot listen on {settings.host}:{settings.port}: {reason}"
    hint = "; --port 0 selects a free port" if error.errno == errno.EADDRINUSE else ""
    return reason + hint


def load_target(settings: Settings) -> Any:
    """Return a new Hub, or import the target of these settings.

    Raises:
        InvalidOption: the target cannot be imported.
    """
    if settings.target is None:
        return settings.make_hub()
    target = _import_target(settings.target)
    if isinstance(target, Channels):
        return target.socket
    if isinstance(target, HubTarget) and target.has_default_socket:
        return target.hub
    if not callable(target) and not isinstance(target, Hub | HubTarget | ChannelsTarget | Mapping):
        raise InvalidOption(f"{settings.target} must be {KINDS}, not {target!r}")
    if isinstance(target, type) and not issubclass(target, Socket):
        hint = ": serve a Channels with a route to it" if issubclass(target, Channel) else ""
        raise InvalidOption(
            f"{settings.target} must be {KINDS}, not the class {target.__name__}{hint}"
        )
    return target


@asynccontextmanager
async def open_server(settings: Settings, target: Any) -> AsyncIterator[Server]:
    """Serve a target.

    Raises:
        InvalidOption: the target has no page, or cannot be served by several workers.
        OSError: the server cannot listen.
    """
    rules, timeout = settings.access_rules, settings.shutdown_timeout
    options = ServeOptions(
        reuse_port=settings.is_worker,
        drain=settings.drain,
        shutdown_timeout=min(timeout, RELOAD_TIMEOUT) if settings.reload else timeout,
        ssl_context=settings.make_ssl_context(),
    )
    targets = target.values() if isinstance(target, Mapping) else [target]
    owners = [one.hub if isinstance(one, ChannelsTarget | HubTarget) else one for one in targets]
    hubs = dict.fromkeys([owner for owner in owners if isinstance(owner, Hub)])
    if not isinstance(target, Hub) and settings.page:
        raise InvalidOption(f"--page requires a Hub, and {settings.target} is not a Hub")
    if isinstance(target, Hub) and target.broker.sharded:
        if settings.page:
            raise InvalidOption(SHARDED_PAGE)
        rules.has_page = False
    if settings.is_worker and any(isinstance(hub.broker, MemoryBroker) for hub in hubs):
        raise InvalidOption(
            f"{settings.target} connects only the clients of one process: give its Hub a broker, "
            "such as Hub(broker=RedisBroker(url)), or use --workers 1"
        )
    async with AsyncExitStack() as stack:
        for hub in hubs:
            await stack.enter_async_context(hub)
        endpoints = None
        if isinstance(target, Hub):
            # A user's Hub may have subscribers in other processes.
            counts = settings.target is None and settings.redis is None
            endpoints = Endpoints(target, rules, is_worker=settings.is_worker, counts=counts)
        plain = PlainRequests(
            settings.health,
            settings.make_static_files(),
            hubs,
            rules.refuse_client if endpoints is None else endpoints.process_request,
        )
        options["process_request"] = plain.process_request
        async with serve(endpoints or target, settings.host, settings.port, **options) as server:
            plain.server = server
            if endpoints is not None:
                endpoints.server = server
            yield server


def _import_target(target: str) -> Any:
    if target == "echo":
        return Echo
    module, _, name = target.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path contains str
    try:
        return attrgetter(name)(importlib.import_module(module))
    except ImportError as error:
        raise InvalidOption(f"cannot import {target}: {error}") from error
    except SyntaxError as error:
        problem = f"{error.msg} ({error.filename}, line {error.lineno})"
        raise InvalidOption(f"cannot import {target}: {problem}") from error
    except Exception as error:
        *others, last = traceback.extract_tb(error.__traceback__)
        if isinstance(error, AttributeError) and not others:
            raise InvalidOption(f"{module} has no attribute {name}") from None
        problem = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        raise InvalidOption(f"cannot import {target}: {problem}") from error


async def _serve_until_signal(
    settings: Settings, target: Any, report: StartReport, watcher: SourceWatcher | None
) -> None:
    """Serve until a signal arrives, a file changes, or the parent of this worker ends."""
    server: Server | None = None

    def close(hurry: bool = False) -> None:
        if server is None:
            opening.cancel()  # the broker may be unreachable
        elif hurry or not server.closing:
            server.close()

    with trio.open_signal_receiver(*SIGNALS) as signals, trio.CancelScope() as opening:
        async with open_scope() as tasks:
            tasks.start_soon(_close_on_signal, close, signals)
            if settings.is_worker:
                tasks.start_soon(_close_with_parent, close)
            if watcher is not None:
                tasks.start_soon(_close_on_change, close, watcher)
            async with open_server(settings, target) as server:
                assert server.port is not None
                report.serving("\n".join(describe_server(settings, target, server.port)))
                await server.wait_closed()


async def _close_on_signal(close: Callable[[bool], object], signals: AsyncIterator[int]) -> None:
    interrupted = False
    async for number in signals:
        if number == signal.SIGINT:
            end_line()
        # A worker receives a single Ctrl-C twice: as SIGINT, and as SIGTERM from its parent.
        close(interrupted and number == signal.SIGINT)
        interrupted = interrupted or number == signal.SIGINT


async def _close_on_change(close: Callable[[], None], watcher: SourceWatcher) -> None:
    await watcher.wait_changed()
    close()


async def _wait_changed(watcher: SourceWatcher) -> None:
    """Wait until a file changes or a signal arrives."""
    with trio.open_signal_receiver(*SIGNALS) as signals:
        print_line("waiting for a change", sys.stderr)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_close_on_signal, lambda _: nursery.cancel_scope.cancel(), signals)
            await watcher.wait_changed()
            nursery.cancel_scope.cancel()


async def _close_with_parent(close: Callable[[], None]) -> None:
    """Close when standard input ends, as it does when the parent process has ended."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:  # type: ignore[attr-defined, unused-ignore]
        while await stdin.receive_some():
            pass
    close()


def describe_server(settings: Settings, target: Any, port: int) -> Iterator[str]:
    """Return the lines for the user once a server is listening on this port."""
    host = "127.0.0.1" if is_wildcard(settings.host) else settings.host
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    secure = "" if settings.tls_cert is None else "s"
    is_terminal = sys.stdout.isatty()
    if is_terminal and settings.target == "echo":
        yield f"echo server at ws{secure}://{address}/"
    else:
        yield f"serving on {settings.host}:{port}"
    if isinstance(target, ChannelsTarget):
        yield f"Phoenix clients: ws{secure}://{address}/socket/websocket"
    if settings.static is not None:
        yield f"files: http{secure}://{address}/"
    elif isinstance(target, Hub) and target.broker.sharded:
        yield "no live page: no client receives all channels of a sharded hub"
    elif isinstance(target, Hub) and settings.access_rules.has_page:
        yield f"live page: http{secure}://{address}/"
    elif isinstance(target, Hub) and settings.page is None:
        yield f"no live page: {settings.host} is not a loopback address; see --page"
    if is_terminal:
        yield "Press Ctrl-C to stop."
