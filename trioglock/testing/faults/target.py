"""The target: the server behind the proxy, however it is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import urlsplit

import trio

from ...errors import InvalidOption
from ...transports.urls import parse_url
from ..server import MockServer

__all__ = ["MEMORY_URL", "Opener", "Target", "address_of", "opener_of", "url_through"]

Opener: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to the server."""

Target: TypeAlias = MockServer | str | tuple[str, int] | Opener
"""A mock server, a WebSocket URL, a host and a port, or a function that opens a stream."""

MEMORY_URL = "ws://memory.test/"


def address_of(target: Target) -> str:
    """The URL under which the target is known.

    Raises:
        InvalidOption, InvalidURL: it is nothing that can be connected to.
    """
    match target:
        case MockServer():
            return target.url
        case str():
            parse_url(target)
            return target
        case (str() as host, int() as port) if host and 0 < port < 2**16:
            return f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"
        case _ if callable(target):
            return MEMORY_URL
    raise InvalidOption(
        "target is a MockServer, a ws:// or wss:// URL, a (host, port), or a function that opens "
        f"a stream, not {target!r}"
    )


def opener_of(target: Target) -> Opener:
    """A function that opens a stream to the target; an OSError of it means that there is none."""
    if isinstance(target, MockServer) and target.url == MEMORY_URL:
        return target.open_stream
    if callable(target):
        return target
    uri = parse_url(address_of(target))

    async def open_tcp() -> trio.abc.Stream:
        return await trio.open_tcp_stream(uri.host, uri.port)

    return open_tcp


def url_through(url: str, port: int) -> str:
    """The same URL by way of a port of this machine."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
