"""The session: the tasks that bring a connection up, keep it going and take it down.

One session is one ``async with connect(...)``. Its main task dials, and is then the reader of the
link; beside it run the writer task, the heartbeat and, if it is needed, the actor's. Nothing in
here raises into the nursery: what goes wrong is noted in :attr:`Session.failures`, and what the
peer does in :attr:`Session.ending`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import trio

from ..errors import ConnectError, ConnectionClosed, OpenTimeout
from ..frames import Close, Event, Ping, Pong, Violation
from ..options import DialOptions, FlowOptions
from ..reasons import (
    Aborted,
    Crashed,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    LocalClose,
    Lost,
    RemoteClose,
)
from ..socket import Handle, Socket, Stream
from ..telemetry import Trace
from ..transports import Handshake, Link, LinkBroken, Transport
from .actor import Actor
from .dispatch import Effects
from .ending import Ending, Status
from .heartbeat import Gate, Heartbeat
from .inbox import Inbox
from .outbox import Outbox
from .pings import Pings

__all__ = ["Session"]

StateT = TypeVar("StateT")


class Session(Generic[StateT]):
    """One connection's life.

    Args:
        transport: opens links.
        dial: where to, and how.
        flow: time-outs and limits.
        socket: the user's hooks.
        trace: told every step.
    """

    handshake: Handshake | None = None

    def __init__(
        self,
        transport: Transport,
        dial: DialOptions,
        flow: FlowOptions,
        socket: Socket[StateT],
        trace: Trace,
    ) -> None:
        self.flow = flow
        self.trace = trace
        self.status: Status = Status.CONNECTING
        self.ending: Ending = Ending()
        self.failures: list[BaseException] = []
        self.open_error: Exception | None = None
        self.opened: trio.Event = trio.Event()
        self.finished: trio.Event = trio.Event()
        self.body: trio.CancelScope = trio.CancelScope()
        self.upgrades: int = 0
        self.messages_received: int = 0
        self.inbox: Inbox = Inbox(flow.max_queue, flow.overflow)
        self.outbox: Outbox = Outbox(flow.write_limit)
        self.pings: Pings = Pings()
        self._effects = Effects(self.inbox, self.outbox, self.close)
        self.actor: Actor[StateT] = Actor(
            socket,
            self._effects,
            crashed=self.crash,
            closed_error=self.ending.error,
            spawn=self._spawn,
        )
        self._transport = transport
        self._dial_options = dial
        self._gate = Gate()
        self._link: Link | None = None
        self._past_bytes = (0, 0)
        self._handle: Handle
        self._tasks: trio.Nursery | None = None
        # The socket's side of the life, and the hooks' side: each may get a deadline of its own.
        self._link_scope = trio.CancelScope()
        self._hooks_scope = trio.CancelScope()
        self._ended_by: Disconnect | None = None
        self._broken: BaseException | None = None
        self._attempts = 0

    # The main task.

    async def run(self, handle: Handle) -> None:
        """Live from the first attempt to ``terminate``."""
        self._handle = handle
        reason: Disconnect = Aborted()
        try:
            async with trio.open_nursery() as self._tasks:
                reason = await self._live()
                self._tasks.cancel_scope.cancel()
        finally:
            self._settle(self._ended_by or reason)
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = self._deadline()
                await self._terminate(self._ended_by or reason)
            self.opened.set()
            self.finished.set()

    async def _live(self) -> Disconnect:
        self._attempts += 1
        reason = await self._attempt(self._attempts)
        self._note_end(reason)
        with self._hooks_scope:
            try:
                await self.actor.disconnected(reason)
            except ConnectionClosed:
                pass  # the hooks were stopped: there is nothing to decide
            except Exception as error:
                self.crash(error)
        return reason

    async def _attempt(self, attempt: int) -> Disconnect:
        """One link, from dialling to its end; why it ended."""
        reason: Disconnect = Aborted(attempt=attempt)
        with self._link_scope:
            try:
                link = await self._dial()
            except ConnectError as error:
                self.trace.line(f"failed to connect: {error}")
                self.open_error = error
                return HandshakeFailed(error=error, attempt=attempt)
            except Exception as error:
                self.open_error = error
                return HandshakeFailed(error=error, attempt=attempt)
            try:
                reason = await self._serve(link, attempt)
            finally:
                with trio.CancelScope(shield=True):
                    await link.aclose()
        return self._ended_by or self._reason(reason, attempt)

    async def _dial(self) -> Link:
        assert self._tasks is not None
        self.trace.line("attempting to connect")
        timeout = self._dial_options.open_timeout
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._transport.connect(self._dial_options, self._tasks)
        raise OpenTimeout(f"no connection within {timeout} seconds")

    async def _serve(self, link: Link, attempt: int) -> Disconnect:
        """Run the tasks of one link until it ends; why it ended, as far as the reader knows."""
        self._link = link
        self.handshake = link.handshake
        self.upgrades += 1
        self.status = Status.OPEN
        self.trace.line("successfully connected")
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._write, link)
            tasks.start_soon(self._beat, link)
            tasks.start_soon(self._greet, link.handshake, attempt)
            reason = await self._read(link)
            tasks.cancel_scope.cancel()
        return reason

    async def _greet(self, handshake: Handshake, attempt: int) -> None:
        stream = Stream(
            url=handshake.url,
            subprotocol=handshake.subprotocol,
            request_headers=handshake.request_headers,
            response_headers=handshake.response_headers,
            peer=handshake.peer,
            attempt=attempt,
            connection=self._handle,
        )
        try:
            await self.actor.connected(stream)
        except ConnectionClosed:
            pass
        except Exception as error:
            self.crash(error)
        self.opened.set()

    # The reader.

    async def _read(self, link: Link) -> Disconnect:
        try:
            while True:
                events = await link.receive()
                if not events:
                    return Lost(error=self._broken, attempt=self._attempts)
                for event in events:
                    if event.__class__ is list:
                        self.trace.items("received frame", event)
                        self.messages_received += len(event)
                        if self.status is Status.OPEN or not self._hooks_lag():
                            self.actor.receive(event)
                        else:
                            self.inbox.dropped += len(event)
                    else:
                        self._control(event)
                if self._must_hold():
                    await self._hold()
        except LinkBroken as broken:
            return Lost(error=broken.__cause__ or broken, attempt=self._attempts)

    def _control(self, event: Event) -> None:
        self.trace.items("received frame", [event])
        match event:
            case Ping(payload):
                if self.ending.received is None:
                    self.outbox.put(Pong(payload))
                self.actor.control(self.actor.ping, payload)
            case Pong(payload):
                self.pings.answered(payload)
                self.actor.control(self.actor.pong, payload)
            case Close():
                self._remote_close(event)
            case Violation(code, reason):
                # What came before it still counts, nothing after it does.
                if self.status is Status.OPEN:
                    self.close(Close(code, reason[:120]))
                else:
                    self._link_scope.cancel()

    def _must_hold(self) -> bool:
        if self.status is not Status.OPEN:
            return False
        if self.inbox.overflowed:
            self.close(Close(1008, "the inbox overflowed"))
            return False
        # A full outbox holds the reader only for what its own hooks reply: if it waited for the
        # program's sends as well, two peers that send and read at the same time would stand still.
        self._effects.replied = self._effects.replied and self.outbox.full
        return self.inbox.full or self._effects.replied or self._hooks_lag()

    def _hooks_lag(self) -> bool:
        limit = self.flow.max_queue
        return limit is not None and self.actor.backlog >= limit

    async def _hold(self) -> None:
        """Read no more until there is room: TCP tells the peer to slow down."""
        gate = self._gate
        gate.held = True
        try:
            while self._must_hold():
                if self.inbox.full:
                    await self.inbox.wait_room()
                elif self._hooks_lag():
                    await self.actor.wait_backlog()
                else:
                    await self.outbox.wait_room()
        finally:
            gate.held = False
            gate.releases += 1

    # The writer and the heartbeat.

    async def _write(self, link: Link) -> None:
        outbox = self.outbox
        try:
            while True:
                batch = outbox.take()
                if not batch:
                    await outbox.wait_work()
                    continue
                self.trace.items("sending frame", batch)
                await link.write(batch)
                outbox.wrote()
        except LinkBroken as broken:
            self._broken = broken.__cause__ or broken
            # What the peer sent before it went is still readable: the reader finds the end.
            self._limit(self._link_scope)

    async def _beat(self, link: Link) -> None:
        heartbeat = Heartbeat(link, self._gate, self.pings, self.outbox, self.flow)
        self._expire(await heartbeat.watch())

    # Ends.

    def close(self, frame: Close) -> None:
        """Start the closing handshake; the first one to do so wins."""
        if self.status is not Status.OPEN:
            return
        self.trace.line(f"closing with local reason: {frame.code} {frame.reason}".rstrip())
        self.status = Status.CLOSING
        self.ending.sent = frame
        self.outbox.close(frame)
        self._limit(self._link_scope)
        self._open_gates()

    def _remote_close(self, frame: Close) -> None:
        self.ending.received = frame
        if self.status is Status.OPEN:
            self.trace.line(f"closing with remote reason: {frame.code} {frame.reason}".rstrip())
            self.status = Status.CLOSING
            self.ending.unsent = self.outbox.drop_data()
            self.ending.sent = frame
            self._ended_by = self._ended_by or RemoteClose(
                code=frame.code, reason=frame.reason, attempt=self._attempts
            )
            self.outbox.close(frame)
            self._limit(self._link_scope)

    async def aclose(self, frame: Close) -> None:
        """Close, and wait for the end; hooks and socket share one deadline."""
        self.close(frame)
        if self.status is Status.CONNECTING:
            self.abort()
        self._limit(self._hooks_scope)
        await self.finished.wait()

    def abort(self) -> None:
        """Drop everything on the spot."""
        if self.status is Status.CLOSED:
            return
        self._ended_by = self._ended_by or Aborted(attempt=self._attempts)
        self.actor.stop()
        self._link_scope.cancel()
        self._hooks_scope.cancel()

    def crash(self, error: BaseException) -> None:
        """A hook or a background task raised: tell the peer, cancel the body, end."""
        self.failures.append(error)
        self._ended_by = self._ended_by or Crashed(error=error, attempt=self._attempts)
        self.close(Close(1011, "internal error"))
        self.actor.stop()
        self._limit(self._hooks_scope)
        self.body.cancel()

    def _expire(self, timeout: HeartbeatTimeout) -> None:
        self.trace.line("forcefully closed the connection because the peer took too long")
        self._ended_by = self._ended_by or replace(timeout, attempt=self._attempts)
        self._link_scope.cancel()

    def _deadline(self) -> float:
        timeout = self.flow.close_timeout
        return math.inf if timeout is None else trio.current_time() + timeout

    def _limit(self, scope: trio.CancelScope) -> None:
        """Give one side of the life its total deadline; an earlier one stays."""
        scope.deadline = min(scope.deadline, self._deadline())

    def _open_gates(self) -> None:
        self.inbox.open_gates()
        self.outbox.open_gates()
        self.actor.open_gates()

    def _reason(self, seen: Disconnect, attempt: int) -> Disconnect:
        """Why the link ended, seen from the outside."""
        sent = self.ending.sent
        if sent is not None:
            clean = self.ending.received is not None
            return LocalClose(code=sent.code, reason=sent.reason, clean=clean, attempt=attempt)
        if isinstance(seen, Aborted) and self._broken is not None:
            return Lost(error=self._broken, attempt=attempt)
        return seen

    def _note_end(self, reason: Disconnect) -> None:
        """The link is gone for good: everyone who waits learns it, hooks still have work."""
        self.ending.cause = reason
        self.status = Status.CLOSED
        self.ending.unsent += self.outbox.drop_data()
        self.outbox.end()
        self.pings.end()

    def _settle(self, reason: Disconnect) -> None:
        if self.status is not Status.CLOSED:
            self._note_end(reason)
        self.actor.stop()
        self.inbox.end()

    async def _terminate(self, reason: Disconnect) -> None:
        if not self.actor.has_state:
            return
        try:
            await self.actor.terminate(reason)
        except Exception as error:
            self.failures.append(error)

    # Background tasks.

    def _spawn(self, fn: Callable[[], Awaitable[None]]) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(fn)

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a user's task; its failure ends the connection."""
        if self._tasks is None or self.finished.is_set():
            raise self.ending.error()
        self._tasks.start_soon(self._guard, fn, args)

    async def _guard(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        except Exception as error:
            self.crash(error)

    # Figures.

    @property
    def bytes_each_way(self) -> tuple[int, int]:
        """Bytes sent and received on the wire, over all links."""
        sent, received = self._past_bytes
        if self._link is None:
            return sent, received
        return sent + self._link.bytes_sent, received + self._link.bytes_received
