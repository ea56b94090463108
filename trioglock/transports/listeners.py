"""Where a server listens: TCP, Unix sockets, and memory."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from trio.testing import memory_stream_pair

from ..errors import InvalidOption

__all__ = ["MemoryListener", "UnixListener", "address_of", "open_tcp", "open_unix", "port_of"]

# As many as the system allows: what waits there costs little, what does not fit there is refused.
MAX_BACKLOG = 2**16 - 1


async def open_tcp(
    host: str | None, port: int, *, backlog: int | None = None, reuse_port: bool = False
) -> list[trio.SocketListener]:
    """Listen on every address of ``host``, all on the same port.

    Args:
        host: an address, a name, or None for every interface.
        port: 0 for one that is free.
        backlog: how many connections may wait to be accepted; None for the system's maximum.
        reuse_port: let other processes listen on the same port; the system shares out the clients.

    Raises:
        OSError: the port is taken, or there is no such address.
    """
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[trio.SocketListener] = []
    unsupported: OSError | None = None
    try:
        for family, kind, protocol, _, address in found:
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError as error:  # a system without IPv6 may still name such an address
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                unsupported = error
                continue
            with _closed_on_failure(bound):
                _prepare(bound, reuse_port=reuse_port)
                chosen = port or port_of(listeners) or 0
                _bind(bound, (address[0], chosen, *address[2:]))
                bound.listen(MAX_BACKLOG if backlog is None else backlog)
                listeners.append(trio.SocketListener(_for_trio(bound)))
        if not listeners and unsupported is not None:
            raise unsupported
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _bind(bound: socket.socket, address: tuple[Any, ...]) -> None:
    try:
        bound.bind(address)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{address[0]}:{address[1]}"
        text = f"cannot listen on {where}: {os.strerror(error.errno)}"
        raise OSError(error.errno, text) from None


def _prepare(bound: socket.socket, *, reuse_port: bool) -> None:
    if sys.platform != "win32":
        # Else a server that was stopped could not listen again for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise InvalidOption("this system has no reuse_port")
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a Unix socket, and takes its file away at the end.

    Args:
        listener: of the socket.
        path: of its file.
    """

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self.path: Path = path
        self._listener = listener
        self._inode = path.stat().st_ino

    async def accept(self) -> trio.SocketStream:
        """The next connection."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop listening. The file goes, unless somebody else has put another one there."""
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        await self._listener.aclose()


async def open_unix(path: str | os.PathLike[str], *, backlog: int | None = None) -> UnixListener:
    """Listen on a Unix socket; one that a dead server has left there is replaced.

    Args:
        path: of the socket.
        backlog: how many connections may wait to be accepted; None for the system's maximum.

    Raises:
        OSError: there is something else, or a server that lives.
        InvalidOption: the system has no Unix sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidOption("this system has no Unix sockets")
    await trio.lowlevel.checkpoint()
    place = Path(path)
    _remove_stale(place)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_failure(bound):
        bound.bind(os.fspath(place))
        bound.listen(MAX_BACKLOG if backlog is None else backlog)
        return UnixListener(trio.SocketListener(_for_trio(bound)), place)


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return  # bind() will say what is wrong
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as emitter:
        emitter.setblocking(False)
        if emitter.connect_ex(os.fspath(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)


@contextmanager
def _closed_on_failure(opened: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


def _for_trio(opened: socket.socket) -> trio.socket.SocketType:
    opened.setblocking(False)
    return trio.socket.from_stdlib_socket(opened)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Listens in this process alone, for tests of servers under trio's ``MockClock``.

    Clients come by ``connect("ws://memory.test/", stream=listener.open_stream)``.
    """

    def __init__(self) -> None:
        self._dialed, self._accepted = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def open_stream(self) -> trio.abc.Stream:
        """A new client's end of a stream, for ``connect(..., stream=listener.open_stream)``.

        Raises:
            ConnectionRefusedError: nobody listens any more.
        """
        await trio.lowlevel.checkpoint()
        near, far = memory_stream_pair()
        try:
            self._dialed.send_nowait(far)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens") from None
        return near

    async def accept(self) -> trio.abc.Stream:
        """The server's end of the next one."""
        return await self._accepted.receive()

    async def aclose(self) -> None:
        """Stop listening; those who wait to be accepted are cut off, also when cancelled."""
        with (
            trio.CancelScope(shield=True),
            suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError),
        ):
            while True:
                await trio.aclose_forcefully(self._accepted.receive_nowait())
        self._accepted.close()
        await trio.lowlevel.checkpoint()


def address_of(listener: trio.abc.Listener[trio.abc.Stream]) -> str:
    """Where it listens: ``"127.0.0.1:8765"``, ``"[::1]:8765"``, a path; "" where unknown.

    Args:
        listener: of any kind.
    """
    if isinstance(listener, UnixListener):
        return os.fspath(listener.path)
    if not isinstance(listener, trio.SocketListener):
        return ""
    name = listener.socket.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return os.fsdecode(name)


def port_of(listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> int | None:
    """The port of the first that has one.

    Args:
        listeners: of any kind.
    """
    for listener in listeners:
        if isinstance(listener, trio.SocketListener):
            name = listener.socket.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
    return None
