"""One link of a connection: passes received frames to the hooks, and detects how the link ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import trio

from .._timer import GRACE_ROUNDS
from ..disconnect import ConnectionLost, HeartbeatTimeout, Stalled
from ..errors import DecodeError
from ..frames import Close, Codec, Data, Event, Fragment, Ping, Pong, Violation
from ..options import FlowOptions, ServerFlowOptions, StallTimeout
from ..telemetry import EventEmitter, Queue
from ..transports import Link, LinkBroken
from .actor import Actor
from .closing import Deadlines
from .decoding import MALFORMED, InvalidMessages, malformed
from .fragments.queue import FragmentQueue
from .hooks import HookResults
from .liveness.heartbeat import LinkHeartbeat, Pings, ReadPause
from .liveness.stalls import StallWatch
from .rates.rate_limit import RateLimiter
from .receive_queue import ReceiveQueue
from .requests import Requests
from .send_queue import SendQueue
from .subscriptions.driver import SubscriptionDriver
from .writer import Writer

__all__ = ["LinkEnd", "LinkTasks"]

PATIENCE = 5
"""Seconds for which a full receive queue may delay subscriptions before a warning is logged."""

LinkEnd: TypeAlias = Close | Violation | ConnectionLost | HeartbeatTimeout | Stalled
"""How a link ended: the peer's Close frame, its protocol violation, a broken or ended stream, a
dead peer that the heartbeat detected, or a peer that sent no data."""


class LinkTasks:
    """Reads from one link in the session's task and runs the link's heartbeat and stall timeout.

    The writer outlives the link.

    Args:
        link: the open link.
        actor: receives the messages.
        results: applies the results of hooks.
        send_queue: the frames to send.
        writer: writes the frames.
        pings: the pings without a pong.
        flow: timeouts and limits.
        deadlines: the deadlines of the close; :attr:`Deadlines.link` is the scope of the link.
        emitter: emits an event for each frame and each pause.
        invalid: counts the messages that the codec cannot decode; None without a codec.
        requests: the requests that are waiting for a reply; None without a codec.
        subscriptions: receives the messages of subscriptions.
    """

    __slots__ = (
        "_actor",
        "_codec",
        "_deadlines",
        "_emitter",
        "_heartbeat",
        "_invalid",
        "_is_answer",
        "_limiter",
        "_link",
        "_max_backlog",
        "_pings",
        "_read_pause",
        "_receive_queue",
        "_requests",
        "_results",
        "_send_queue",
        "_stalls",
        "_subscriptions",
        "_writer",
        "began",
        "end",
        "messages",
        "reconnects",
        "write_error",
    )

    def __init__(
        self,
        link: Link,
        actor: Actor[Any],
        results: HookResults,
        send_queue: SendQueue,
        writer: Writer,
        pings: Pings,
        flow: FlowOptions,
        deadlines: Deadlines,
        emitter: EventEmitter,
        invalid: InvalidMessages | None,
        requests: Requests | None,
        subscriptions: SubscriptionDriver | None = None,
    ) -> None:
        self.began: float = trio.current_time()
        self.end: LinkEnd | None = None
        """How the link ended; None while it is open, and if it was cancelled."""
        self.reconnects: bool = False
        """Whether another link is expected after a failed write."""
        self.write_error: BaseException | None = None
        """The error of a failed write."""
        self.messages: int = 0
        """The number of data messages read."""
        self._link = link
        self._actor = actor
        self._results = results
        self._receive_queue: ReceiveQueue = results.receive_queue
        self._send_queue = send_queue
        self._writer = writer
        self._pings = pings
        self._deadlines = deadlines
        self._emitter = emitter
        self._subscriptions = subscriptions
        self._max_backlog = math.inf if flow.max_queue is None else flow.max_queue
        self._is_answer = None if flow.heartbeat is None else flow.heartbeat.is_answer
        self._codec = flow.codec
        self._invalid = invalid
        self._requests = requests
        self._limiter: RateLimiter | None = None
        if isinstance(flow, ServerFlowOptions) and flow.limits_rates:
            self._limiter = RateLimiter(flow.message_rate, flow.byte_rate)
            link.report_all()
        self._read_pause = ReadPause()
        self._heartbeat = LinkHeartbeat(
            link, self._read_pause, pings, send_queue, writer, flow, self._time_out, actor.fail
        )
        self._stalls: StallWatch | None = None
        stall = flow.stall_timeout
        if stall is not None:
            timeout = stall if isinstance(stall, StallTimeout) else StallTimeout(stall)
            self._stalls = StallWatch(
                link, self._read_pause, send_queue, timeout, self._stall, actor.fail
            )

    @property
    def counters(self) -> tuple[int, int, int]:
        """Bytes sent, bytes received and messages received."""
        return self._link.bytes_sent, self._link.bytes_received, self.messages

    # The lifecycle of the link.

    async def respond(self, timeout: float | None) -> None:
        """Write the response to the opening handshake, within ``timeout`` seconds."""
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                await self._link.respond()
        except (LinkBroken, trio.TooSlowError) as error:
            self._set_end(ConnectionLost(error=error.__cause__ or error))

    async def run(self) -> LinkEnd:
        """Read until the link ends; return how it ended. Nothing is read after a Close frame."""
        self._heartbeat.start()
        if self._stalls is not None:
            self._stalls.start()
        feed = self._link.feed if self._limiter is None else self._feed_limited
        try:
            while self.end is None:
                if not await feed(self._handle):
                    self._set_end(ConnectionLost(error=self.write_error))
                elif self.end is None:
                    await self._pause()
        except LinkBroken as broken:
            self._set_end(ConnectionLost(error=broken.__cause__ or broken))
        assert self.end is not None
        if self.end.__class__ is Violation:
            # The application first answers the messages that preceded the violation. Its task may
            # run after the current task in a round of the scheduler.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        return self.end

    async def drain(self) -> None:
        """Wait until the peer ends the stream, after a Close frame or a violation."""
        feed = self._link.feed if self._limiter is None else self._feed_limited
        try:
            while await feed(_ignore):
                pass
        except LinkBroken:
            return
        if self.write_error is None and self.end.__class__ is Close:
            # A peer that has ended its sending side may still read our Close frame.
            await self._send_queue.wait_close_written()

    async def stop(self) -> None:
        """Stop the heartbeat, the stall timeout and the writer's task."""
        self._heartbeat.stop()
        del self._heartbeat  # it refers to this object
        if self._stalls is not None:
            self._stalls.stop()
            self._stalls = None
        with trio.CancelScope(shield=True):
            if isinstance(self.end, Stalled):
                # The writer's task may have to write the Close frame, whose answer is not awaited.
                for _ in range(GRACE_ROUNDS):
                    await trio.lowlevel.checkpoint()
            await self._writer.stop()

    def _set_end(self, end: LinkEnd) -> None:
        if self.end is None:
            self.end = end

    def _time_out(self, timeout: HeartbeatTimeout) -> None:
        """Drop the link of a dead peer."""
        self._set_end(timeout)
        self._deadlines.link.cancel()
        self._emitter.heartbeat_missed(timeout)

    def _stall(self, stalled: Stalled) -> None:
        """Drop the link of a peer that sends no data.

        The peer may be alive, so it receives a Close frame. After 1000 or 1001, services that let
        clients resume would end the session.
        """
        self._set_end(stalled)
        self._deadlines.link.cancel()
        self._emitter.stall_detected(stalled)
        if not self._send_queue.closing:
            self._writer.allow_immediate()
            self._writer.put_close(Close(1011, f"no data for {stalled.seconds:g} s"), first=True)

    def write_failed(self, error: BaseException, *, reconnects: bool) -> None:
        """Handle a broken stream. Data that the peer sent earlier is still read.

        Args:
            error: the error.
            reconnects: whether another link is expected.
        """
        self.write_error = error
        self.reconnects = reconnects
        if reconnects or not self._read_pause.paused:
            self._deadlines.limit_link()

    def release_reader(self) -> None:
        """Let the reader task continue despite the limits on rates: the link is closing.

        A peer that is being closed because it has exceeded them remains limited.
        """
        if self._limiter is not None and self.end is None:
            self._limiter.stop()

    # Reading.

    def _handle(self, events: list[Event]) -> bool:
        """Handle the events of one chunk; return whether reading continues immediately."""
        writer, send_queue = self._writer, self._send_queue
        run = events[0]
        if len(events) == 1 and run.__class__ is list and len(run) == 1 and not self._link.defers:
            # One message, whose reply need not be collected with others.
            writer.allow_immediate()
            self._handle_messages(run)
            writer.allow_immediate()
        else:
            writer.cork()
            for event in events:
                if event.__class__ is list:
                    self._handle_messages(event)
                else:
                    self._handle_control(event)  # type: ignore[arg-type]  # not a run
            defers = self._link.defers
            if defers and send_queue.has_work and not send_queue.full:
                self._link.defer(writer.uncork)
            else:
                writer.uncork(immediate=not defers)
        if self._results.replied or self.end is not None or self._subscriptions is not None:
            return self.end is None and not self._must_wait()
        return (
            len(self._receive_queue.items) < self._receive_queue.pause_at
            and self._actor.backlog < self._max_backlog
        ) or not self._must_wait()

    def _handle_messages(self, run: list[Any]) -> None:
        if self._emitter.emits_frames:
            self._emitter.frames_received(run)
        self.messages += len(run)
        if self._is_answer is not None:
            run = self._remove_answers(run, self._is_answer)
        if self._stalls is not None and run:
            self._stalls.data_received()
        if self._codec is not None:
            self._decode(self._codec, run)
        else:
            self._receive(run)

    def _receive(self, run: list[Any]) -> None:
        if self._subscriptions is not None:
            run = self._subscriptions.receive(run)
        if self._send_queue.closing and self._hooks_behind():
            self._receive_queue.drop(run)
        else:
            self._actor.receive(run)

    def _decode(self, codec: Codec[Any], run: list[Any]) -> None:
        """Decode a run, and receive its messages in order."""
        requests = self._requests
        messages: list[Any] = []
        for frame in run:
            try:
                message = codec.decode(frame)
            except Exception as error:
                if messages:
                    self._receive(messages)
                    messages = []
                if not isinstance(error, MALFORMED):
                    self._actor.fail(error)
                    return
                self._handle_invalid(malformed(error), frame)
                continue
            if requests is None or not (requests.pending and requests.take_reply(message)):
                messages.append(message)
        if messages:
            self._receive(messages)

    def _handle_invalid(self, error: DecodeError, frame: Data) -> None:
        assert self._invalid is not None
        hook = self._actor.invalid_hook
        self._invalid.note(error, frame, log=hook.is_default)
        if not hook.is_default:
            self._actor.receive_invalid(error, frame)

    def _remove_answers(self, run: list[Any], is_answer: Callable[[Data], bool]) -> list[Any]:
        """Remove the answers to heartbeat messages."""
        try:
            answers = [is_answer(message) for message in run]
        except Exception as error:
            self._actor.fail(error)
            return []
        if any(answers):
            self._pings.message_answered()
        return [message for message, answer in zip(run, answers, strict=True) if not answer]

    def _handle_control(self, event: Ping | Pong | Close | Violation | Fragment) -> None:
        if self._emitter.emits_frames and not isinstance(event, Violation):
            self._emitter.frames_received([event])
        match event:
            case Ping(payload):
                pong = Pong(payload)
                if self._emitter.emits_frames:
                    self._emitter.hook_replied(self._actor.ping.name, [pong])
                self._writer.put_pong(pong)
                self._actor.handle_control(self._actor.ping, payload)
            case Pong(payload):
                self._pings.pong_received(payload)
                self._actor.handle_control(self._actor.pong, payload)
            case Close() | Violation():
                self._set_end(event)
            case Fragment():
                assert isinstance(self._receive_queue, FragmentQueue)
                if self._stalls is not None:
                    self._stalls.data_received()
                self.messages += event.final
                self._receive_queue.add_fragment(event)

    # Limits.

    @property
    def _is_broken(self) -> bool:
        return self.write_error is not None and not self.reconnects

    def _lift_deadline(self) -> None:
        """Report the end of a broken stream after the waiting messages have been received."""
        if self._is_broken:
            self._deadlines.lift_link()

    async def _feed_limited(self, handle: Callable[[list[Event]], bool]) -> bool:
        """Like :meth:`Link.feed`, but no faster than the limiter allows."""
        limiter, link = self._limiter, self._link
        assert limiter is not None
        continues = True

        def pass_on() -> bool:
            events = limiter.take(trio.current_time())
            return not events or handle(events)

        def receive(events: list[Event]) -> bool:
            nonlocal continues
            limiter.receive(events, link.bytes_received, trio.current_time())
            continues = pass_on()
            return continues and limiter.delay(trio.current_time()) is None

        while True:
            while (delay := limiter.delay(trio.current_time())) is not None:
                if self.end is None and limiter.is_exhausted(trio.current_time()):
                    self._set_end(Violation(1008, "too many messages or bytes"))
                    return True
                await self._slow_down(limiter, delay)
                if not pass_on():
                    return True
            if not await link.feed(receive):
                return False
            if not continues:
                return True

    async def _slow_down(self, limiter: RateLimiter, delay: float) -> None:
        """Pause reading, regardless of the space in queues."""
        if not self._send_queue.closing:
            self._lift_deadline()
        with self._read_pause, self._emitter.waiting("reader", "rate_limit"):
            await limiter.wait(delay)
        if self._is_broken:
            self._deadlines.limit_link()

    # Backpressure.

    def _must_wait(self) -> bool:
        """Whether reading must pause: for space in a queue, or for the hooks."""
        send_queue, results = self._send_queue, self._results
        if send_queue.closing:
            return False
        # A full send queue pauses the reader only if hooks have replied. If the application's own
        # sends also paused it, two peers that both send a lot would deadlock.
        results.replied = results.replied and send_queue.is_large and not send_queue.link_lost
        return (
            self._receive_queue.full
            or results.replied
            or self._hooks_behind()
            or self._full_consumer() is not None
        )

    def _hooks_behind(self) -> bool:
        return self._actor.backlog >= self._max_backlog

    def _full_consumer(self) -> ReceiveQueue | None:
        """Return the queue of a subscription that stops the reader."""
        return None if self._subscriptions is None else self._subscriptions.full_queue

    async def _pause(self) -> None:
        """Pause reading until there is space; TCP flow control then slows down the peer."""
        if not self._must_wait():
            return
        queue: Queue = "send_queue"
        if self._receive_queue.full or self._full_consumer() is not None:
            queue = "receive_queue"
        elif self._hooks_behind():
            queue = "mailbox"
        self._lift_deadline()
        with self._read_pause, self._emitter.waiting("reader", queue):
            while self._must_wait():
                if self._receive_queue.full:
                    await self._wait_received()
                elif self._hooks_behind():
                    await self._actor.wait_backlog()
                elif (full := self._full_consumer()) is not None:
                    await full.wait_space()
                else:
                    await self._send_queue.wait_space()
        if self._is_broken:
            self._deadlines.limit_link()

    async def _wait_received(self) -> None:
        """Wait for space in the receive queue; the caller then checks again."""
        if self._subscriptions is None:
            await self._receive_queue.wait_space()
            return
        with trio.move_on_after(PATIENCE) as scope:
            await self._receive_queue.wait_space()
        if scope.cancelled_caught:
            self._emitter.updates_delayed(self._receive_queue.items)


def _ignore(events: list[Event]) -> bool:  # noqa: ARG001 - the handler of feed()
    return True
