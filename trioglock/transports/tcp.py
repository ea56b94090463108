"""Open byte streams: TCP, TLS over any stream; every failure gets its own clear error."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .._redact import printable
from .._scope import leaves
from ..errors import ConnectFailed, TLSFailed

__all__ = ["closed_on_failure", "describe_peer", "open_tcp", "start_tls"]


@asynccontextmanager
async def closed_on_failure(stream: trio.abc.Stream) -> AsyncIterator[None]:
    """Close ``stream`` if the block fails or is cancelled: an attempt leaks no socket."""
    try:
        yield
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def open_tcp(host: str, port: int) -> trio.abc.Stream:
    """A TCP connection to the first address that answers (RFC 8305, as trio does it).

    Raises:
        ConnectFailed: none does.
    """
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {host}:{port}: {_words(error)}") from error


def _words(error: OSError) -> str:
    """What the system says; trio's own words, for one address or several, say less."""
    said = [
        os.strerror(one.errno)
        for one in leaves(error.__cause__)
        if isinstance(one, OSError) and one.errno
    ]
    return ", ".join(dict.fromkeys(said)) or str(error)


async def start_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext | None, hostname: str
) -> trio.abc.Stream:
    """Encrypt an open stream, with the handshake done.

    Raises:
        TLSFailed: the handshake failed; the stream is closed.
    """
    async with closed_on_failure(stream):
        try:
            encrypted = trio.SSLStream(
                stream,
                context or ssl.create_default_context(),
                server_hostname=hostname,
                https_compatible=True,
            )
            await encrypted.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError, OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
            raise TLSFailed(f"TLS handshake with {hostname}: {cause or error}") from cause
        return encrypted


def describe_peer(stream: trio.abc.Stream) -> str:
    """The address of the other end, such as ``"127.0.0.1:80"``; "" where it has none.

    Args:
        stream: of any kind.
    """
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return ""
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"
    # The path of a Unix socket, which is the peer's to choose.
    return printable(name) if isinstance(name, str) else ""
