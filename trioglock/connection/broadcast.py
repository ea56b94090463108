"""``broadcast()``: one message for many connections, without waiting for any of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidFrame, InvalidOption
from ..frames import Close, Frame, PreparedMessage
from .connection import Connection
from .fanout import Fanout
from .send_queue import checked_frame
from .writer import Writer

__all__ = ["BroadcastResult", "broadcast", "broadcast_frame"]


class BroadcastResult(NamedTuple):
    """The result of :func:`broadcast`: numbers of connections.

    Args:
        queued: the connections that accepted the message.
        slow: open connections that were skipped because their ``write_limit`` or ``send_rate`` was
            reached.
        closed: connections that were skipped because they are closing or closed.
    """

    queued: int
    slow: int
    closed: int


def broadcast(connections: Iterable[Connection[Any, Any]], message: Frame) -> BroadcastResult:
    """Queue a message, unchanged, for each of the connections; ``handle_send`` is not called.

    Never waits, and may be called in hooks. Connections that are closing or closed, and slow ones,
    whose ``write_limit`` or ``send_rate`` is reached, are skipped without an exception. The message
    is encoded, and compressed, once::

        room: set[Connection] = set()

        async def handler(conn):
            room.add(conn)
            try:
                async for message in conn:
                    broadcast(room, message)
            finally:
                room.remove(conn)

    Args:
        connections: connections of servers or clients.
        message: ``str``, bytes-like, ``PreparedMessage``, ``Ping`` or ``Pong``.

    Returns:
        The numbers of connections that accepted it, that are slow, and that are closed.

    Raises:
        InvalidFrame: ``message`` is none of these.
        InvalidOption: ``connections`` contains an object that is not a Connection.
    """
    writers = [_writer_of(connection) for connection in connections]
    closed = sum([writer.closed for writer in writers])
    queued = broadcast_frame(writers, message)
    return BroadcastResult(queued, len(writers) - closed - queued, closed)


def broadcast_frame(writers: Sequence[Writer], frame: Frame) -> int:
    """Queue a frame for many writers; return the number of those that accepted it."""
    checked = checked_frame(frame)
    if isinstance(checked, Close):
        raise InvalidFrame("a Close frame cannot be broadcast: close each connection")
    if isinstance(checked, str | bytes):
        checked = PreparedMessage(checked)  # encoded once for all connections
    if isinstance(checked, PreparedMessage):
        return Fanout.current().broadcast(writers, checked)
    accepting = [writer for writer in writers if writer.has_space]
    for writer in accepting:
        writer.put(checked)
    return len(accepting)


def _writer_of(connection: Connection[Any, Any]) -> Writer:
    if not isinstance(connection, Connection):
        raise InvalidOption(
            f"connections must contain Connection objects only, not {connection!r:.100}"
        )
    return connection._writer  # noqa: SLF001 - the same package
