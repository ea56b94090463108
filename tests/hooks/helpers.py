"""What the tests of hooks share: a connection in memory, and sockets that do as the test says."""

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
SocketT = TypeVar("SocketT", bound=Socket[Any])


@overload
def linked(
    socket: None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[None], MemoryLink]]: ...


@overload
def linked(
    socket: Socket[StateT], **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[StateT], MemoryLink]]: ...


def linked(
    socket: Socket[Any] | None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[tuple[Connection[Any], MemoryLink]]:
    """A connection and its far end; without heartbeat, and for a day of the mock clock at most."""
    transport = MemoryTransport()
    options.setdefault("ping_interval", None)
    options["transport"] = transport
    return _linked(socket or Socket(), transport, options)


@asynccontextmanager
async def _linked(
    socket: Socket[Any], transport: MemoryTransport, options: ConnectOptions
) -> AsyncIterator[tuple[Connection[Any], MemoryLink]]:
    with trio.fail_after(86_400):
        async with connect(URL, socket, **options) as conn:
            yield conn, await transport.accept()


async def taken(far: MemoryLink) -> list[Any]:
    """The frames that wait at the far end once everybody else is idle; empty if none do."""
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.001):
        events = await far.receive()
        return [
            frame for event in events for frame in (event if isinstance(event, list) else [event])
        ]
    return []


async def delivered(conn: Connection[Any]) -> list[Any]:
    """The messages that wait to be received once everybody else is idle."""
    await trio.testing.wait_all_tasks_blocked()
    messages = []
    try:
        while True:
            messages.append(conn.receive_nowait())
    except (trio.WouldBlock, ConnectionClosed):
        return messages


class Raw(NamedTuple):
    """Stands in a script for the whole of what a hook returns."""

    make: Callable[[], Any]


class Call(NamedTuple):
    """One call of a hook: its name, what it was about, the state it got."""

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

    def ran(self, hook: str) -> int:
        """How often one hook ran."""
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
    """A socket of the class, its hooks as written, or as ``async def`` that suspend."""
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


async def provoke(hook: str, conn: Connection[Any], far: MemoryLink) -> Any:
    """Let happen what one hook is called for; the reply where there is one."""
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


async def settled() -> None:
    """Wait, on the mock clock, until suspended hooks are through."""
    await trio.sleep(1)
