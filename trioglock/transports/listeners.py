"""Listeners for servers: TCP, Unix sockets and memory; and the addresses of sockets."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import trio

from .._redact import printable
from ..errors import InvalidOption
from .native.tls_io import TLSSocketIO

__all__ = [
    "MemoryListener",
    "UnixListener",
    "accept_ready",
    "address_of",
    "describe_peer",
    "format_address",
    "format_peer",
    "open_tcp",
    "open_unix",
    "peer_name",
    "port_of",
]

# The system reduces this to its own maximum. Waiting connections are cheap; excess connections are
# refused.
MAX_BACKLOG = 2**16 - 1


async def open_tcp(
    host: str | None, port: int, *, backlog: int | None = None, reuse_port: bool = False
) -> list[trio.SocketListener]:
    """Listen on every address of ``host``, all on the same port.

    Args:
        host: an address, a name, or None for every interface.
        port: 0 chooses a free port.
        backlog: maximum number of connections waiting to be accepted; None for the system's
            maximum.
        reuse_port: let other processes listen on the same port; the system distributes the
            clients among them.

    Raises:
        OSError: the port is in use, or the address does not exist.
    """
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[trio.SocketListener] = []
    unsupported: OSError | None = None
    with ExitStack() as on_failure:
        for family, kind, protocol, _, address in found:
            try:
                bound = on_failure.enter_context(socket.socket(family, kind, protocol))
            except OSError as error:  # a system without IPv6 may still resolve IPv6 addresses
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                unsupported = error
                continue
            _prepare(bound, reuse_port=reuse_port)
            chosen = port or port_of(listeners) or 0
            _bind(bound, (address[0], chosen, *address[2:]))
            listeners.append(_listen(bound, backlog))
        if not listeners and unsupported is not None:
            raise unsupported
        on_failure.pop_all()
    return listeners


def _bind(bound: socket.socket, address: tuple[Any, ...]) -> None:
    try:
        bound.bind(address)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{address[0]}:{address[1]}"
        text = f"cannot listen on {where}: {error.strerror}"
        raise OSError(error.errno, text) from None


def _prepare(bound: socket.socket, *, reuse_port: bool) -> None:
    if sys.platform != "win32":
        # Without this option, a restarted server could not listen again for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise InvalidOption("reuse_port is not supported by this system")
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a Unix socket. Closing the listener removes the socket file.

    Args:
        listener: the listener of the socket.
        path: the path of its file.
    """

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self.path: Path = path
        self.listener = listener
        self._inode = path.stat().st_ino

    async def accept(self) -> trio.SocketStream:
        """Wait for the next connection."""
        return await self.listener.accept()

    async def aclose(self) -> None:
        """Stop listening and remove the file, unless another file has replaced it."""
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        await self.listener.aclose()


async def open_unix(path: str | os.PathLike[str], *, backlog: int | None = None) -> UnixListener:
    """Listen on a Unix socket; a stale socket file is replaced.

    Args:
        path: the path of the socket.
        backlog: maximum number of connections waiting to be accepted; None for the system's
            maximum.

    Raises:
        OSError: the path is another kind of file, or a running server listens there.
        InvalidOption: the system does not support Unix sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidOption("Unix sockets are not supported by this system")
    await trio.lowlevel.checkpoint()
    socket_path = Path(path)
    _remove_stale(socket_path)
    with ExitStack() as on_failure:
        bound = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        bound.bind(os.fspath(socket_path))
        listener = UnixListener(_listen(bound, backlog), socket_path)
        on_failure.pop_all()
        return listener


def _remove_stale(path: Path) -> None:
    assert hasattr(socket, "AF_UNIX")
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return  # bind() raises the error
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        if client.connect_ex(os.fspath(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)


def _listen(bound: socket.socket, backlog: int | None) -> trio.SocketListener:
    bound.listen(MAX_BACKLOG if backlog is None else backlog)
    bound.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Listens within this process, for tests of servers under trio's ``MockClock``.

    Clients connect with ``connect("ws://memory.test/", stream=listener.open_stream)``. A server
    closes its listeners when it ends, so each :func:`~trioglock.serve` needs a new one.
    """

    def __init__(self) -> None:
        self._opened, self._accepted = trio.open_memory_channel[trio.abc.Stream](math.inf)
        self._closed = False

    async def open_stream(self) -> trio.abc.Stream:
        """Open a stream, for ``connect(..., stream=listener.open_stream)``.

        Raises:
            ConnectionRefusedError: the listener is closed.
        """
        await trio.lowlevel.checkpoint()
        from trio.testing import memory_stream_pair  # noqa: PLC0415 - it imports pytest

        near, far = memory_stream_pair()
        try:
            self._opened.send_nowait(far)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the listener is closed") from None
        return near

    async def accept(self) -> trio.abc.Stream:
        """Wait for the server's end of the next stream."""
        return await self._accepted.receive()

    async def aclose(self) -> None:
        """Stop listening and close the streams waiting to be accepted, even when cancelled."""
        self._closed = True
        with (
            trio.CancelScope(shield=True),
            suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError),
        ):
            while True:
                await trio.aclose_forcefully(self._accepted.receive_nowait())
        self._accepted.close()
        await trio.lowlevel.checkpoint()


def is_closed(listener: trio.abc.Listener[Any]) -> bool:
    """Whether a listener is known to be closed.

    Args:
        listener: any listener; unknown kinds count as open.
    """
    if isinstance(listener, UnixListener):
        listener = listener.listener
    if isinstance(listener, trio.SocketListener):
        return listener.socket.fileno() == -1
    return isinstance(listener, MemoryListener) and listener._closed  # noqa: SLF001


async def accept_ready(
    listener: trio.abc.Listener[trio.abc.Stream], most: int
) -> list[trio.abc.Stream]:
    """Wait for clients; return the streams of those that have connected.

    Args:
        listener: any listener; for sockets, all waiting clients are accepted together.
        most: maximum number of streams.

    Raises:
        OSError, trio.ClosedResourceError: raised by the listener.
    """
    streams = [await listener.accept()]
    if isinstance(listener, UnixListener):
        listener = listener.listener
    if most > 1 and listener.__class__ is trio.SocketListener:
        _accept_more(listener.socket, streams, most)
    return streams


def _accept_more(
    listening: trio.socket.SocketType, streams: list[trio.abc.Stream], most: int
) -> None:
    """Accept without a scheduling point for each client."""
    # Another object for the same descriptor, because trio's object has no nonblocking accept().
    same = socket.socket(
        listening.family, listening.type, listening.proto, fileno=listening.fileno()
    )
    try:
        same.setblocking(False)
        while len(streams) < most:
            accepted, _ = same.accept()
            streams.append(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
    except OSError:
        pass  # no more clients; a real error occurs again at the next call
    finally:
        same.detach()


def address_of(listener: trio.abc.Listener[trio.abc.Stream]) -> str:
    """Return the address of a listener: ``"127.0.0.1:8765"``, ``"[::1]:8765"``, or a path.

    Args:
        listener: any listener; the address is "" for unknown kinds.
    """
    if isinstance(listener, UnixListener):
        return os.fspath(listener.path)
    if not isinstance(listener, trio.SocketListener):
        return ""
    name = listener.socket.getsockname()
    return format_address(name) if isinstance(name, tuple) else os.fsdecode(name)


def peer_name(stream: trio.abc.Stream) -> tuple[Any, ...] | str | None:
    """Return the address of the peer: a tuple, the path of a Unix socket, or None if unknown.

    Args:
        stream: any stream.
    """
    while isinstance(stream, TLSSocketIO | trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return name if isinstance(name, tuple | str) else ""  # the name of an abstract socket is bytes


def describe_peer(stream: trio.abc.Stream) -> str:
    """Return the address of the peer, such as ``"127.0.0.1:80"``.

    Args:
        stream: any stream; the address is "" for unknown kinds.
    """
    return format_peer(peer_name(stream))


def format_peer(name: tuple[Any, ...] | str | None) -> str:
    """Format the return value of :func:`peer_name`.

    Args:
        name: the address; the result is "" for an unknown one.
    """
    if isinstance(name, tuple):
        return format_address(name)
    # The path of a Unix socket, which the peer chooses.
    return printable(name or "")


def format_address(name: tuple[Any, ...]) -> str:
    """Format a host and a port, such as ``"127.0.0.1:80"`` or ``"[::1]:80"``.

    Args:
        name: the address of a socket.
    """
    host, port = str(name[0]), name[1]  # the first part is a number for AF_VSOCK
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> int | None:
    """Return the TCP port of the first listener that has one, or None.

    Args:
        listeners: any listeners.
    """
    for listener in listeners:
        if isinstance(listener, trio.SocketListener):
            name = listener.socket.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
    return None
