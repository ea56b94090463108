"""``trioglock serve``: a hub, or a target of one's own, from a shell."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import click
import trio

from ..errors import InvalidOption, TrioglockError
from ..pubsub import Hub, RedisBroker
from ..server import Server, serve
from .workers import Workers

__all__ = ["add_serve", "run_serve"]


def add_serve(commands: Any) -> None:
    """Describe the command to argparse."""
    command = commands.add_parser(
        "serve",
        help="serve a hub, or a target of your own, with one process or several",
        description="Serve a hub: a browser listens to the channel that its path names, and gets "
        "what is published there. Or serve a target of your own. SIGTERM drains and ends, SIGHUP "
        "starts the worker processes anew, one after the other.",
    )
    command.add_argument(
        "target",
        nargs="?",
        help="module:name of a Hub, a Socket class, a function that makes one, or a handler; "
        "by default a new Hub",
    )
    command.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    command.add_argument("--port", type=int, default=8020, help="default: 8020; 0 for a free one")
    command.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    command.add_argument("--redis", help="where hubs meet, such as redis://localhost:6379")
    command.add_argument("--name", default="sock-hook", help="of the new Hub")
    command.add_argument("--history", type=int, help="messages that Redis keeps for the new Hub")
    command.add_argument(
        "--drain",
        type=float,
        default=30,
        help="seconds that connections have to end at shutdown (default: 30)",
    )
    command.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)


def run_serve(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run the command.

    Args:
        options: what argparse made of the arguments.
        arguments: as given, for the worker processes.

    Returns:
        The exit code: 0 after SIGTERM or Ctrl-C, 1 for failure.
    """
    try:
        _check(options)
        if options.workers > 1 and options.ready_fd is None:
            return trio.run(Workers(options, arguments).run)
        trio.run(_serve, options)
    except (TrioglockError, OSError) as error:
        print(f"trioglock serve: {error}", file=sys.stderr)
        return 1
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.workers < 1:
        raise InvalidOption(f"--workers is at least 1, not {options.workers}")
    if options.workers > 1 and not options.redis and options.target is None:
        raise InvalidOption("a Hub with several workers needs --redis: they meet there")
    if options.target is not None and (options.redis or options.history):
        raise InvalidOption("--redis and --history are for the new Hub: give them to your target")
    if options.history and not options.redis:
        raise InvalidOption("--history needs --redis")


async def _serve(options: argparse.Namespace) -> None:
    """One process: serve until SIGTERM, Ctrl-C, or the end of the process that started it."""
    is_worker = options.ready_fd is not None
    async with AsyncExitStack() as stack:
        # Nobody is there to start us anew, or it will: SIGHUP ends us as gently as the others.
        ends = {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)}
        signals = stack.enter_context(trio.open_signal_receiver(*ends))
        target = _load(options)
        if isinstance(target, Hub):
            await stack.enter_async_context(target)
            target = target.socket
        server = await stack.enter_async_context(
            serve(
                target,
                options.host,
                options.port,
                reuse_port=is_worker,
                shutdown_timeout=options.drain,
            )
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        if is_worker:
            nursery.start_soon(_close_with_parent, server)
            os.write(options.ready_fd, b"1")
            os.close(options.ready_fd)
        else:
            print(f"serving on {options.host}:{server.port}", flush=True)
        nursery.start_soon(_close_on_signal, server, signals)
        await server.wait_closed()
        nursery.cancel_scope.cancel()


async def _close_on_signal(server: Server, signals: Any) -> None:
    async for _ in signals:
        server.close(1001, "going away")


async def _close_with_parent(server: Server) -> None:
    """A worker's standard input ends when the process that started it is gone."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    server.close(1001, "going away")


def _load(options: argparse.Namespace) -> Any:
    """The target that the arguments name.

    Raises:
        InvalidOption: there is none.
    """
    if options.target is None:
        broker = RedisBroker(options.redis, history=options.history) if options.redis else None
        return Hub(options.name, broker)
    module, _, name = options.target.partition(":")
    if not module or not name:
        raise InvalidOption(f"a target is written module:name, not {options.target}")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a str, as the others in there
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InvalidOption(f"{options.target} cannot be imported: {error}") from error
    except AttributeError:
        raise InvalidOption(f"{module} has no {name}") from None


@click.command(
    "serve",
    context_settings={"ignore_unknown_options": True},
    short_help="Serve a hub or a target.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> int:
    """Serve a hub, or a target of your own."""
    parser = argparse.ArgumentParser(prog="trioglock")
    add_serve(parser.add_subparsers(dest="command", required=True))
    arguments = ["serve", *words]
    return run_serve(parser.parse_args(arguments), arguments)
