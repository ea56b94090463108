"""The session: opens the links of one connection, runs them and closes them.

One session serves one ``async with connect(...)``. Its main task opens a link through its
:class:`LinkSource`, reads the link to its end, runs ``handle_disconnect``, and opens the next link
or ends. Other tasks exist only while they are needed: the writer's while the socket is full or
frames are coalesced, the mailbox's if hooks need it. No exception is raised into the nursery:
:attr:`Session.failures` collects them, and :attr:`Session.close_state` collects the Close frames.
"""

from __future__ import annotations

from dataclasses import replace
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any, Generic, Protocol

import trio

from .._types import StateT
from ..close_codes import NORMAL, TOO_LARGE
from ..disconnect import (
    Aborted,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    HookError,
    LocalClose,
    ProtocolViolation,
    RemoteClose,
    Stalled,
)
from ..errors import ConnectionClosed, MessageInterrupted
from ..frames import Close, Violation, too_large
from ..hooks import ConnectionInfo, Reconnect, Socket, Stop
from ..options import FlowOptions, Rate
from ..telemetry import EventEmitter
from ..transports import Handshake, Link
from ._sync import Latch, ignore
from .actor import Actor
from .background import Background
from .closing import TRANSITIONS, CloseState, Deadlines, Status, Trigger
from .decoding import InvalidMessages
from .fragments.queue import FragmentQueue
from .hooks import EncodingHookResults, HookResults
from .link import LinkEnd, LinkTasks
from .liveness.heartbeat import Pings
from .rates.paced_queue import PacedSendQueue
from .rates.pacing import Pacer
from .receive_queue import ReceiveQueue
from .requests import Requests
from .send_queue import SendQueue
from .subscriptions.driver import SubscriptionDriver
from .subscriptions.machine import Subscriptions
from .writer import Writer

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["LinkSource", "Session"]


class LinkSource(Protocol):
    """Opens the links of a session and decides whether to open another one.

    A client connects and reconnects; a server accepts exactly one link.
    """

    final_error: Exception | None
    """Why no other link follows, if the end of the last link does not explain it."""

    @property
    def reconnects(self) -> bool:
        """Whether a policy may open another link."""

    @property
    def is_endless(self) -> bool:
        """Whether a policy opens links without a limit on attempts."""

    async def open(self, nursery: trio.Nursery) -> Link:
        """Open a link.

        Args:
            nursery: for background tasks of the link.

        Raises:
            ConnectError: the link could not be opened.
            Exception: raised by the user's functions for the URL or the headers.
        """

    def retries(self, reason: Disconnect) -> bool:
        """Whether the policy alone opens another link after ``reason``."""

    def next_delay(
        self,
        reason: Disconnect,
        decision: Reconnect | Stop | None,
        lasted: float,
        *,
        immediate: bool,
    ) -> float | None:
        """Return the seconds to wait before the next link, or None to end.

        Args:
            reason: why the last link, or attempt, ended.
            decision: the decision of ``handle_disconnect``.
            lasted: seconds that the link was open; 0 for a failed attempt.
            immediate: the user called ``reconnect()``, which does not count as an attempt.
        """


class Registry(Protocol):
    """The open connections of a server."""

    def add(self, session: Session[Any], connection: Connection[Any, Any]) -> None:
        """Add a connection whose ``init_stream`` has returned."""

    def opened(self, session: Session[Any]) -> None:
        """Called when the ``handle_connect`` of a connection has returned."""

    def remove(self, connection: Connection[Any, Any]) -> None:
        """Remove a connection that has ended."""


class Session(Generic[StateT]):
    """Runs one connection over one or more links.

    Args:
        link_source: opens links and decides whether to reconnect.
        flow: timeouts and limits.
        socket: the user's hooks.
        emitter: emits the telemetry events.
        registry: on a server, contains the connection while it is open. Without the body of an
            ``async with``, nothing receives messages, and they are discarded.
        max_size: maximum size, in bytes, of a message that is joined from fragments.
        send_rate: the limit for the messages sent over all links, or None.
        subscriptions: describes the feeds of the server.
    """

    __slots__ = (
        "_connection",
        "_deadlines",
        "_earlier_counters",
        "_ended_by",
        "_flow",
        "_immediate",
        "_in_backoff",
        "_lasted",
        "_link_ended_by",
        "_link_source",
        "_link_tasks",
        "_no_reconnect",
        "_reconnected",
        "_registry",
        "_results",
        "actor",
        "attempts",
        "background",
        "body",
        "close_state",
        "emitter",
        "failures",
        "finished",
        "handshake",
        "invalid",
        "latest_end",
        "open_error",
        "opened",
        "pings",
        "receive_queue",
        "requests",
        "send_queue",
        "status",
        "subscriptions",
        "upgrades",
        "writer",
    )

    def __init__(
        self,
        link_source: LinkSource,
        flow: FlowOptions,
        socket: Socket[StateT, Any],
        emitter: EventEmitter,
        registry: Registry | None = None,
        *,
        max_size: int | None = None,
        send_rate: Rate | None = None,
        subscriptions: Subscriptions[Any, Any] | None = None,
    ) -> None:
        self.emitter: EventEmitter = emitter
        self.status: Status = Status.CONNECTING
        self.handshake: Handshake | None = None
        self.failures: list[BaseException] = []
        self.open_error: Exception | None = None
        self.opened: Latch = Latch()
        self.finished: Latch = Latch()
        self.body: trio.CancelScope | None = None  # of the body of an async with
        self.attempts: int = 0
        self.upgrades: int = 0
        self.latest_end: Disconnect | None = None
        self.send_queue: SendQueue = (
            SendQueue(flow.write_limit)
            if send_rate is None
            else PacedSendQueue(flow.write_limit, Pacer(send_rate))
        )
        self.close_state: CloseState = CloseState(self.send_queue)
        self.receive_queue: ReceiveQueue = (
            FragmentQueue(
                max_size, self._message_too_large, self.close_state.message_too_large, emitter
            )
            if flow.fragments
            else ReceiveQueue(
                flow.max_queue,
                flow.overflow,
                self._close_on_overflow if flow.overflow == "close" else ignore,
                emitter,
            )
        )
        closed_error = self.close_state.error
        self.pings: Pings = Pings()
        self.background: Background = Background(self._task_failed, closed_error)
        self.writer: Writer = Writer(
            self.send_queue,
            emitter,
            self._close_written,
            self._write_failed,
            self.background.spawn,
        )
        if isinstance(self.send_queue, PacedSendQueue):
            self.send_queue.on_slot = self.writer.slot_free
        parts = (self.receive_queue, self.writer, self.send_queue, self.close, emitter)
        self._results = (
            HookResults(*parts) if flow.codec is None else EncodingHookResults(flow.codec, *parts)
        )
        self.requests: Requests | None = None if flow.codec is None else Requests(flow.requests)
        self.invalid: InvalidMessages | None = None if flow.codec is None else InvalidMessages()
        self.actor: Actor[StateT] = Actor(
            socket,
            self._results,
            on_failure=self._hook_failed,
            closed_error=closed_error,
            background=self.background,
        )
        self.subscriptions: SubscriptionDriver | None = None
        if subscriptions is not None:
            self.subscriptions = SubscriptionDriver(
                subscriptions,
                self.writer,
                self.send_queue,
                self.close_state,
                self.fail,
                flow.codec,
            )
        self._registry = registry
        self._flow = flow
        self._link_source = link_source
        self._connection: Connection[StateT, Any]
        self._link_tasks: LinkTasks | None = None
        self._earlier_counters = (0, 0, 0)
        self._lasted = 0.0
        self._deadlines = Deadlines(flow.close_timeout)
        # Why the connection ends, once that is decided, and why the current link ended.
        self._ended_by: Disconnect | None = None
        self._link_ended_by: Disconnect | None = None
        self._no_reconnect = False
        # Set by reconnect(): an event for the new link, and whether the next attempt has no delay.
        self._reconnected: trio.Event | None = None
        self._immediate = False
        self._in_backoff = False

    # The main task.

    async def run(self, connection: Connection[StateT, Any], nursery: trio.Nursery) -> None:
        """Run from the first attempt to ``terminate``.

        Args:
            connection: the connection that hooks receive.
            nursery: runs the tasks of the connection, which end before this method returns.
        """
        self._connection = connection
        self.background.nursery = nursery
        if self._registry is not None and self.body is None:
            self.receive_queue.discard_unread()
        reason: Disconnect | None = None
        try:
            try:
                self.actor.attach(connection)
                # There is no coroutine in between, because each would cost 200 bytes per
                # connection.
                latest = await self._run_link()
                while await self._wait_next_link(latest):
                    latest = await self._run_link()
                reason = latest
            finally:
                self.background.close()
                self.actor.stop()
                with trio.CancelScope(shield=True):
                    await self.background.end()
        finally:
            reason = self._ended_by or (Aborted() if reason is None else reason)
            self._end(reason)
            try:
                with trio.CancelScope(shield=True, deadline=self._deadlines.close_deadline()):
                    await self._terminate(reason)
            finally:
                self._notify_finished(reason)

    async def _wait_next_link(self, reason: Disconnect) -> bool:
        """Decide whether another link follows one that has ended; wait until it may be opened."""
        delay = await self._decide(reason)
        if delay is None or self._no_reconnect:
            if not self.upgrades and isinstance(reason, HandshakeFailed):
                self.open_error = self._link_source.final_error or reason.error
            self._log_failure(reason)
            return False
        self._change(Trigger.RECONNECT)
        self.send_queue.resume_accepting()
        self._in_backoff = True
        with self._deadlines.new_link():
            # Inside the scope, because a listener may close or abort the connection.
            # A warning, because a program that waits for its first link, without a limit on
            # attempts, is not informed of failures in any other way.
            is_silent = self.attempts == 1 and not self.upgrades and self._link_source.is_endless
            self.emitter.reconnect_scheduled(
                reason, self.attempts + 1, delay, WARNING if is_silent else INFO
            )
            await trio.sleep(delay)
        self._in_backoff = False
        return not self._no_reconnect

    def _log_failure(self, reason: Disconnect) -> None:
        """Log the end of a link or attempt that no other link follows.

        The program expects a normal end, unless it has chosen to reconnect.
        """
        given_up, reconnects = self._link_source.final_error, self._link_source.reconnects
        if given_up:
            self.emitter.connection_failed(given_up)
        elif not isinstance(reason, LocalClose | HookError | Aborted):
            normal = isinstance(reason, RemoteClose) and reason.code in NORMAL
            if reconnects or not normal:
                ended = reconnects and not isinstance(reason, HandshakeFailed)
                self.emitter.connection_failed(reason, "; not reconnecting" if ended else "")

    async def _run_link(self) -> Disconnect:
        """Open one link and run it to its end; return why it ended."""
        self.attempts += 1
        self._link_ended_by = None
        self._lasted = 0.0
        link = None
        try:
            with self._deadlines.new_link() as scope:
                began = trio.current_time()
                link = await self._open_link()
                if link is not None:
                    # Inlined to save the memory of a coroutine for each connection.
                    tasks = self._start_link(link)
                    try:
                        info = self._describe_link(link.handshake, tasks.began - began)
                        if self._registry is not None:
                            await self._respond(tasks, info)
                        elif not self.actor.has_state:
                            self.actor.run_init(info, ignore)
                        self.actor.run_connect(info, self._after_connect, self._is_current)
                        if self._answer(await tasks.run()):
                            await tasks.drain()
                    finally:
                        await tasks.stop()
                        self._finish_link(tasks)
                        with trio.CancelScope(shield=True):
                            await link.aclose()
        except BaseException:
            # The session was cancelled or interrupted, which also ends the link.
            self._ended_by = self._ended_by or Aborted(attempt=self.attempts)
            if link is not None:
                self.emitter.link_closed(self._ended_by, self._lasted, forced=False)
            raise
        finally:
            self._deadlines.lift_link()
        reason = self._end_reason()
        self._record_end(reason)
        if link is not None:
            late = scope.cancelled_caught and self._deadlines.link_expired
            forced = late or isinstance(reason, HeartbeatTimeout)
            self.emitter.link_closed(reason, self._lasted, forced=forced)
        return reason

    def _record_end(self, reason: Disconnect) -> None:
        """Record the end of a link or attempt; wake tasks that cannot wait for another link."""
        self.close_state.cause = self.latest_end = reason
        if isinstance(reason, HandshakeFailed):
            self.close_state.attempt_failed()
        self.pings.fail_all()
        if self._will_reconnect(reason):
            self._change(Trigger.RECONNECT)
            return
        if self._hook_may_reconnect:
            self._change(Trigger.LINK_ENDED)
            self.send_queue.stop_accepting()
        else:
            self._change(Trigger.END)
            self._end_send_queue()
        if isinstance(reason, HeartbeatTimeout):
            # Calls fail now, even if a hook is still waiting for the dead peer.
            self.actor.mailbox.fail_calls()

    async def _open_link(self) -> Link | None:
        assert self.background.nursery is not None
        began = trio.current_time()
        self.emitter.connect_started(self.attempts)
        try:
            return await self._link_source.open(self.background.nursery)
        except Exception as error:
            # The frames of this method and of open() refer to the exception, so they are removed
            # from its traceback. A variable for the traceback would create a cycle, too: in CPython
            # 3.12, the other frames refer to this one.
            for _ in range(2):
                error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            self._link_ended_by = HandshakeFailed(error=error, attempt=self.attempts)
            self.emitter.connect_failed(self.attempts, error, trio.current_time() - began)
            return None

    def _start_link(self, link: Link) -> LinkTasks:
        """Create the tasks of a new link."""
        self.close_state.start_link()
        self.handshake = link.handshake
        self.upgrades += 1
        self._change(Trigger.UPGRADED)
        self.receive_queue.start_link()
        if self.requests is not None:
            self.requests.add_link()
        self.writer.attach(link, held=self._registry is not None)
        self._link_tasks = LinkTasks(
            link,
            self.actor,
            self._results,
            self.send_queue,
            self.writer,
            self.pings,
            self._flow,
            self._deadlines,
            self.emitter,
            self.invalid,
            self.requests,
            self.subscriptions,
        )
        if self.subscriptions is not None:
            # It may fail, which closes the link.
            self.subscriptions.open_link()
        return self._link_tasks

    def _finish_link(self, tasks: LinkTasks) -> None:
        """Record the end of the link's tasks."""
        if self.subscriptions is not None:
            self.subscriptions.close_link()
        # The end is recorded before waiting tasks are woken.
        reason = self._end_reason()
        self._record_end(reason)
        if self.requests is not None:
            self.send_queue.remove(self.requests.fail(reason))
        self.receive_queue.end_link(final=self.status is Status.CLOSED)
        self.writer.detach()
        self._lasted = trio.current_time() - tasks.began
        self._earlier_counters = self.counters
        self._link_tasks = None

    def _describe_link(self, handshake: Handshake, seconds: float) -> ConnectionInfo:
        """Emit ``Connected``; return the argument of ``init_stream`` and ``handle_connect``."""
        self.emitter.connected(
            self.attempts,
            self.upgrades,
            seconds,
            url=handshake.url,
            peer=handshake.peer,
            subprotocol=handshake.subprotocol,
        )
        return ConnectionInfo(
            url=handshake.url,
            subprotocol=handshake.subprotocol,
            request_headers=handshake.request_headers,
            response_headers=handshake.response_headers,
            peer=handshake.peer,
            attempt=self.upgrades,
            connection=self._connection,
        )

    async def _respond(self, tasks: LinkTasks, info: ConnectionInfo) -> None:
        """Run ``init_stream``, then respond to the opening handshake.

        The connection must be registered and subscribed before the client can act on the response.
        """
        assert self._registry is not None
        initialized = trio.Event()
        self.actor.run_init(info, initialized.set)
        if not initialized.is_set():
            await initialized.wait()
        if not self.failures:
            self._registry.add(self, self._connection)
        await tasks.respond(self._flow.write_timeout)
        self.writer.resume()

    def _is_current(self, info: ConnectionInfo) -> bool:
        return info.attempt == self.upgrades and self._link_tasks is not None

    def _after_connect(self, info: ConnectionInfo) -> None:
        """Release the queued data after ``handle_connect`` has returned.

        Subscriptions are replayed first; if they wait for a login, so does the data.
        """
        if self._is_current(info):
            if self.subscriptions is None or self.subscriptions.connected():
                self.writer.release()
            else:
                self.send_queue.awaits_login = True
        self.opened.set()
        if self._registry is not None:
            self._registry.opened(self)
        if self._reconnected is not None and self._is_current(info) and not self._immediate:
            self._reconnected.set()
            self._reconnected = None

    # After a link.

    async def _decide(self, reason: Disconnect) -> float | None:
        """Run ``handle_disconnect`` and the policy; return the delay in seconds, or None to end."""
        decision: Reconnect | Stop | None = None
        with self._deadlines.new_hooks(caught_up=not self.actor.mailbox.pending):
            try:
                decision = await self.actor.run_disconnect_hook(reason)
                if not self._no_reconnect:
                    return self._next_delay(reason, decision)
            except Exception as error:
                # If the hooks were stopped in the meantime, the connection is ending anyway.
                if not (isinstance(error, ConnectionClosed) and error.origin is self.close_state):
                    self.fail(error)
        return None

    def _next_delay(self, reason: Disconnect, decision: Reconnect | Stop | None) -> float | None:
        immediate, self._immediate = self._immediate, False
        return self._link_source.next_delay(reason, decision, self._lasted, immediate=immediate)

    def _will_reconnect(self, reason: Disconnect) -> bool:
        """Whether the policy opens another link; then sends are still accepted."""
        if self._no_reconnect:
            return False
        try:
            return self._immediate or self._link_source.retries(reason)
        except Exception as error:
            self.fail(error)
            return False

    @property
    def _hook_may_reconnect(self) -> bool:
        """Whether ``handle_disconnect`` is overridden and may still decide to reconnect."""
        return not (self._no_reconnect or self.actor.disconnect.is_default)

    def _end_reason(self) -> Disconnect:
        """Why the current link has ended; the first reason takes precedence."""
        tasks = self._link_tasks
        end = None if tasks is None else tasks.end
        sent, reason = self.close_state.sent, self._ended_by or self._link_ended_by
        if reason is None and isinstance(end, HeartbeatTimeout | Stalled):
            reason = self._link_ended_by = replace(end, attempt=self.attempts)
        elif reason is None and sent is not None:
            clean = self.close_state.received is not None
            reason = LocalClose(
                code=sent.code, reason=sent.reason, clean=clean, attempt=self.attempts
            )
        elif reason is None:
            error = None if tasks is None else tasks.write_error
            if isinstance(end, ConnectionLost):
                error = end.error
            reason = self._link_ended_by = ConnectionLost(error=error, attempt=self.attempts)
        return reason

    # The end of the link.

    @property
    def is_open(self) -> bool:
        """Whether neither side has started to close the link."""
        return self.status is Status.OPEN

    def _answer(self, end: LinkEnd) -> bool:
        """Send the Close frame that the end of a link requires; return whether to wait for EOF."""
        match end:
            case Close(code, text):
                self.close_state.received = end
                if self.close_state.sent is None:
                    reason = RemoteClose(code=code, reason=text, attempt=self.attempts)
                    self._end_link(end, reason)
                elif not self.send_queue.close_pending:
                    self._deadlines.linger()
            case Violation(code, text):
                if self.close_state.sent is not None:
                    return False
                violation = ProtocolViolation(code=code, reason=text, attempt=self.attempts)
                self._end_link(Close(code, text[:120]), violation, data_first=True)
            case _:
                return False
        return True

    def _end_link(self, frame: Close, reason: Disconnect, *, data_first: bool = False) -> None:
        """Close the link for ``reason``; another one may follow.

        Args:
            frame: the Close frame.
            reason: why the link ends.
            data_first: the peer is still reading, so data that is queued is sent before the frame.
        """
        self._link_ended_by = self._link_ended_by or reason
        final = not self._will_reconnect(reason)
        if self.is_open:  # the policy has not closed the connection
            self._begin_close(frame, data_first=data_first and final, final=final)

    def _begin_close(self, frame: Close, *, data_first: bool, final: bool) -> None:
        """Start the closing handshake of an open link (RFC 6455, section 7.1.2).

        Args:
            frame: the Close frame.
            data_first: send queued data before the frame. Otherwise it waits for another link, or
                is dropped.
            final: no other link is expected, unless ``handle_disconnect`` opens one.
        """
        self.close_state.sent = frame
        # Before a login, the peer does not accept data.
        subscriptions = self.subscriptions
        data_first = data_first and not (subscriptions is not None and subscriptions.awaits_login)
        self._change(Trigger.CLOSE if final else Trigger.RECONNECT)
        # No decision may follow, because a listener may close or abort the connection.
        received = self.close_state.received is not None
        self.emitter.close_started("remote" if received else "local", frame)
        if final:
            if subscriptions is not None:
                subscriptions.remove_requests()
            if not (data_first or self._hook_may_reconnect):
                self.close_state.unsent = self.send_queue.drop_data()
            self.send_queue.closed = True
        self.writer.put_close(frame, first=not data_first)
        self._deadlines.limit_link()
        self.receive_queue.start_closing()
        if self.subscriptions is not None:
            self.subscriptions.start_closing()
        self.send_queue.release_senders()
        self.actor.release_reader()
        if self._link_tasks is not None:
            self._link_tasks.release_reader()

    def _close_written(self) -> None:
        if self.close_state.received is not None:
            self._deadlines.linger()

    def _write_failed(self, error: BaseException) -> None:
        """Handle a broken stream; data that the peer sent earlier is still read."""
        self.writer.detach()
        reconnects = self._will_reconnect(ConnectionLost(attempt=self.attempts))
        if not reconnects:
            self.send_queue.stop_accepting()
        if self._link_tasks is not None:
            self._link_tasks.write_failed(error, reconnects=reconnects)

    def message_failed(self, error: BaseException) -> None:
        """End the link because the rest of a message in fragments cannot be sent."""
        if self.is_open and not self._no_reconnect:
            cause = MessageInterrupted("a message could not be completed")
            cause.__cause__ = error if isinstance(error, Exception) else None
            reason = ConnectionLost(error=cause, attempt=self.attempts)
            self._end_link(Close(1011, "a message could not be completed"), reason)

    def _message_too_large(self, max_size: int) -> None:
        """End the link because a message in fragments is too large to be joined."""
        reason = too_large(max_size)
        violation = ProtocolViolation(code=TOO_LARGE, reason=reason, attempt=self.attempts)
        if self.is_open:
            self._end_link(Close(TOO_LARGE, reason), violation, data_first=True)
        elif self.status is Status.CLOSING:
            # The loss must not look like the normal end of the message.
            self._link_ended_by = violation
        else:
            self.close_state.message_too_large(max_size)

    # Closing.

    def _close_on_overflow(self) -> None:
        self.close(Close(1008, "the receive queue overflowed"))

    def close(self, frame: Close) -> None:
        """Start the closing handshake; a later close has no effect."""
        if self._no_reconnect:
            return
        self._no_reconnect = True
        if self.status in (Status.CLOSING, Status.DECIDING, Status.CLOSED):
            # The link is already ending. From now on no hook can reconnect.
            return
        if self.status is not Status.OPEN:
            # There is no link, or the link is being closed for a reconnect.
            self._ended_by = LocalClose(
                code=frame.code, reason=frame.reason, clean=False, attempt=self.attempts
            )
            self._end_send_queue()
            self._deadlines.link.cancel()
            self.emitter.close_started("local", frame)
            return
        self._begin_close(frame, data_first=True, final=True)

    async def aclose(self, frame: Close) -> None:
        """Close and wait for the end, within one deadline for the link and the hooks."""
        self.close(frame)
        self._deadlines.limit_hooks()
        await self.finished.wait()

    async def reconnect(self) -> None:
        """Replace the current link; return when the new one is open."""
        if self._no_reconnect or self.status in (Status.CLOSING, Status.DECIDING, Status.CLOSED):
            raise self.close_state.error()
        if self._reconnected is None:
            self._reconnected = trio.Event()
            if self.status is Status.OPEN:
                self._immediate = True
                self._begin_close(Close(1000), data_first=False, final=False)
            elif self._in_backoff:
                self._deadlines.link.cancel()
        reconnected = self._reconnected
        await reconnected.wait()
        if self._no_reconnect:
            raise self.close_state.error()

    def abort(self) -> None:
        """End the connection immediately, without a closing handshake."""
        if self.status is Status.CLOSED:
            return
        self._ended_by = self._ended_by or Aborted(attempt=self.attempts)
        self._no_reconnect = True
        self.send_queue.stop_accepting()
        self.actor.stop()
        self._deadlines.cancel()

    def fail(self, error: BaseException) -> None:
        """End the connection with 1011 and cancel the body, because user code raised."""
        self._hook_failed("", error, fatal=True)

    def _task_failed(self, error: BaseException, is_users: bool) -> None:
        self.fail(error)
        if not is_users:
            # Without the task of the writer or the hooks, the connection cannot close.
            self.abort()

    def _hook_failed(self, hook: str, error: BaseException, fatal: bool) -> None:
        try:
            self.emitter.hook_failed(hook, error, fatal=fatal)
        finally:
            if fatal:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self._ended_by = self._ended_by or HookError(error=error, attempt=self.attempts)
        self._no_reconnect = True
        if self.status is Status.OPEN:
            self._end_link(Close(1011, "internal error"), self._ended_by)
        elif self._link_tasks is None:
            self._deadlines.link.cancel()
        self.send_queue.stop_accepting()
        self.actor.stop()
        self._deadlines.limit_hooks()
        self._cancel_body()

    def _cancel_body(self) -> None:
        """Cancel the body, or remove a connection without a body from the open ones."""
        if self.body is not None:
            self.body.cancel()
        self._unregister()

    def _unregister(self) -> None:
        if self._registry is not None and self.body is None:
            self._registry.remove(self._connection)

    def _end_send_queue(self) -> None:
        """Drop queued data and wake all senders: there is no other link."""
        if self.subscriptions is not None:
            self.subscriptions.remove_requests()
        self.close_state.unsent += self.send_queue.drop_data()
        self.send_queue.end()

    def _end(self, reason: Disconnect) -> None:
        self.close_state.cause = self.latest_end = reason
        self.close_state.final_error = self._link_source.final_error
        if isinstance(reason, HandshakeFailed):
            self.close_state.final_error = self.close_state.final_error or reason.error
        self._no_reconnect = True
        self._change(Trigger.END)
        self._unregister()
        self._end_send_queue()
        self.pings.fail_all()
        self.receive_queue.end()
        if self.requests is not None:
            self.requests.fail(reason, final=True)
        if self.subscriptions is not None:
            self.subscriptions.end()
        if self._reconnected is not None:
            self._reconnected.set()

    def _notify_finished(self, reason: Disconnect) -> None:
        """Emit ``Terminated`` and wake tasks waiting for the end, even if a listener raises."""
        try:
            self.emitter.terminated(reason)
        finally:
            self.opened.set()
            self.finished.set()
            # Without reference cycles, memory is freed as soon as the user drops the connection.
            del self._connection
            for part in (
                self.background,
                self.receive_queue,
                self.writer,
                self._results,
                self.actor,
            ):
                part.release_session()
            if self.subscriptions is not None:
                self.subscriptions.release_session()

    async def _terminate(self, reason: Disconnect) -> None:
        if not self.actor.has_state:
            return
        try:
            await self.actor.terminate(reason)
        except Exception as error:
            self._hook_failed(self.actor.terminate_hook.label, error, fatal=False)
            self.failures.append(error)
            self._cancel_body()

    def _change(self, trigger: Trigger) -> None:
        self.status = TRANSITIONS[self.status].get(trigger, self.status)

    # Counters.

    @property
    def link_age(self) -> float | None:
        """Seconds since the current link was opened, or None if there is none."""
        return None if self._link_tasks is None else trio.current_time() - self._link_tasks.began

    @property
    def counters(self) -> tuple[int, int, int]:
        """Bytes sent, bytes received and messages received, over all links."""
        if self._link_tasks is None:
            return self._earlier_counters
        sent, received, messages = self._earlier_counters
        more_sent, more_received, more_messages = self._link_tasks.counters
        return sent + more_sent, received + more_received, messages + more_messages
