"""The addresses that a server listens on, from its options."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import trio

from ..errors import InvalidOption
from ..options import check_whole
from ..transports import open_tcp, open_unix
from ..transports.listeners import is_closed

__all__ = ["BindOptions", "OpenListeners", "plan_listeners"]

OpenListeners: TypeAlias = Callable[[], Awaitable[Sequence[trio.abc.Listener[Any]]]]
"""Starts listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions:
    """Where a server listens: keyword arguments of :func:`trioglock.serve`."""

    unix_path: str | os.PathLike[str] | None = None
    listeners: Sequence[trio.abc.Listener[Any]] | None = None
    backlog: int | None = None
    reuse_port: bool = False


def plan_listeners(host: str | None, port: int | None, options: BindOptions) -> OpenListeners:
    """Return a function that opens the listeners.

    Raises:
        InvalidOption: not exactly one address is given, or an option does not apply to it.
    """
    unix_path, listeners = options.unix_path, options.listeners
    check_whole("backlog", options.backlog, least=1)
    places = {"port": port, "unix_path": unix_path, "listeners": listeners}
    given = [name for name, value in places.items() if value is not None]
    if len(given) != 1:
        raise InvalidOption(
            "exactly one of port, unix_path and listeners must be given, not "
            f"{' and '.join(given) or 'none'}: serve(target, host, port), "
            "serve(target, unix_path=...) or serve(target, listeners=...)"
        )
    if port is None and (host is not None or options.reuse_port):
        raise InvalidOption("host and reuse_port require a port")
    if listeners is not None:
        if options.backlog is not None:
            raise InvalidOption("backlog does not apply to listeners: they are already listening")
        checked = _check_listeners(listeners)

        async def open_given() -> Sequence[trio.abc.Listener[Any]]:
            # No checkpoint: the server must close the listeners even if it is cancelled.
            return checked

        return open_given
    if unix_path is not None:
        if not isinstance(unix_path, str | os.PathLike):
            raise InvalidOption(f"unix_path must be a path, not {unix_path!r}")
        path = unix_path

        async def open_path() -> Sequence[trio.abc.Listener[Any]]:
            return [await open_unix(path, backlog=options.backlog)]

        return open_path
    if not (host is None or isinstance(host, str)):
        raise InvalidOption(f"host must be a str or None, not {host!r}")
    assert port is not None
    check_whole("port", port, least=0, none=False)
    if port > 65535:
        raise InvalidOption(f"port must be at most 65535, not {port}")
    return partial(
        open_tcp, host, int(port), backlog=options.backlog, reuse_port=options.reuse_port
    )


def _check_listeners(
    listeners: Sequence[trio.abc.Listener[Any]],
) -> Sequence[trio.abc.Listener[Any]]:
    if not isinstance(listeners, Iterable):
        raise InvalidOption(f"listeners must be a list of listeners, not {listeners!r}")
    checked = tuple(listeners)
    for listener in checked:
        if not isinstance(listener, trio.abc.Listener):
            raise InvalidOption(f"a listener must be a trio.abc.Listener, not {listener!r}")
        if is_closed(listener):
            raise InvalidOption(
                f"{type(listener).__name__} is closed: a server closes its listeners when it ends, "
                "so pass a new one to each serve()"
            )
    if not checked:
        raise InvalidOption("listeners must not be empty")
    return checked
