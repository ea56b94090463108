"""Helpers: a connection in memory, and sockets with scripted hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import Any, NamedTuple, TypeVar, Unpack, overload

import pytest
import trio
import trio.testing

from trioglock import (
    Close,
    Connection,
    ConnectionClosed,
    ConnectionInfo,
    ConnectOptions,
    MemoryTransport,
    Ping,
    Pong,
    Socket,
    Status,
    connect,
)
from trioglock.testing import MemoryLink

URL = "ws://memory.test/"

HOOKS = (
    "init_stream",
    "handle_connect",
    "handle_send",
    "handle_receive",
    "handle_ping",
    "handle_pong",
    "handle_cast",
    "handle_call",
    "handle_disconnect",
    "terminate",
)
RECEIVING = (
    "handle_connect",
    "handle_receive",
    "handle_ping",
    "handle_pong",
    "handle_cast",
    "handle_call",
)
"""The hooks whose result is a result."""

both_styles = pytest.mark.parametrize("style", ["plain", "async"])
"""Every hook may be ``def`` or ``async def``."""

StateT = TypeVar("StateT")
SocketT = TypeVar("SocketT", bound=Socket[Any, Any])


@overload
def linked(
    socket: None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[None, Any], MemoryLink]]: ...


@overload
def linked(
    socket: Socket[StateT, Any], **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[StateT, Any], MemoryLink]]: ...


def linked(
    socket: Socket[Any, Any] | None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[Any, Any], MemoryLink]]:
    """A connection and its far end; without heartbeat, and for a day of the mock clock at most."""
    transport = MemoryTransport()
    options.setdefault("ping_interval", None)
    options["transport"] = transport
    return _linked(socket or Socket(), transport, options)


@asynccontextmanager
async def _linked(
    socket: Socket[Any, Any], transport: MemoryTransport, options: ConnectOptions
) -> AsyncIterator[tuple[Connection[Any, Any], MemoryLink]]:
    with trio.fail_after(86_400):
        async with connect(URL, socket, **options) as conn:
            yield conn, await transport.accept()


async def read_frames(far: MemoryLink) -> list[Any]:
    """The frames that wait at the far end once all tasks are blocked."""
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.001):
        events = await far.receive()
        return [
            frame for event in events for frame in (event if isinstance(event, list) else [event])
        ]
    return []


async def delivered(conn: Connection[Any, Any]) -> list[Any]:
    """The messages that can be received once all tasks are blocked."""
    await trio.testing.wait_all_tasks_blocked()
    messages = []
    try:
        while True:
            messages.append(conn.receive_nowait())
    except (trio.WouldBlock, ConnectionClosed):
        return messages


class Raw(NamedTuple):
    """A script entry that makes the whole return value of a hook."""

    make: Callable[[], Any]


class Call(NamedTuple):
    """One call of a hook: its name, its argument and its state."""

    hook: str
    what: Any
    state: int | None


class Scripted(Socket[int]):
    """Counts its hooks in the state; each does what the script says.

    Args:
        script: for a hook the result to return, an exception to raise, or :class:`Raw`. By
            default ``handle_send`` gives the message, every other hook ``None``.
    """

    def __init__(self, **script: Any) -> None:
        self.script = script
        self.calls: list[Call] = []

    def count(self, hook: str) -> int:
        """The number of calls of a hook."""
        return [call.hook for call in self.calls].count(hook)

    def _act(self, hook: str, what: Any, state: int | None, *normal: Any) -> Any:
        self.calls.append(Call(hook, what, state))
        scripted = self.script.get(hook)
        if isinstance(scripted, BaseException):
            raise scripted
        if isinstance(scripted, Raw):
            return scripted.make()
        count = 0 if state is None else state + 1
        if hook == "init_stream":
            return count
        return (*normal, self.script.get(hook, what if hook == "handle_send" else None), count)

    def init_stream(self, info: ConnectionInfo) -> Any:
        return self._act("init_stream", info, None)

    def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
        return self._act("handle_connect", info, state)

    def handle_send(self, message: Any, state: int) -> Any:
        return self._act("handle_send", message, state)

    def handle_receive(self, frame: Any, state: int) -> Any:
        return self._act("handle_receive", frame, state)

    def handle_ping(self, payload: bytes, state: int) -> Any:
        return self._act("handle_ping", payload, state)

    def handle_pong(self, payload: bytes, state: int) -> Any:
        return self._act("handle_pong", payload, state)

    def handle_cast(self, message: Any, state: int) -> Any:
        return self._act("handle_cast", message, state)

    def handle_call(self, request: Any, state: int) -> Any:
        return self._act("handle_call", request, state, f"re: {request}")

    def handle_disconnect(self, reason: Any, state: int) -> Any:
        return self._act("handle_disconnect", reason, state)

    def terminate(self, reason: Any, state: int) -> Any:
        return self._act("terminate", reason, state)


def styled(socket_class: type[SocketT], style: str, /, *args: Any, **kwargs: Any) -> SocketT:
    """Create a socket with its hooks as written, or as ``async def`` that suspend."""
    if style == "async":
        hooks = {
            name: _suspending(getattr(socket_class, name))
            for name in HOOKS
            if getattr(socket_class, name) is not getattr(Socket, name)
        }
        socket_class = type(socket_class.__name__, (socket_class,), hooks)
    return socket_class(*args, **kwargs)


def _suspending(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    async def suspended(*args: Any) -> Any:
        await trio.sleep(0.01)
        return hook(*args)

    return suspended


async def trigger(hook: str, conn: Connection[Any, Any], far: MemoryLink) -> Any:
    """Cause the event of a hook; return the reply of a call."""
    match hook:
        case "handle_send":
            await conn.send("x")
        case "handle_receive":
            await far.write(["x"])
        case "handle_ping":
            await far.write([Ping(b"x")])
        case "handle_pong":
            await far.write([Pong(b"x")])
        case "handle_cast":
            conn.cast("x")
        case "handle_call":
            return await conn.call("x")
        case "handle_disconnect" | "terminate":
            await far.write([Close(1000)])
            await trio.testing.wait_all_tasks_blocked()
            await far.send_eof()
    return None


async def wait_for_hooks() -> None:
    """Wait, on the mock clock, until suspended hooks have returned."""
    await trio.sleep(1)


class SlowHooks(Scripted):
    """Takes a minute for each cast, call and send of "slow"."""

    async def handle_cast(self, message: Any, state: int) -> Any:
        await self._minute(message)
        return super().handle_cast(message, state)

    async def handle_call(self, request: Any, state: int) -> Any:
        await self._minute(request)
        return super().handle_call(request, state)

    async def handle_send(self, message: Any, state: int) -> Any:
        await self._minute(message)
        return super().handle_send(message, state)

    async def _minute(self, what: Any) -> None:
        if what == "slow":
            await trio.sleep(60)


class UserError(Exception):
    """Raised by hooks and bodies of the tests."""


async def close_from_peer(far: MemoryLink, code: int = 1000, reason: str = "") -> None:
    """Send a Close frame as a peer, and end the stream."""
    await far.write([Close(code, reason)])
    await trio.testing.wait_all_tasks_blocked()
    await far.send_eof()


def current_status(conn: Connection[Any, Any]) -> Status:
    """The current status; type checkers assume that a property does not change."""
    return conn.status
