"""Runs the callbacks of one :class:`ChannelClient`: one task, one job at a time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import trio

from ...connection import Connection
from ...disconnect import ConnectionLost, Disconnect, HandshakeFailed
from ...errors import (
    CallTimeout,
    ConnectError,
    ConnectionClosed,
    UsageError,
)
from ...frames import Data
from ...options import check_seconds
from ...routing import InvalidMessages
from .address import Params, Source
from .alarm import Alarm, Request
from .callbacks import Callbacks
from .client import ChannelClient, Connect, Result, Stop
from .effects import AskPayload, Deliver, Effect, Ended, Joined, Resolve, Send
from .errors import ChannelCrashed, Disconnected, JoinRefused, JoinTimeout, PushTimeout
from .lines import Lines
from .machine import Machine
from .message import PushReply
from .serializer import Serializer

__all__ = ["ClientActor", "Opener"]

StateT = TypeVar("StateT")

MAX_JOBS = 2**16

Job: TypeAlias = Callable[[], Awaitable[None]]

Opener: TypeAlias = Callable[
    [Source[str] | None, Source[Params] | None], AbstractAsyncContextManager[Connection[None]]
]
"""Makes a connection, to another address or with other params than before if they are given."""


class Answer:
    """Of a call."""

    def __init__(self) -> None:
        self.came: trio.Event = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None


class ClientActor(Generic[StateT]):
    """A client that lives.

    Args:
        client: the user's callbacks.
        machine: decides what they are told.
        serializer: for every frame.
        timeout: seconds for joins, pushes and leaves.
        opener: makes connections.
    """

    def __init__(
        self,
        client: ChannelClient[StateT],
        machine: Machine,
        serializer: Serializer,
        timeout: float,
        opener: Opener,
    ) -> None:
        self.lines: Lines = Lines(machine, serializer, timeout)
        self.invalid: InvalidMessages = InvalidMessages()
        self._callbacks = Callbacks(client)
        self._machine = machine
        self._encode, self._decode = serializer.encode, serializer.decode
        self._open = opener
        self._post, self._jobs = trio.open_memory_channel[Job](MAX_JOBS)
        self._alarm = Alarm(machine, self._request)
        self._connection: Connection[None] | None = None
        self._linking = self._stopped = self._ended = False
        self._answers: set[Answer] = set()
        self._frames: list[Data] = []
        self._task: trio.lowlevel.Task | None = None
        self._nursery: trio.Nursery

    @property
    def state(self) -> StateT:
        """See :attr:`ClientHandle.state`."""
        return self._callbacks.state

    # The program's side.

    def cast(self, message: Any) -> None:
        """See :meth:`ClientHandle.cast`."""
        client = self._callbacks.client
        if type(client).handle_cast is ChannelClient.handle_cast:
            raise UsageError(f"{type(client).__name__} has no handle_cast")
        self._put(partial(self._callback, client.handle_cast, message, self.lines))

    async def call(self, request: Any, timeout: float | None) -> Any:
        """See :meth:`ClientHandle.call`."""
        check_seconds("timeout", timeout)
        if self._task is trio.lowlevel.current_task():
            raise UsageError("call() would wait for itself inside a callback; use cast()")
        answer = Answer()
        self._put(partial(self._answer, request, answer))
        self._answers.add(answer)
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                await answer.came.wait()
                if answer.error is not None:
                    raise answer.error
                return answer.value
        finally:
            self._answers.discard(answer)
        raise CallTimeout(f"handle_call took longer than {timeout} seconds")

    def stop(self) -> None:
        """See :meth:`ClientHandle.stop`."""
        if self._ended:
            return
        try:
            self._put(partial(self._obey, Stop()))
        except trio.WouldBlock:
            self._stopped = True  # before all the jobs that wait

    def connect(self, wish: Connect) -> None:
        """See :meth:`ClientHandle.connect`."""
        self._put(partial(self._obey, wish))

    def _put(self, job: Job) -> None:
        if self._ended:
            raise Disconnected("the client has ended")
        self._post.send_nowait(job)

    def _request(self, request: Request) -> bool:
        if self._ended:
            return False

        async def job() -> None:
            self.lines.effects.extend(request())

        self._put(job)
        return True

    # The task.

    async def run(self, started: Callable[[], None], *, connect: bool) -> None:
        """Live until a callback wants it to stop, or raises."""
        failure: BaseException | None = None
        async with trio.open_nursery() as self._nursery:
            self._task = trio.lowlevel.current_task()
            try:
                await self._callbacks.init()
                self._nursery.start_soon(self._alarm.run)
                if connect:
                    await self._obey(Connect())
                started()
                while not self._stopped:
                    await (await self._jobs.receive())()
                    await self._carry_out()
            except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery
                failure = error
            finally:
                self._end()
            wants_goodbye = failure is None or isinstance(failure, Exception)
            if self._connection is not None and wants_goodbye:
                await self._connection.aclose(1000 if failure is None else 1011)
            self._nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _end(self) -> None:
        self._ended = True
        for answer in self._answers:
            if not answer.came.is_set():
                answer.error = Disconnected("the client has ended")
                answer.came.set()

    async def _obey(self, result: Result) -> None:
        """Do what the result of a callback says."""
        if isinstance(result, Stop):
            self._stopped = True
        elif isinstance(result, Connect) and not self._linking:
            self._linking = True
            self._nursery.start_soon(self._link, result)

    async def _callback(self, callback: Callable[..., Any], *args: Any) -> None:
        await self._obey(await self._callbacks.tell(callback, *args))

    async def _answer(self, request: Any, answer: Answer) -> None:
        if answer not in self._answers:
            return  # nobody waits any more
        try:
            answer.value, result = await self._callbacks.ask(request, self.lines)
            await self._obey(result)
        except Exception as error:  # noqa: BLE001 - it belongs to the call
            answer.error = error
        answer.came.set()

    # The connection.

    async def _link(self, wish: Connect) -> None:
        """One connection, from the wish to its end."""
        reason: Disconnect
        try:
            await trio.sleep(wish.delay)
            async with self._open(wish.url, wish.params) as connection:
                await self._ask(partial(self._connected, connection))
                while True:
                    await self._ask(partial(self._received, await connection.receive_batch()))
        except ConnectionClosed as error:
            reason = error.cause or ConnectionLost()
        except (ConnectError, OSError) as error:
            reason = HandshakeFailed(error=error)
        except Exception as error:  # noqa: BLE001 - of the user's functions: it ends the client
            await self._post.send(partial(_raise, error))
            return
        await self._post.send(partial(self._disconnected, reason))

    async def _ask(self, job: Job) -> None:
        """Have a job done: no more is read before what has come was told."""
        done = trio.Event()

        async def whole() -> None:
            await job()
            await self._carry_out()
            done.set()

        await self._post.send(whole)
        await done.wait()

    async def _connected(self, connection: Connection[None]) -> None:
        self._connection = connection
        self._machine.connect(trio.current_time())
        await self._callback(self._callbacks.client.handle_connected, self.lines)

    async def _received(self, batch: Iterable[Data]) -> None:
        for frame in batch:
            try:
                message = self._decode(frame)
            except ValueError as error:
                self.invalid.note(error, frame)
                continue
            self.lines.effects.extend(self._machine.received(message, trio.current_time()))
            await self._carry_out()
            if self._stopped:
                return

    async def _disconnected(self, reason: Disconnect) -> None:
        self._connection = None
        self._linking = False
        self._machine.disconnect()
        self.lines.forget()
        self._frames.clear()
        await self._callback(self._callbacks.client.handle_disconnected, reason)

    # Effects.

    async def _carry_out(self) -> None:
        effects = self.lines.effects
        while effects and not self._stopped:
            await self._do(effects.popleft())
        self._alarm.set()
        frames, self._frames = self._frames, []
        if self._connection is None:
            return
        try:
            for frame in frames:
                await self._connection.send(frame)
        except ConnectionClosed:
            pass  # handle_disconnected is on its way

    async def _do(self, effect: Effect) -> None:
        lines, client = self.lines, self._callbacks.client
        match effect:
            case Send(message):
                self._frames.append(self._encode(message))
            case AskPayload(channel, attempt):
                sends = self._machine.payload(channel, attempt, lines.payloads.pop(channel))
                lines.effects.extendleft(reversed(sends))
            case Joined(channel, response):
                topic = lines.topics[channel]
                await self._callback(client.handle_joined, topic, response, lines)
            case Deliver(_, message):
                told = (message.topic, message.event, message.payload)
                await self._callback(client.handle_message, *told, lines)
            case Ended(channel, cause, payload):
                lines.payloads.pop(channel, None)
                await self._channel_ended(lines.topics.pop(channel), cause, payload)
            case Resolve(number, outcome):
                await self._resolved(number, outcome)

    async def _channel_ended(self, topic: str, cause: Exception | None, payload: Any) -> None:
        lines, client = self.lines, self._callbacks.client
        if isinstance(cause, JoinRefused):
            await self._callback(client.handle_join_error, topic, cause.response, lines)
        elif isinstance(cause, JoinTimeout):
            await self._callback(client.handle_join_error, topic, {"reason": "timeout"}, lines)
        elif isinstance(cause, ChannelCrashed) or payload is not None:
            await self._callback(client.handle_channel_closed, topic, payload, lines)
        # Else it was left, and what answers that is still to come.

    async def _resolved(self, number: int, outcome: PushReply | Exception) -> None:
        lines, client = self.lines, self._callbacks.client
        if number in lines.leaves:
            topic = lines.leaves.pop(number)
            await self._callback(client.handle_channel_closed, topic, {}, lines)
            return
        topic, ref = lines.pushes.pop(number)
        if isinstance(outcome, PushReply):
            await self._callback(client.handle_reply, topic, ref, outcome, lines)
        elif isinstance(outcome, PushTimeout):
            await self._callback(client.handle_timeout, topic, ref, lines)
        # Else the channel has ended, and is told so.


async def _raise(error: Exception) -> None:
    raise error
