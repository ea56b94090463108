"""The place: where a server listens, from the options that say so."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import trio

from ..errors import InvalidOption
from ..options import check_whole
from ..transports import open_tcp, open_unix

__all__ = ["OpenListeners", "choose_place"]

OpenListeners: TypeAlias = Callable[[], Awaitable[Sequence[trio.abc.Listener[Any]]]]
"""Begins to listen."""


def choose_place(
    host: str | None,
    port: int | None,
    unix_path: str | os.PathLike[str] | None,
    listeners: Sequence[trio.abc.Listener[Any]] | None,
    *,
    backlog: int | None,
    reuse_port: bool,
) -> OpenListeners:
    """What opens the listeners.

    Raises:
        InvalidOption: not exactly one place is named, or an option does not go with it.
    """
    check_whole("backlog", backlog, least=1)
    given = [name for name, value in _named(port, unix_path, listeners) if value is not None]
    if len(given) != 1:
        raise InvalidOption(
            "say where to listen: serve(target, host, port), or unix_path=..., or listeners=...; "
            f"given: {', '.join(given) or 'no port, no unix_path and no listeners'}"
        )
    if port is None and (host is not None or reuse_port):
        raise InvalidOption("host and reuse_port go with a port")
    if listeners is not None and backlog is not None:
        raise InvalidOption("backlog is of no use with listeners: they listen already")
    if listeners is not None:
        return partial(_as_given, _check_listeners(listeners))
    if unix_path is not None:
        if not isinstance(unix_path, str | os.PathLike):
            raise InvalidOption(f"unix_path is a path, not {unix_path!r}")
        return partial(_unix, unix_path, backlog)
    if not (host is None or isinstance(host, str)):
        raise InvalidOption(f"host is a str or None, not {host!r}")
    assert port is not None
    check_whole("port", port, least=0, none=False)
    if port > 65535:
        raise InvalidOption(f"port is at most 65535, not {port}")
    return partial(open_tcp, host, port, backlog=backlog, reuse_port=reuse_port)


def _named(*values: object) -> list[tuple[str, object]]:
    return list(zip(("port", "unix_path", "listeners"), values, strict=True))


def _check_listeners(
    listeners: Sequence[trio.abc.Listener[Any]],
) -> Sequence[trio.abc.Listener[Any]]:
    try:
        checked = tuple(listeners)
    except TypeError:
        raise InvalidOption(f"listeners is a list of listeners, not {listeners!r}") from None
    for listener in checked:
        if not isinstance(listener, trio.abc.Listener):
            raise InvalidOption(f"a listener is a trio.abc.Listener, not {listener!r}")
    if not checked:
        raise InvalidOption("listeners has no listener")
    return checked


async def _as_given(
    listeners: Sequence[trio.abc.Listener[Any]],
) -> Sequence[trio.abc.Listener[Any]]:
    # No checkpoint: they are ours to close from here on, also when we are being cancelled.
    return listeners


async def _unix(
    path: str | os.PathLike[str], backlog: int | None
) -> Sequence[trio.abc.Listener[Any]]:
    return [await open_unix(path, backlog=backlog)]
