"""The hooks between a connection and the state machine."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import trio

from ...connection import Connection
from ...connection.send_queue import SendQueue
from ...disconnect import Disconnect
from ...errors import ConnectionClosed, EncodeError, TrioglockError
from ...frames import Data
from ...hooks import ConnectionInfo, Reply, Socket
from ...routing import InvalidMessages
from .channel import ChannelQueue
from .errors import InvalidMessage, PushTimeout
from .machine import Machine
from .message import JOIN, LEAVE, PhoenixMessage, PushReply
from .serializer import Serializer
from .state import (
    ChannelEnded,
    ChannelInterrupted,
    ChannelJoined,
    ChannelPhase,
    DeliverMessage,
    Effect,
    GetPayload,
    ResolvePush,
    SendMessage,
)

__all__ = ["ChannelHooks", "PhoenixHooks"]

Request: TypeAlias = Callable[[], list[Effect]]
"""A call to the machine."""

RETRY_TICK = 0.01

# Scheduler rounds for which the reader runs before a deadline counts as passed. The reader may have
# been paused, and a task of another library may be between the socket and the reader.
GRACE_ROUNDS = 20

MAX_GRACE = 10.0
"""Maximum number of seconds by which a busy program delays its own deadlines."""


class PhoenixHooks(Socket[None]):
    """The base of the hooks of both interfaces: decodes messages and calls the machine's timers.

    Most deadlines are cancelled before they pass, and new ones are later than earlier ones. The
    task that waits for the next deadline is therefore rarely woken, and a push starts no timer.
    """

    connection: Connection[Any, Any]

    _own_codec = "use the serializer option"

    def __init__(self, machine: Machine, serializer: Serializer) -> None:
        self.machine: Machine = machine
        self.invalid: InvalidMessages = InvalidMessages()
        self._encode: Callable[[PhoenixMessage], Data] = serializer.encode
        self.decode: Callable[[Data], PhoenixMessage] = serializer.decode
        self._received = 0
        self._sleep = trio.CancelScope()

    def _attach(self, connection: Connection[Any, Any]) -> None:
        self.connection = connection
        connection.start_soon(self._run_timer)

    def encode(self, message: PhoenixMessage) -> Data:
        """Return the frame of a message.

        Raises:
            EncodeError, InvalidMessage: the message cannot be encoded.
        """
        try:
            frame = self._encode(message)
            if isinstance(frame, str):
                if not frame.isascii():
                    frame.encode()  # raises for lone surrogates
            elif not isinstance(frame, bytes | bytearray | memoryview):
                raise TypeError(f"encode() returned a {type(frame).__name__}, not str or bytes")
        except TrioglockError:
            raise
        except (TypeError, ValueError) as error:
            raise EncodeError(f"the serializer cannot encode the message: {error}") from error
        return frame

    def check(self, topic: str, event: str, payload: Any) -> None:
        """Check that a message can be encoded; raises what :meth:`encode` raises."""
        self.encode(PhoenixMessage("0", "0", topic, event, payload))

    def received(self, frame: Data) -> list[Effect]:
        """Decode a frame and pass it to the machine; an invalid one is counted and discarded."""
        self._received += 1
        try:
            message = self.decode(frame)
        except ValueError as error:
            self.invalid.note(error, frame)
            return []
        return self.machine.received(message, trio.current_time())

    @property
    def send_queue(self) -> SendQueue:
        """The send queue of the connection."""
        return self.connection._send_queue  # noqa: SLF001 - a layer of the same package

    def cast(self, message: Any) -> bool:
        """Queue a message for ``handle_cast``; return False if the connection has ended."""
        try:
            self.connection.cast(message)
        except ConnectionClosed:
            return False
        return True

    # Deadlines.

    async def _run_timer(self) -> None:
        while True:
            began = trio.current_time()
            with trio.CancelScope(deadline=self.machine.next_deadline) as self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            with trio.move_on_after(MAX_GRACE):
                await self._catch_up(now - max(began, self._sleep.deadline))
            await self._cast_and_wait(partial(self.machine.tick, now))

    async def _catch_up(self, late: float) -> None:
        """Handle messages that arrived in time, while the program or a callback was busy."""
        mailbox = self.connection._mailbox  # noqa: SLF001 - a layer of the same package
        busy = late > RETRY_TICK or mailbox.pending > 0
        if busy:
            await trio.sleep(late)
        while True:
            received = self._received
            for _ in range(GRACE_ROUNDS):
                await trio.lowlevel.checkpoint()
            if mailbox.pending:
                await self._cast_and_wait(list)
            elif not busy or received == self._received:
                return

    async def _cast_and_wait(self, request: Request) -> None:
        """Run a request in the mailbox, after all waiting jobs."""
        done = trio.Event()

        def run() -> list[Effect]:
            done.set()
            return request()

        while True:
            try:
                self.connection.cast(run)
            except trio.WouldBlock:
                await trio.sleep(RETRY_TICK)  # the mailbox is full
            except ConnectionClosed:
                await trio.sleep_forever()  # this task is about to be cancelled
            else:
                await done.wait()
                return

    def update_timer(self) -> None:
        """Wake up earlier if the machine has an earlier deadline."""
        due = self.machine.next_deadline
        if due < self._sleep.deadline:
            self._sleep.deadline = due


class _PushWaiter:
    """Waits for the outcome of a push; cheaper than a ``trio.Event``, and for one task only."""

    __slots__ = ("_task", "id", "outcome")

    def __init__(self) -> None:
        self.id: int = 0
        self.outcome: PushReply | Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def resolve(self, outcome: PushReply | Exception) -> None:
        self.outcome = outcome
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> PushReply:
        if self.outcome is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            await trio.lowlevel.checkpoint()
        outcome = self.outcome
        assert outcome is not None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class ChannelHooks(PhoenixHooks):
    """The hooks of :class:`PhoenixSocket`, and the requests of its channels."""

    def __init__(self, machine: Machine, serializer: Serializer) -> None:
        super().__init__(machine, serializer)
        self.queues: dict[int, ChannelQueue] = {}
        """The queues of channels that have not ended, by number."""
        self._waiters: dict[int, _PushWaiter] = {}
        self._payload_scopes: dict[int, trio.CancelScope] = {}
        """The running functions that return the payload of a join, by channel."""

    # Hooks.

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        return self._reply(self.machine.connect(trio.current_time())), state

    def handle_send(self, message: Request, state: None) -> tuple[Any, None]:
        frames = self._run(message())
        return (frames[0] if len(frames) == 1 else frames), state

    def handle_cast(self, message: Request, state: None) -> tuple[Any, None]:
        return self._reply(message()), state

    def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:
        effects = self.received(frame)
        if len(effects) == 1 and effects[0].__class__ is ResolvePush:
            # The most frequent message, a reply to a push, causes no frames and no deadline.
            self._resolve(effects[0])
            return None, state
        return self._reply(effects), state

    def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[None, None]:
        if self.machine.connected:
            self._run(self.machine.disconnect(reason))
            # Queued frames contain the join_refs of the lost connection.
            self.connection.discard_unsent()
        else:
            self._run(self.machine.connect_failed(reason))
        return None, state

    def terminate(self, reason: Disconnect, state: None) -> None:
        self._run(self.machine.close(reason))

    # Requests of channels.

    async def request(self, request: Request, deadline: float, late: type[Exception]) -> None:
        """Run a request now, or as soon as the send queue has space.

        A cancelled call, or one that raises ``late``, may have run the request nevertheless: the
        caller must then undo the request.

        Raises:
            late: the deadline passed first.
        """
        try:
            self.connection.send_nowait(request)
        except trio.WouldBlock:
            pass
        else:
            return
        with trio.CancelScope(deadline=deadline):
            await self.connection.send(request)
            return
        raise late("the send queue is full: the server has not read for too long")

    async def push(
        self,
        channel: int,
        topic: str,
        event: str,
        payload: Any,
        timeout: float,
        *,
        wants_reply: bool,
    ) -> PushReply:
        """Push an event and wait for its outcome; see :meth:`Channel.push`."""
        deadline = trio.current_time() + timeout
        waiter = _PushWaiter()

        def request() -> list[Effect]:
            if not self.is_joined(channel):
                # The push is encoded later, but this call must raise any errors.
                self.check(topic, event, payload)
            waiter.id, effects = self.machine.push(
                channel, event, payload, deadline, wants_reply=wants_reply
            )
            self._waiters[waiter.id] = waiter
            return effects

        try:
            await self.request(request, deadline, PushTimeout)
            return await waiter.wait()
        except BaseException:
            self.machine.withdraw(waiter.id)
            self._waiters.pop(waiter.id, None)
            raise

    async def leave(self, channel: int, topic: str, payload: Any, timeout: float) -> None:
        """Leave a channel and wait for the answer; see :meth:`Channel.leave`."""
        self.check(topic, LEAVE, payload)
        deadline = trio.current_time() + timeout
        waiter = _PushWaiter()

        def request() -> list[Effect]:
            if self.machine.phase(channel) is None:
                waiter.resolve(PushReply("ok", {}))
                return []
            waiter.id, effects = self.machine.leave(channel, deadline, payload)
            self._waiters[waiter.id] = waiter
            return effects

        try:
            await self.request(request, deadline, PushTimeout)
            await waiter.wait()
        except ConnectionClosed:
            return  # the end of the connection ends all channels
        except BaseException:
            self.abandon(channel, timeout)
            raise

    def abandon(self, channel: int, timeout: float) -> None:
        """Leave a channel now, without waiting; does nothing if the channel has ended."""
        if self.machine.phase(channel) is None:
            return
        for frame in self._run(self.machine.leave(channel, trio.current_time() + timeout)[1]):
            if not self.send_queue.closed:
                self.connection._writer.put(frame)  # noqa: SLF001 - a layer of the same package

    def is_joined(self, channel: int) -> bool:
        """Whether a channel is joined."""
        return self.machine.phase(channel) is ChannelPhase.JOINED

    def closed_error(self) -> ConnectionClosed | None:
        """Return the error for a connection that has ended, or None if it has not."""
        try:
            self.connection.receive_nowait()
        except trio.WouldBlock:
            return None
        except ConnectionClosed as error:
            return error
        raise AssertionError("these hooks deliver nothing")

    # Effects.

    def _reply(self, effects: Iterable[Effect]) -> Reply | None:
        frames = self._run(effects)
        return Reply(*frames) if frames else None

    def _run(self, effects: Iterable[Effect]) -> list[Data]:
        """Run effects; return the frames to send."""
        frames: list[Data] = []
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            match effect:
                case SendMessage(message, push):
                    self._encode_message(message, push, frames)
                case ResolvePush():
                    self._resolve(effect)
                case DeliverMessage(channel, message):
                    self._deliver(channel, message, queue)
                case GetPayload(channel, attempt):
                    queue.extendleft(reversed(self._get_payload(channel, attempt)))
                case ChannelJoined(channel, response):
                    self.queues[channel].on_joined(response)
                case ChannelInterrupted(channel, cause):
                    self._cancel_payload(channel)
                    self.queues[channel].on_interrupted(cause)
                case ChannelEnded(channel, cause):
                    self._cancel_payload(channel)
                    self.queues.pop(channel).on_ended(cause)
        self.update_timer()
        return frames

    def _resolve(self, effect: ResolvePush) -> None:
        waiter = self._waiters.pop(effect.push, None)
        if waiter is not None:
            waiter.resolve(effect.outcome)

    def _encode_message(
        self, message: PhoenixMessage, push: int | None, frames: list[Data]
    ) -> None:
        try:
            frames.append(self.encode(message))
        except (TypeError, ValueError) as error:
            if push is None:
                raise
            self.machine.withdraw(push)
            self._resolve(ResolvePush(push, error))

    def _deliver(self, channel: int, message: PhoenixMessage, queue: deque[Effect]) -> None:
        try:
            error = self.queues[channel].on_message(message, self.machine.join_ref(channel))
        except InvalidMessage as invalid:
            self.invalid.note(invalid, message)
            return
        if error is not None:
            queue.extend(self.machine.fail(channel, error))

    # Payloads of joins.

    def _get_payload(self, channel: int, attempt: int) -> list[Effect]:
        self._cancel_payload(channel)
        try:
            payload = self.queues[channel].get_payload()
            if inspect.isawaitable(payload):
                self._payload_scopes[channel] = scope = trio.CancelScope()
                self.connection.start_soon(self._await_payload, scope, channel, attempt, payload)
                return []
        except Exception as error:  # noqa: BLE001 - an error of the user's function
            return self._payload_failed(channel, attempt, error)
        return self._use_payload(channel, attempt, payload)

    def _payload_failed(self, channel: int, attempt: int, error: Exception) -> list[Effect]:
        return self.machine.payload_failed(channel, attempt, error, trio.current_time())

    async def _await_payload(
        self, scope: trio.CancelScope, channel: int, attempt: int, coming: Awaitable[Any]
    ) -> None:
        with scope:
            try:
                payload = await coming
            except Exception as error:  # noqa: BLE001 - an error of the user's function
                failure = error
                await self._cast_and_wait(lambda: self._payload_failed(channel, attempt, failure))
            else:
                await self._cast_and_wait(lambda: self._use_payload(channel, attempt, payload))
        if self._payload_scopes.get(channel) is scope:
            del self._payload_scopes[channel]

    def _cancel_payload(self, channel: int) -> None:
        """Cancel the function of an ended attempt, so that stuck tasks don't accumulate."""
        scope = self._payload_scopes.pop(channel, None)
        if scope is not None:
            scope.cancel()

    def _use_payload(self, channel: int, attempt: int, payload: Any) -> list[Effect]:
        if channel not in self.queues:
            return []  # the join was cancelled in the meantime
        try:
            payload = self.queues[channel].add_last_id({} if payload is None else payload)
            self.check("", JOIN, payload)
        except (TypeError, ValueError) as error:
            return self._payload_failed(channel, attempt, error)
        return self.machine.payload(channel, attempt, payload)
