"""The session: the tasks that bring a connection up, keep it going and take it down.

One session is one ``async with connect(...)``. Its main task asks its :class:`Route` for a link,
reads it to its end, lets ``handle_disconnect`` decide, and asks again or not; beside it run, for
each link, the writer task and the heartbeat, and for all links, if it is needed, the actor's.
Nothing in here raises into the nursery: what goes wrong is noted in :attr:`Session.failures`, and
what the peer says in :attr:`Session.ending`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

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
)
from ..errors import ConnectionClosed
from ..frames import Close, Violation
from ..hooks import ConnectionInfo, Reconnect, Socket, Stop
from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Handshake, Link
from ._sync import Latch
from .actor import Actor
from .background import Background
from .closing import TRANSITIONS, CloseState, Status
from .deadlines import Deadlines
from .hook_results import HookResults
from .link_tasks import LinkTasks
from .pings import Pings
from .receive_queue import ReceiveQueue
from .route import Route
from .send_queue import SendQueue

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Session"]

StateT = TypeVar("StateT")


class Session(Generic[StateT]):
    """One connection's life, over one link or several.

    Args:
        route: where links come from, and whether another one is wanted.
        flow: time-outs and limits.
        socket: the user's hooks.
        emitter: told every step.
    """

    __slots__ = (
        "_broken",
        "_deadlines",
        "_effects",
        "_ended_by",
        "_final",
        "_flow",
        "_handle",
        "_immediate",
        "_lasted",
        "_link_ended_by",
        "_past",
        "_pausing",
        "_reopened",
        "_route",
        "_span",
        "actor",
        "attempts",
        "background",
        "body",
        "emitter",
        "ending",
        "failures",
        "finished",
        "handshake",
        "latest_end",
        "open_error",
        "opened",
        "pings",
        "receive_queue",
        "send_queue",
        "status",
        "upgrades",
    )

    def __init__(
        self, route: Route, flow: FlowOptions, socket: Socket[StateT], emitter: EventEmitter
    ) -> None:
        self.emitter: EventEmitter = emitter
        self.status: Status = Status.CONNECTING
        self.handshake: Handshake | None = None
        self.ending: CloseState = CloseState()
        self.failures: list[BaseException] = []
        self.open_error: Exception | None = None
        self.opened: Latch = Latch()
        self.finished: Latch = Latch()
        self.body: trio.CancelScope = trio.CancelScope()
        self.attempts: int = 0
        self.upgrades: int = 0
        self.latest_end: Disconnect | None = None
        self.receive_queue: ReceiveQueue = ReceiveQueue(
            flow.max_queue, flow.overflow, self._overflowed, emitter
        )
        self.send_queue: SendQueue = SendQueue(flow.write_limit)
        self.pings: Pings = Pings()
        self.background: Background = Background(self.crash, self.closed_error)
        self._effects = HookResults(self.receive_queue, self.send_queue, self.close, emitter)
        self.actor: Actor[StateT] = Actor(
            socket,
            self._effects,
            failed=self._hook_failed,
            closed_error=self.closed_error,
            spawn=self.background.start,
        )
        self._flow = flow
        self._route = route
        self._handle: Connection[StateT]
        self._span: LinkTasks | None = None
        self._past = (0, 0, 0)
        self._lasted = 0.0
        self._deadlines = Deadlines(flow.close_timeout)
        # Why the connection ends, once it is decided that it does; and why this link did.
        self._ended_by: Disconnect | None = None
        self._link_ended_by: Disconnect | None = None
        self._broken: BaseException | None = None
        self._final = False
        # Of reconnect(): who waits for the new link, and whether an attempt is owed at once.
        self._reopened: trio.Event | None = None
        self._immediate = False
        self._pausing = False

    # The main task.

    async def run(self, handle: Connection[StateT], nursery: trio.Nursery) -> None:
        """Live from the first attempt to ``terminate``.

        Args:
            handle: the connection, for its hooks.
            nursery: for the connection's tasks.
        """
        self._handle = handle
        self.background.nursery = nursery
        reason: Disconnect = Aborted()
        try:
            try:
                self.actor.attach(handle)
                reason = await self._live()
            finally:
                self.background.close()
                self.actor.stop()
                with trio.CancelScope(shield=True):
                    await self.background.end()
        finally:
            reason = self._ended_by or reason
            self._finish(reason)
            try:
                with trio.CancelScope(shield=True, deadline=self._deadlines.closing()):
                    await self._terminate(reason)
            finally:
                self._over(reason)

    async def _live(self) -> Disconnect:
        """One link after the other, until nothing wants another; why the last one ended."""
        while True:
            reason = await self._one_link()
            delay = await self._decide(reason)
            if delay is None or self._final:
                if not self.upgrades and isinstance(reason, HandshakeFailed):
                    self.open_error = self._route.gave_up or reason.error
                return reason
            self._become(Status.RECONNECTING)
            self.send_queue.reopen()
            self._pausing = True
            with self._deadlines.new_link():
                # In the scope: a listener may close or abort.
                self.emitter.reconnect_scheduled(self.attempts + 1, delay)
                await trio.sleep(delay)
            self._pausing = False
            if self._final:
                return reason

    async def _one_link(self) -> Disconnect:
        """From dialling to the link's end; why it ended."""
        self.attempts += 1
        self._link_ended_by = self._broken = None
        self._lasted = 0.0
        link = None
        try:
            with self._deadlines.new_link() as scope:
                began = trio.current_time()
                link = await self._open()
                if link is not None:
                    # Here, not in a coroutine of its own: thousands of links wait in it.
                    span = self._begin(link)
                    try:
                        self._greet(link.handshake, span.began - began)
                        await span.run()
                    finally:
                        self._end(span)
                        with trio.CancelScope(shield=True):
                            await link.aclose()
        except BaseException:
            # The whole is cancelled, or interrupted: that is the end of this link as well.
            self._ended_by = self._ended_by or Aborted(attempt=self.attempts)
            if link is not None:
                self.emitter.disconnected(self._ended_by, self._lasted, forced=False)
            raise
        reason = self._why()
        self._settle(reason)
        if link is not None:
            late = scope.cancelled_caught and trio.current_time() >= scope.deadline
            forced = late or isinstance(reason, HeartbeatTimeout)
            self.emitter.disconnected(reason, self._lasted, forced=forced)
        return reason

    def _settle(self, reason: Disconnect) -> None:
        """A link, or an attempt, has ended: tell those who cannot wait for another one."""
        self.ending.cause = self.latest_end = reason
        self.pings.lose()
        if self._goes_on(reason):
            self._become(Status.RECONNECTING)
            return
        if self._undecided:
            self._become(Status.DECIDING)
            self.send_queue.refuse()
        else:
            self._become(Status.CLOSED)
            self._end_outbox()
        if isinstance(reason, HeartbeatTimeout):
            # Nobody waits for a dead peer, not even behind a hook that does.
            self.actor.mailbox.fail_answers()

    async def _open(self) -> Link | None:
        assert self.background.nursery is not None
        began = trio.current_time()
        self.emitter.connect_started(self.attempts)
        try:
            return await self._route.open(self.background.nursery)
        except Exception as error:
            self._link_ended_by = HandshakeFailed(error=error, attempt=self.attempts)
            self.emitter.connect_failed(self.attempts, error, trio.current_time() - began)
            return None

    def _begin(self, link: Link) -> LinkTasks:
        """A link is up: let its tasks run."""
        self.ending = CloseState()
        self.handshake = link.handshake
        self.upgrades += 1
        self._become(Status.OPEN)
        self.receive_queue.close_gates()
        self._span = LinkTasks(
            self,
            link,
            self.actor,
            self._effects,
            self.send_queue,
            self.pings,
            self._flow,
            self._deadlines,
            self.emitter,
            self.background.spawn,
        )
        return self._span

    def _end(self, span: LinkTasks) -> None:
        """The link's tasks have ended."""
        self._broken = span.broken
        # Settled before anyone who waits is woken.
        self._settle(self._why())
        self.send_queue.detach()
        self._lasted = trio.current_time() - span.began
        self._past = self.figures
        self._span = None

    def _greet(self, handshake: Handshake, seconds: float) -> None:
        """Tell of the link, which took so long, and run the hooks that come before any frame."""
        self.emitter.connected(
            self.attempts,
            self.upgrades,
            seconds,
            url=handshake.url,
            peer=handshake.peer,
            subprotocol=handshake.subprotocol,
        )
        stream = ConnectionInfo(
            url=handshake.url,
            subprotocol=handshake.subprotocol,
            request_headers=handshake.request_headers,
            response_headers=handshake.response_headers,
            peer=handshake.peer,
            attempt=self.upgrades,
            connection=self._handle,
        )
        self.actor.connected(stream, self._greeted, self._is_current)

    def _is_current(self, stream: ConnectionInfo) -> bool:
        return stream.attempt == self.upgrades and self._span is not None

    def _greeted(self, stream: ConnectionInfo) -> None:
        """``handle_connect`` has returned: what waited for this link may go."""
        if self._is_current(stream):
            self.send_queue.release()
        self.opened.set()
        if self._reopened is not None and self._is_current(stream) and not self._immediate:
            self._reopened.set()
            self._reopened = None

    # What comes after a link.

    async def _decide(self, reason: Disconnect) -> float | None:
        """Let ``handle_disconnect`` and the policy decide; seconds to wait, or None to end."""
        decision: Reconnect | Stop | None = None
        with self._deadlines.new_hooks(caught_up=not self.actor.mailbox.pending):
            try:
                decision = await self.actor.disconnected(reason)
                if not self._final:
                    return self._next_delay(reason, decision)
            except Exception as error:
                # Unless the hooks were stopped meanwhile: then nothing is left to decide.
                if not (isinstance(error, ConnectionClosed) and error.origin is self):
                    self.crash(error)
        return None

    def _next_delay(self, reason: Disconnect, decision: Reconnect | Stop | None) -> float | None:
        immediate, self._immediate = self._immediate, False
        return self._route.next_delay(reason, decision, self._lasted, immediate=immediate)

    def _goes_on(self, reason: Disconnect) -> bool:
        """Whether another link is to be expected: then messages still queue."""
        if self._final:
            return False
        try:
            return self._immediate or self._route.retries(reason)
        except Exception as error:
            self.crash(error)
            return False

    @property
    def _undecided(self) -> bool:
        """Whether a hook of the user's may want another link all the same."""
        return not (self._final or self.actor.disconnect.is_default)

    def _why(self) -> Disconnect:
        if self._ended_by is not None:
            return self._ended_by
        if self._link_ended_by is not None:
            return self._link_ended_by
        sent = self.ending.sent
        if sent is not None:
            clean = self.ending.received is not None
            return LocalClose(
                code=sent.code, reason=sent.reason, clean=clean, attempt=self.attempts
            )
        return ConnectionLost(error=self._broken, attempt=self.attempts)

    def _blame(self, reason: Disconnect) -> None:
        self._link_ended_by = self._link_ended_by or reason

    # Ends, told by the peer.

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close this link."""
        return self.status is Status.OPEN

    @property
    def has_peer_closed(self) -> bool:
        """Whether the peer's Close frame has come."""
        return self.ending.received is not None

    def closed_by_peer(self, frame: Close) -> None:
        """The peer's Close frame has come: confirm it, unless it confirms ours."""
        self.ending.received = frame
        if self.ending.sent is None:
            reason = RemoteClose(code=frame.code, reason=frame.reason, attempt=self.attempts)
            self._end_link(frame, reason)
        elif not self.send_queue.close_waits:
            self._deadlines.linger()

    def violated(self, violation: Violation) -> None:
        """The peer broke the protocol; nothing it says after that counts."""
        if self.ending.sent is not None:
            self._deadlines.link.cancel()
            return
        code, words = violation.code, violation.reason
        reason = ProtocolViolation(code=code, reason=words, attempt=self.attempts)
        self._end_link(Close(code, words[:120]), reason, heard=True)

    def write_broke(self) -> bool:
        """The stream takes nothing more; whether another link is to be expected."""
        goes_on = self._goes_on(ConnectionLost(attempt=self.attempts))
        if not goes_on:
            self.send_queue.refuse()
        return goes_on

    def expired(self, timeout: HeartbeatTimeout) -> None:
        """The peer must be taken for dead: nothing is to be waited for."""
        self._blame(replace(timeout, attempt=self.attempts))
        self._deadlines.link.cancel()
        self.emitter.heartbeat_missed(timeout)

    def _end_link(self, frame: Close, reason: Disconnect, *, heard: bool = False) -> None:
        """Send Close; what is queued waits for another link, or is lost.

        Args:
            frame: to be sent.
            reason: why.
            heard: the peer still takes what was queued before.
        """
        self._blame(reason)
        goes_on = self._goes_on(reason)
        if self.status is not Status.OPEN:
            return  # the policy has raised, or has closed it itself
        self.ending.sent = frame
        self._become(Status.RECONNECTING if goes_on else Status.CLOSING)
        # All is decided: a listener that closes or aborts now cannot decide otherwise.
        self.emitter.close_started("remote" if self.has_peer_closed else "local", frame)
        last_words = heard and not goes_on
        if not (last_words or goes_on or self._undecided):
            self.ending.unsent = self.send_queue.drop_data()
        self.send_queue.close(frame, first=not last_words, last=not goes_on)
        self._deadlines.limit_link()
        self._open_gates()

    # Ends, by ourselves.

    def _overflowed(self) -> None:
        self.close(Close(1008, "the receive queue overflowed"))

    def close(self, frame: Close) -> None:
        """End the connection with the closing handshake; the first one to do so wins."""
        if self._final:
            return
        self._final = True
        if self.status in (Status.CLOSING, Status.DECIDING, Status.CLOSED):
            # The link ends, or has ended, by itself; now no hook can want another one.
            return
        if self.status is not Status.OPEN:
            # There is no link to close, or it is closing already.
            self._ended_by = LocalClose(
                code=frame.code, reason=frame.reason, clean=False, attempt=self.attempts
            )
            self._end_outbox()
            self._deadlines.link.cancel()
            self.emitter.close_started("local", frame)
            return
        self._become(Status.CLOSING)
        self.ending.sent = frame
        self.emitter.close_started("local", frame)
        self.send_queue.close(frame)
        self._deadlines.limit_link()
        self._open_gates()

    async def aclose(self, frame: Close) -> None:
        """Close, and wait for the end; hooks and socket share one deadline."""
        self.close(frame)
        self._deadlines.limit_hooks()
        await self.finished.wait()

    async def reconnect(self) -> None:
        """Leave the present link for another one; returns once that is open."""
        if self._final or self.status in (Status.CLOSING, Status.DECIDING, Status.CLOSED):
            raise self.closed_error()
        if self._reopened is None:
            self._reopened = trio.Event()
            if self.status is Status.OPEN:
                self._immediate = True
                self._become(Status.RECONNECTING)
                self.ending.sent = Close(1000)
                self.emitter.close_started("local", self.ending.sent)
                self.send_queue.close(self.ending.sent, first=True, last=False)
                self._deadlines.limit_link()
                self._open_gates()
            elif self._pausing:
                self._deadlines.link.cancel()
        reopened = self._reopened
        await reopened.wait()
        if self._final:
            raise self.closed_error()

    def abort(self) -> None:
        """Drop everything on the spot."""
        if self.status is Status.CLOSED:
            return
        self._ended_by = self._ended_by or Aborted(attempt=self.attempts)
        self._final = True
        self.send_queue.refuse()
        self.actor.stop()
        self._deadlines.cancel()

    def crash(self, error: BaseException) -> None:
        """A hook or a background task raised: tell the peer, cancel the body, end."""
        self._hook_failed("", error, fatal=True)

    def _hook_failed(self, hook: str, error: BaseException, fatal: bool) -> None:
        try:
            self.emitter.hook_failed(hook, error, fatal=fatal)
        finally:
            if fatal:
                self._crash(error)

    def _crash(self, error: BaseException) -> None:
        self.failures.append(error)
        self._ended_by = self._ended_by or HookError(error=error, attempt=self.attempts)
        self._final = True
        if self.status is Status.OPEN:
            self._end_link(Close(1011, "internal error"), self._ended_by)
        elif self._span is None:
            self._deadlines.link.cancel()
        self.send_queue.refuse()
        self.actor.stop()
        self._deadlines.limit_hooks()
        self.body.cancel()

    def _open_gates(self) -> None:
        self.receive_queue.open_gates()
        self.send_queue.open_gates()
        self.actor.open_gates()

    def _end_outbox(self) -> None:
        """No link will come: senders learn it at once, receivers when the hooks are through."""
        self.ending.unsent += self.send_queue.drop_data()
        self.send_queue.end()

    def _finish(self, reason: Disconnect) -> None:
        self.ending.cause = self.latest_end = reason
        self.ending.gave_up = self._route.gave_up
        self._final = True
        self._become(Status.CLOSED)
        self._end_outbox()
        self.pings.lose()
        self.receive_queue.end()
        if self._reopened is not None:
            self._reopened.set()

    def _over(self, reason: Disconnect) -> None:
        """Nothing follows; whoever waits for that is told, whatever a listener raises."""
        try:
            self.emitter.terminated(reason)
        finally:
            self.opened.set()
            self.finished.set()

    async def _terminate(self, reason: Disconnect) -> None:
        if not self.actor.has_state:
            return
        try:
            await self.actor.terminate(reason)
        except Exception as error:
            self._hook_failed(self.actor.terminate_hook.label, error, fatal=False)
            self.failures.append(error)
            self.body.cancel()

    def closed_error(self) -> ConnectionClosed:
        """A new exception for callers that come too late."""
        self.ending.in_doubt = self.send_queue.in_doubt
        error = self.ending.error()
        error.origin = self
        return error

    def _become(self, status: Status) -> None:
        assert status is self.status or status in TRANSITIONS[self.status]
        self.status = status

    # Figures.

    @property
    def link_age(self) -> float | None:
        """Seconds that the present link has been up; None if there is none."""
        return None if self._span is None else trio.current_time() - self._span.began

    @property
    def figures(self) -> tuple[int, int, int]:
        """Bytes sent and received on the wire, and messages received, over all links."""
        if self._span is None:
            return self._past
        sent, received, messages = self._past
        more_sent, more_received, more_messages = self._span.figures
        return sent + more_sent, received + more_received, messages + more_messages
