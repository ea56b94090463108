"""The hooks between a connection and the state machine: frames in, effects carried out."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

import trio

from ...connection import Connection
from ...disconnect import Disconnect
from ...errors import ConnectionClosed
from ...frames import Data
from ...hooks import ConnectionInfo, Reply, Socket
from ...routing import InvalidMessages
from .alarm import Alarm, Request
from .effects import AskPayload, Deliver, Effect, Ended, Interrupted, Joined, Resolve, Send
from .errors import InvalidMessage
from .machine import Machine
from .message import JOIN, Message, PushReply
from .serializer import Serializer

__all__ = ["Member", "Waiter", "Wire"]


class Member(Protocol):
    """A channel, as the wire knows it."""

    def ask_payload(self) -> Any:
        """The payload of its next join, or an awaitable of it."""

    def on_joined(self, response: Any) -> None:
        """The server has let it in."""

    def on_interrupted(self, cause: Exception) -> None:
        """It is not joined for the time being."""

    def on_ended(self, cause: Exception | None) -> None:
        """It is over."""

    def on_message(self, message: Message, join_ref: str | None) -> Exception | None:
        """A message came; an error if the channel cannot go on."""


class Waiter:
    """Waits for the one outcome of a push; one task, without the cost of a trio.Event."""

    __slots__ = ("_task", "id", "outcome")

    def __init__(self) -> None:
        self.id: int = 0
        """Of the push."""
        self.outcome: PushReply | Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def resolve(self, outcome: PushReply | Exception) -> None:
        """It has come."""
        self.outcome = outcome
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> PushReply:
        """Wait for it; raises it if it is an error."""
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


class Wire(Socket[None]):
    """Hooks that ask the machine and do what it says.

    Args:
        machine: decides.
        serializer: for every frame.
    """

    def __init__(self, machine: Machine, serializer: Serializer) -> None:
        self.machine: Machine = machine
        self.members: dict[int, Member] = {}
        self.waiters: dict[int, Waiter] = {}
        self.invalid: InvalidMessages = InvalidMessages()
        self._encode = serializer.encode
        self._decode = serializer.decode
        self._handle: Connection[Any]
        self._asking: dict[int, trio.CancelScope] = {}
        """By channel, what waits for the payload of a join."""
        self._alarm = Alarm(machine, self.cast)

    # Hooks.

    def init_stream(self, info: ConnectionInfo) -> None:
        """Start the clock."""
        self._handle = info.connection
        info.connection.start_soon(self._alarm.run)

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        """Join what is to be joined."""
        return self._reply(self.machine.connect(trio.current_time())), state

    def handle_send(self, message: Request, state: None) -> tuple[Any, None]:
        """Carry out what a user's call asks for."""
        frames = self._carry_out(message())
        return (frames[0] if len(frames) == 1 else frames), state

    def handle_cast(self, message: Request, state: None) -> tuple[Any, None]:
        """Carry out what cannot wait for room."""
        return self._reply(message()), state

    def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:
        """Give a message to the machine."""
        try:
            message = self._decode(frame)
        except ValueError as error:
            self.invalid.note(error, frame)
            return None, state
        effects = self.machine.received(message, trio.current_time())
        if len(effects) == 1 and effects[0].__class__ is Resolve:
            # A reply to a push, the commonest of all, brings no deadline and nothing to send.
            self._resolve(effects[0])
            return None, state
        return self._reply(effects), state

    def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[None, None]:
        """Tell what was under way that it will not be answered."""
        if self.machine.connected:
            self._carry_out(self.machine.disconnect())
            # What is queued belongs to joins of a connection that is gone.
            self._handle.discard_unsent()
        return None, state

    def terminate(self, reason: Disconnect, state: None) -> None:
        """End everything."""
        self._carry_out(self.machine.close())

    # Effects.

    def _reply(self, effects: Iterable[Effect]) -> Reply | None:
        frames = self._carry_out(effects)
        return Reply(*frames) if frames else None

    def _carry_out(self, effects: Iterable[Effect]) -> list[Data]:
        """Do what is asked for; what is left is to be sent."""
        frames: list[Data] = []
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            match effect:
                case Send(message, push):
                    self._frame(message, push, frames)
                case Resolve():
                    self._resolve(effect)
                case Deliver(channel, message):
                    self._deliver(channel, message, queue)
                case AskPayload(channel, attempt):
                    queue.extendleft(reversed(self._ask(channel, attempt)))
                case Joined(channel, response, _):
                    self.members[channel].on_joined(response)
                case Interrupted(channel, cause):
                    self._stop_asking(channel)
                    self.members[channel].on_interrupted(cause)
                case Ended(channel, cause, _):
                    self._stop_asking(channel)
                    self.members.pop(channel).on_ended(cause)
        self._alarm.set()
        return frames

    def _resolve(self, effect: Resolve) -> None:
        waiter = self.waiters.pop(effect.push, None)
        if waiter is not None:
            waiter.resolve(effect.outcome)

    def _frame(self, message: Message, push: int | None, frames: list[Data]) -> None:
        try:
            frames.append(self._encode(message))
        except (TypeError, ValueError) as error:
            if push is None:
                raise
            self.machine.withdraw(push)
            waiter = self.waiters.pop(push, None)
            if waiter is not None:
                waiter.resolve(error)

    def _deliver(self, channel: int, message: Message, queue: deque[Effect]) -> None:
        try:
            error = self.members[channel].on_message(message, self.machine.join_ref(channel))
        except InvalidMessage as invalid:
            self.invalid.note(invalid, message)
            return
        if error is not None:
            queue.extend(self.machine.fail(channel, error))

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits any more."""
        self.machine.withdraw(waiter.id)
        self.waiters.pop(waiter.id, None)

    def check(self, topic: str, event: str, payload: Any) -> None:
        """See whether something can be sent, before it has to wait.

        Raises:
            TypeError, ValueError: it cannot be encoded.
        """
        self._encode(Message("0", "0", topic, event, payload))

    # The payloads of joins.

    def _ask(self, channel: int, attempt: int) -> list[Effect]:
        self._stop_asking(channel)
        try:
            payload = self.members[channel].ask_payload()
            if inspect.isawaitable(payload):
                self._asking[channel] = scope = trio.CancelScope()
                self._handle.start_soon(self._await_payload, scope, channel, attempt, payload)
                return []
            return self._answer(channel, attempt, payload)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            return self.machine.fail(channel, error)

    async def _await_payload(
        self, scope: trio.CancelScope, channel: int, attempt: int, coming: Awaitable[Any]
    ) -> None:
        with scope:
            try:
                payload = await coming
            except Exception as error:  # noqa: BLE001 - whatever the user's function raises
                failure = error
                self.cast(lambda: self.machine.fail(channel, failure))
            else:
                self.cast(lambda: self._answer(channel, attempt, payload))
        if self._asking.get(channel) is scope:
            del self._asking[channel]

    def _stop_asking(self, channel: int) -> None:
        """An attempt is over: a function that hangs does not pile up with each."""
        scope = self._asking.pop(channel, None)
        if scope is not None:
            scope.cancel()

    def _answer(self, channel: int, attempt: int, payload: Any) -> list[Effect]:
        payload = {} if payload is None else payload
        try:
            self.check("", JOIN, payload)
        except (TypeError, ValueError) as error:
            return self.machine.fail(channel, error)
        return self.machine.payload(channel, attempt, payload)

    def cast(self, request: Request) -> bool:
        """Carry it out soon, unless the connection has ended."""
        try:
            self._handle.cast(request)
        except ConnectionClosed:
            return False
        return True
