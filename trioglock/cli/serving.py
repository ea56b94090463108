"""Serving: one process of ``trioglock serve``, from its first socket to its last goodbye."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import trio

from ..errors import InvalidOption
from ..pubsub import Hub
from ..server import ServeOptions, Server, serve
from .live import Desk, Guard, is_wildcard
from .settings import ECHO, Settings
from .targets import load_target

__all__ = ["announce", "end_line", "serve_one"]


async def serve_one(settings: Settings) -> None:
    """Serve until SIGTERM, Ctrl-C, or the end of the process that started this one.

    Raises:
        TrioglockError, OSError: it cannot.
    """
    async with AsyncExitStack() as stack:
        # Nobody is there to start us anew, or it will: SIGHUP ends us as gently as the others.
        ends = {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)}
        signals = stack.enter_context(trio.open_signal_receiver(*ends))
        target = load_target(settings)
        options: ServeOptions = {
            "reuse_port": settings.is_worker,
            "shutdown_timeout": settings.drain,
        }
        desk: Desk | None = None
        if isinstance(target, Hub):
            await stack.enter_async_context(target)
            desk = _desk_of(target, settings)
            options["process_request"] = desk.process_request
            options["select_subprotocol"] = desk.select_subprotocol
            target = desk.socket
        elif settings.page:
            raise InvalidOption(f"--page is for a Hub, and {settings.target} is none")
        server = await stack.enter_async_context(
            serve(target, settings.host, settings.port, **options)
        )
        if desk is not None:
            desk.server = server
        nursery = await stack.enter_async_context(trio.open_nursery())
        if settings.ready_fd is not None:
            nursery.start_soon(_close_with_parent, server)
            os.write(settings.ready_fd, b"1")
            os.close(settings.ready_fd)
        else:
            assert server.port is not None
            announce(settings, server.port)
        nursery.start_soon(_close_on_signal, server, signals)
        await server.wait_closed()
        nursery.cancel_scope.cancel()


def _desk_of(hub: Hub, settings: Settings) -> Desk:
    # Only of a Hub of our own do we know that nobody listens elsewhere.
    counts = settings.target is None and settings.redis is None
    return Desk(hub, _guard_of(settings), worker=settings.is_worker, counts=counts)


def _guard_of(settings: Settings) -> Guard:
    return Guard(
        settings.host,
        token=settings.publish_token,
        page=settings.page,
        page_hosts=settings.page_hosts,
    )


def announce(settings: Settings, port: int) -> None:
    """Say where it serves, on standard output."""
    at_terminal = sys.stdout.isatty()
    if at_terminal and settings.target == ECHO:
        print(f"echo server at {_url('ws', settings.host, port)}")
    else:
        print(f"serving on {settings.host}:{port}", flush=True)
    if settings.target is None:
        _announce_page(settings, port)
    if at_terminal:
        print("Ctrl-C ends it", flush=True)


def end_line() -> None:
    """A terminal shows ``^C`` where it was typed: what follows has a line of its own."""
    if sys.stdout.isatty():
        print(flush=True)


def _announce_page(settings: Settings, port: int) -> None:
    if _guard_of(settings).has_page:
        print(f"live page: {_url('http', settings.host, port)}", flush=True)
    elif settings.page is None:
        print(f"no live page: {settings.host} is no loopback address, see --page", flush=True)


def _url(scheme: str, host: str, port: int) -> str:
    """What to open on this machine."""
    if is_wildcard(host):
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


async def _close_on_signal(server: Server, signals: Any) -> None:
    async for number in signals:
        if number == signal.SIGINT:
            end_line()
        server.close(1001, "going away")


async def _close_with_parent(server: Server) -> None:
    """A worker's standard input ends when the process that started it is gone."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    server.close(1001, "going away")
