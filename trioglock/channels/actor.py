"""The actor of one joined topic: its state, and the messages that wait for its hooks.

A plain hook runs immediately, in the task that has the message. If an ``async`` hook has to run, or
a broker needs time to accept a broadcast, a task is started; it ends when no messages are waiting.
In the meantime, messages for this topic wait in order; other topics are not affected.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from .._redact import shorten
from ..connection import Connection
from ..connection.mailbox import run_now
from ..disconnect import HookError
from ..errors import (
    BadHookResult,
    BrokerError,
    BrokerUnavailable,
    ConnectionClosed,
    EncodeError,
    InvalidOption,
    UsageError,
)
from ..frames import Data
from ..gap import Gap
from ..protocols.phoenix.errors import ChannelClosed
from ..protocols.phoenix.errors import JoinRefused as ClientJoinRefused
from ..protocols.phoenix.message import PhoenixMessage, check_event
from ..protocols.phoenix.serializer import JoinReplies
from .channel import RESULTS, Channel, ChannelHookTable, ClientEvent, result_hint, split_outcome
from .history import GAP
from .machine import (
    JOIN_CRASHED,
    OVERLOADED,
    UNMATCHED,
    JoinState,
    ServerMachine,
    TopicJoin,
)
from .outgoing import OutgoingFrames
from .results import Answer, Broadcast, EndReason, JoinRefused, Left, Push, Stop
from .topics import add_origin, hub_channel

if TYPE_CHECKING:
    from ..pubsub import Hub
    from .socket import ChannelsSocket

__all__ = ["ChannelActor"]

_logger = logging.getLogger("trioglock.channels")

MAX_PENDING = 1024
"""Maximum number of messages that wait for the hooks of one join."""

MAX_PENDING_SIZE = 2**22
"""Maximum total size of the frames of one client whose messages wait for hooks.

Beyond it, no further push is queued.
"""

JOBS_PER_TURN = 64
"""A task that runs only plain hooks lets other tasks run after this many of them."""

TERMINATE_SECONDS = 10.0
"""Seconds that an async ``terminate`` may take."""

PUBLISH_SECONDS = 10.0
"""Maximum number of seconds for publishing the broadcast of a hook."""

NO_HISTORY = {"reason": "the history cannot be read"}
NO_BROKER = {"reason": "not available; try again later"}

TERMINATED = Left()
"""Replaces the actual reason of an actor whose ``terminate`` has begun."""

Later: TypeAlias = Callable[[], Awaitable[None]]
"""The part of a job that has to wait."""


class _Job(NamedTuple):
    kind: str
    ref: str | None
    event: str
    payload: Any
    size: int = 0
    """The size of the frame, if the client sent it."""


class _Pending(NamedTuple):
    """The results of a hook, starting with the first broadcast that has to wait for the broker."""

    data: Data
    channel: str
    rest: Sequence[Any]


IN, OUT, CAST, LEAVE = "handle_in", "handle_out", "handle_cast", "phx_leave"


class ChannelActor:
    """Runs the hooks of one join of one client.

    Args:
        socket: the client.
        join: the join.
        hooks: the hooks of the user's class.
    """

    __slots__ = (
        "_busy",
        "_channel",
        "_end_callbacks",
        "_hub_channel",
        "_idle",
        "_jobs",
        "_on_end",
        "_reason",
        "_ref",
        "_ref_is_taken",
        "_ref_is_valid",
        "_replies",
        "_scope",
        "_socket",
        "_start_callbacks",
        "_state",
        "_terminated",
        "connection",
        "has_joined",
        "hooks",
        "join",
        "origin",
        "outgoing",
        "pending_presence",
    )

    def __init__(self, socket: ChannelsSocket, join: TopicJoin, hooks: ChannelHookTable) -> None:
        self.join: TopicJoin = join
        self.has_joined: bool = False
        """Whether ``join`` was successful."""
        self.hooks: ChannelHookTable = hooks
        self.outgoing: OutgoingFrames = socket.outgoing
        self.connection: Connection[Any, Any] = socket.connection
        self.origin: str | None = None
        """Identifies this member in broadcasts that it does not receive; None before the first."""
        self.pending_presence: dict[str, dict[str, Any]] | None = None
        """The entries of :class:`.Presence` to add when the client has joined."""
        self._replies: JoinReplies | None = None  # before the first one
        self._socket = socket
        self._channel: Any = None  # before the join begins, and after the end
        self._hub_channel = hub_channel(join.topic)
        self._state: Any = None
        self._jobs: deque[_Job] | None = None  # as long as none waits
        self._busy = True  # until the client has joined
        self._scope: trio.CancelScope | None = None  # of the task
        self._idle: trio.Event | None = None  # set when the task ends
        self._on_end: Callable[[], object] | None = None
        self._reason: EndReason | None = None
        self._terminated = False
        self._ref: str | None = None
        self._ref_is_valid = self._ref_is_taken = False
        self._start_callbacks: tuple[Callable[[], object], ...] = ()
        self._end_callbacks: tuple[Callable[[], object], ...] = ()

    def __repr__(self) -> str:
        return f"<ChannelActor {self.hooks.name} of {self.join!r}>"

    def add_end_callback(self, callback: Callable[[], object]) -> None:
        """Call a plain function when a channel that has joined ends, just before ``terminate``.

        Args:
            callback: must not raise.

        Raises:
            ChannelClosed: the channel has ended.
        """
        if self.join.state is JoinState.ENDED:
            raise self._closed_error()
        self._end_callbacks = (*self._end_callbacks, callback)

    def add_start_callback(self, callback: Callable[[], object]) -> None:
        """Call a plain function when the client has received the response to its join.

        Args:
            callback: must not raise.
        """
        self._start_callbacks = (*self._start_callbacks, callback)

    # Messages.

    def begin(self, kind: type[Channel[Any]], payload: Any) -> None:
        """Run ``join``. Pushes that arrive in the meantime wait.

        Args:
            kind: the user's class.
            payload: the payload of the join.
        """
        if self.join.state is JoinState.ENDED:
            return
        history = self.hooks.history
        if self.hooks.join_is_async or (history is not None and history.is_wanted(payload)):
            self._start_task(partial(self._join_in_task, kind, payload))
            return
        later = run_now(self._join(kind, payload))
        if later is not None:
            self._start_task(later)
        elif self.has_joined:
            self._continue()

    async def _join_in_task(self, kind: type[Channel[Any]], payload: Any) -> None:
        later = await self._join(kind, payload)
        if later is not None:
            await later()

    async def _join(self, kind: type[Channel[Any]], payload: Any) -> Later | None:
        """Run ``join``, and return the remaining work if it has to wait.

        A plain hook does not suspend this call.
        """
        hooks, history = self.hooks, self.hooks.history
        try:
            after = None if history is None else history.parse_join(payload)
            channel = self._channel = kind()
            channel._actor = self  # noqa: SLF001 - part of the package
            returned: Any = channel.join(self.join.topic, payload, self._socket.user)
            if hooks.join_is_async:
                returned = await returned
            response, state = split_outcome(f"{hooks.name}.join", returned, "response")
            if isinstance(response, JoinRefused):
                raise BadHookResult(f"{hooks.name}.join has failed{result_hint(response)}")
            if not (history is None or isinstance(response, dict)):
                raise BadHookResult(
                    f"{hooks.name}.join must return a dict as the response, because the class has "
                    f"a history, not {shorten(response)}"
                )
        except JoinRefused as refusal:
            self._refuse(refusal.response)
        except Exception as mistake:
            # With one argument, the client's class raises TypeError.
            if isinstance(mistake, ClientJoinRefused) or (
                isinstance(mistake, TypeError) and "JoinRefused.__init__()" in str(mistake)
            ):
                mistake.add_note("To refuse a client, raise trioglock.channels.JoinRefused.")
            self._log_join()
            self._refuse(JOIN_CRASHED)
        except BaseException:  # the client joins again, or the connection is ending
            self._forget()
            raise
        else:
            self._state, self.has_joined = state, True
            replays = history is not None and history.is_wanted(payload)
            error: Exception | None = None
            try:
                if self._reason is None and not (self._socket.index.subscribe(self) or replays):
                    return partial(self._subscribe, response)
                if self._reason is None and replays:
                    return partial(self._replay, response, after)
            except Exception as failure:
                error = failure
            self._set_joined(response, error)
        return None

    async def _subscribe(self, response: Any) -> None:
        """Join when the broker has confirmed the subscription."""
        error: Exception | None = None
        try:
            await self._socket.index.wait_subscribed(self)
        except Exception as failure:
            error = failure
        self._set_joined(response, error)

    async def _replay(self, response: Any, after: str | None) -> None:
        """Join when the first events of the history have been read."""
        error: Exception | None = None
        try:
            if await self._socket.index.start_replay(self, after):
                response = {**response, GAP: True}
        except Exception as failure:
            error = failure
        self._set_joined(response, error)

    def _set_joined(self, response: Any, error: Exception | None) -> None:
        messages = self._machine.joined(self.join, response)
        if not messages:
            return  # it has ended in the meantime, and terminate runs next
        reply, *others = messages
        try:
            if error is not None:
                raise error
            self._socket.index.join(self)
            self._reply(reply)
        except (BrokerUnavailable, BrokerError) as failure:
            has_history = self.hooks.history is not None
            self._socket.index.report_unavailable(self.join.topic, failure, history=has_history)
            self._fail_join(NO_HISTORY if has_history else NO_BROKER, others, failure)
            return
        except InvalidOption as failure:  # the hub cannot have a channel for this topic
            self._fail_join(UNMATCHED, others, failure)
            return
        except Exception as failure:
            self._log_join()
            self._fail_join(JOIN_CRASHED, others, failure)
            return
        self._reply_all(others)
        callbacks, self._start_callbacks = self._start_callbacks, ()
        for callback in callbacks:
            callback()
        self._socket.index.send_replay(self)

    def _fail_join(self, response: Any, others: list[PhoenixMessage], error: Exception) -> None:
        """End a channel whose ``join`` was successful."""
        self._reply_all([self._machine.join_crashed(self.join, response), *others])
        self._return_jobs()
        self._set_ended(HookError(error=error))

    def _refuse(self, response: Any) -> None:
        messages = self._machine.refused(self.join, response)
        try:
            self._reply_all(messages)
        except (EncodeError, ValueError):
            self._log_join()
            self._reply_all([self._machine.join_crashed(self.join), *messages[1:]])
        self._return_jobs()
        self._forget()

    def _log_join(self) -> None:
        _logger.exception(  # noqa: LOG004 - called while an exception is handled
            "%s: %s.join failed for topic %r",
            self.connection.name,
            self.hooks.name,
            self.join.topic,
        )

    def _return_jobs(self) -> None:
        """Answer the messages that were waiting for a join that has failed."""
        for kind, ref, event, payload, _ in self._drop_jobs():
            if kind in (IN, LEAVE):
                self._socket.receive(
                    PhoenixMessage(self.join.join_ref, ref, self.join.topic, event, payload)
                )

    def handle_in(self, ref: str | None, event: str, payload: Any) -> None:
        """Handle a push of the client."""
        if not self._busy:
            self._busy = True
            later = self._run(IN, ref, event, payload)
            if later is None and self._jobs is None and self._reason is None:
                self._busy = False  # the usual case
            else:
                self._continue(later)
        elif not self._add_push(_Job(IN, ref, event, payload)):
            self._answer(ref, "error", OVERLOADED)

    def handle_out(self, event: str, payload: Any) -> None:
        """Handle a broadcast that the channel intercepts."""
        if not self._busy:
            self._run_now(OUT, None, event, payload)
        elif not self._add(_Job(OUT, None, event, payload)) and self._reason is None:
            # The client would not notice a dropped broadcast; after this error, it joins again.
            self._fail(f"{self.hooks.name}.{OUT}", UsageError("too many messages are waiting"))
            self._cancel()

    async def wait_idle(self) -> None:
        """Wait until no async hook is running."""
        while self._scope is not None:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()

    def lose_events(self, gap: Gap) -> None:
        """End the channel because events may be missing; its client joins again."""
        if self._reason is not None:
            return
        for message in self._machine.lost(self.join):
            self.outgoing.send(self._encode(message))
        was_busy = self._busy
        self._set_ended(gap)
        if was_busy:
            self._cancel()
        else:
            self._continue()

    def leave(self, ref: str | None) -> None:
        """Handle a leave after all earlier messages."""
        if not self._busy:
            self._run_now(LEAVE, ref, LEAVE, None)
        elif not self._add(_Job(LEAVE, ref, LEAVE, None)):
            self._fail(f"{self.hooks.name}.{IN}", UsageError("too many messages are waiting"))
            self._cancel()

    def cast(self, message: Any) -> None:
        """See :meth:`Channel.cast`."""
        if self.join.state is JoinState.ENDED:
            raise self._closed_error()
        if not self.hooks.has_cast:
            self._channel.handle_cast(message, self._state)
        if not self._add(_Job(CAST, None, "", message)):
            raise trio.WouldBlock
        if not self._busy:
            self._busy = True
            self._start_task(None)

    def _add_push(self, job: _Job) -> bool:
        socket, size = self._socket, self._socket.frame_size
        # A single message of any size may wait.
        if 0 < socket.waiting_size > MAX_PENDING_SIZE - size:
            return False
        if not self._add(job._replace(size=size)):
            return False
        socket.waiting_size += size
        return True

    def _add(self, job: _Job) -> bool:
        """Queue a job; return False if too many are waiting."""
        if self._jobs is None:
            self._jobs = deque()
        elif len(self._jobs) >= MAX_PENDING:
            return False
        self._jobs.append(job)
        return True

    def _next(self, jobs: deque[_Job]) -> _Job:
        job = jobs.popleft()
        self._socket.waiting_size -= job.size
        return job

    def _drop_jobs(self) -> Sequence[_Job]:
        jobs, self._jobs = self._jobs, None
        if not jobs:
            return ()
        self._socket.waiting_size -= sum([job.size for job in jobs])
        return tuple(jobs)

    # Running jobs.

    def _run_now(self, kind: str, ref: str | None, event: str, payload: Any) -> None:
        self._busy = True
        self._continue(self._run(kind, ref, event, payload))

    def _continue(self, later: Later | None = None) -> None:
        """Run the jobs that are waiting now, as long as their hooks are plain.

        Args:
            later: the part of the last job that has to wait.
        """
        if later is not None:
            self._start_task(later)
            return
        jobs = self._jobs
        if jobs is not None:
            for _ in range(len(jobs)):
                if self._reason is not None:
                    break
                kind, ref, event, payload, _ = self._next(jobs)
                later = self._run(kind, ref, event, payload)
                if later is not None:
                    self._start_task(later)
                    return
        if self._reason is not None:
            later = self._terminate()
            if later is not None:
                self._start_task(later)
        elif jobs or self._jobs:
            self._start_task(None)
        else:
            self._busy, self._jobs = False, None

    def _start_task(self, later: Later | None) -> None:
        self._scope = trio.CancelScope()
        try:
            self.connection.start_soon(self._run_task, later, self._scope)
        except ConnectionClosed:
            # The end of the connection also ends this actor.
            self._scope = None

    async def _run_task(self, later: Later | None, scope: trio.CancelScope) -> None:
        try:
            with scope:
                if later is not None:
                    await later()
                await self._run_waiting()
            later = self._terminate() if self._reason is not None else None
            if later is not None:
                await later()
        finally:
            self._scope = None
            if self._idle is not None:
                self._idle.set()
                self._idle = None
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    async def _run_waiting(self) -> None:
        count = 0
        while self._jobs and self._reason is None:
            count += 1
            kind, ref, event, payload, _ = self._next(self._jobs)
            if kind == IN:
                await self.outgoing.wait_space()
            later = self._run(kind, ref, event, payload)
            if later is not None:
                await later()
            elif count % JOBS_PER_TURN == 0 or self.outgoing.needs_turn:
                self.outgoing.needs_turn = False
                await trio.lowlevel.checkpoint()
        if self._reason is None:
            self._busy, self._jobs = False, None

    def _run(self, kind: str, ref: str | None, event: str, payload: Any) -> Later | None:
        """Run a job; return the part of it that has to wait."""
        if kind == LEAVE:
            self._leave(ref)
            return None
        name = self.hooks.in_name
        try:
            if kind == IN:
                self._ref, self._ref_is_valid, self._ref_is_taken = ref, True, False
            if kind == IN and self.hooks.in_is_plain:
                returned = self._channel.handle_in(event, payload, self._state)
            else:
                hook, arguments, is_async, name = self._find_hook(kind, event, payload)
                if is_async:
                    return partial(self._run_async, kind, ref, name, hook, arguments)
                returned = hook(*arguments)
            if not (
                returned.__class__ is tuple
                and len(returned) == 2
                and returned[1].__class__ not in RESULTS
            ):
                returned = split_outcome(name, returned)
            result, self._state = returned
            if result.__class__ is Answer and kind == IN:
                self._answer(ref, result.status, result.response)
            elif result is not None:
                pending = self._apply(kind, ref, name, result)
                if pending is not None:
                    return partial(self._finish, kind, ref, name, pending)
        except Exception as error:
            self._fail(name, error)
            return None
        if kind == IN:
            self._ref_is_valid = False
            if self.join.refs:
                self._end_ref(ref)
        return None

    def _find_hook(
        self, kind: str, event: str, payload: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...], bool, str]:
        """Return the hook of a job, its arguments, whether it is async, and its name."""
        hooks, channel, state = self.hooks, self._channel, self._state
        if kind == OUT:
            name = f"{hooks.name}.{OUT}"
            return channel.handle_out, (event, payload, state), hooks.out_is_async, name
        if kind == CAST:
            name = f"{hooks.name}.{CAST}"
            return channel.handle_cast, (payload, state), hooks.cast_is_async, name
        if hooks.router is None:
            return channel.handle_in, (event, payload, state), hooks.in_is_async, hooks.in_name
        handler, is_async, name = hooks.find(hooks.router, event)
        return handler, (ClientEvent(event, payload, channel), state), is_async, name

    async def _run_async(
        self,
        kind: str,
        ref: str | None,
        name: str,
        hook: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        try:
            result, self._state = split_outcome(name, await hook(*arguments))
            pending = None if result is None else self._apply(kind, ref, name, result)
        except Exception as error:
            self._fail(name, error)
            return
        await self._finish(kind, ref, name, pending)

    async def _finish(
        self, kind: str, ref: str | None, name: str, pending: _Pending | None
    ) -> None:
        """Await the publication of a broadcast, and apply the other results."""
        try:
            while pending is not None:
                # A client may disconnect directly after a push, which does not stop the broadcast.
                with trio.fail_after(PUBLISH_SECONDS, shield=True):
                    await self._socket.hub.publish(pending.data, pending.channel)
                pending = self._apply(kind, ref, name, pending.rest)
        except Exception as error:
            self._fail(name, error)
            return
        if kind == IN:
            self._ref_is_valid = False
            self._end_ref(ref)

    # Results.

    def _apply(self, job_kind: str, ref: str | None, name: str, result: Any) -> _Pending | None:
        """Apply results in order; return the rest if a broadcast has to wait."""
        results = result if isinstance(result, tuple) else (result,)
        for at, one in enumerate(results):
            kind = one.__class__
            if self._reason is not None:
                break
            if kind is Answer:
                if job_kind != IN:
                    raise BadHookResult(
                        f"{name} cannot return an Answer: only handle_in answers a push; to answer "
                        "an earlier push, keep self.ref and call answer()"
                    )
                self._answer(ref, one.status, one.response)
            elif kind is Push:
                message = self._machine.push(self.join, check_event(one.event), one.payload)
                if job_kind == IN:
                    self._reply(message)
                elif message is not None:
                    self.outgoing.send(self._encode(message))
            elif kind is Broadcast:
                data, channel = self._encode_broadcast(
                    one.event, one.payload, one.to_self, one.keep
                )
                # The arguments pass the checks of hub.publish_nowait().
                session = self._socket.hub._open_session()  # noqa: SLF001 - the same package
                if not session.publish_nowait(channel, data):
                    return _Pending(data, channel, results[at + 1 :])
                self._socket.end_broadcast()
            elif kind is Stop:
                self._reply_all(self._machine.stopped(self.join))
                self._set_ended(one)
            else:
                raise BadHookResult(
                    f"{name} must return a result of None, Answer, Push, Broadcast or Stop, or a "
                    f"tuple of these, not {shorten(one)}{result_hint(one)}"
                )
        return None

    def _answer(self, ref: str | None, status: str, response: Any) -> None:
        """Answer a push, unless it must not be answered (again)."""
        socket, join = self._socket, self.join
        if socket.machine.may_answer(join, ref, status):
            replies = self._replies
            if replies is None:
                replies = self._replies = JoinReplies(join.join_ref, join.topic)
            frame = socket.serializer.encode_reply(replies, ref, status, response)
            self.outgoing.reply(frame)

    def _end_ref(self, ref: str | None) -> None:
        """Give up answering a push whose ref was not kept."""
        if not self._ref_is_taken:
            self._machine.forget(self.join, ref)

    def _reply_all(self, messages: Iterable[PhoenixMessage | None]) -> None:
        for message in messages:
            self._reply(message)

    def _reply(self, message: PhoenixMessage | None) -> None:
        if message is not None:
            self.outgoing.reply(self._encode(message))

    def _encode(self, message: PhoenixMessage) -> Data:
        return self._socket.serializer.encode(message)

    def _encode_broadcast(
        self, event: str, payload: Any, to_self: bool, keep: bool
    ) -> tuple[Data, str]:
        """Return the data of a broadcast, and its channel in the hub."""
        channel = self._hub_channel
        if self.hooks.history is not None:
            payload = self.hooks.history.without_id(payload, keep=keep)
            if not keep:
                channel = hub_channel(self.join.topic, keep=False)
        data = self._socket.serializer.encode_broadcast(
            self.join.topic, check_event(event), payload
        )
        if to_self:
            return data, channel
        if self.origin is None:
            self.origin = self._socket.index.new_origin()
        return add_origin(data, self.origin), channel

    # Actions of the user.

    @property
    def hub(self) -> Hub:
        """The hub of the server."""
        return self._socket.hub

    @property
    def _machine(self) -> ServerMachine:
        return self._socket.machine

    def take_ref(self) -> str | None:
        """See :attr:`Channel.ref`."""
        if not self._ref_is_valid:
            raise UsageError("ref can only be used in handle_in")
        self._ref_is_taken = True
        return self._ref

    async def answer(self, ref: str | None, status: str, response: Any) -> None:
        """See :meth:`Channel.answer`."""
        self._check_joined("answer")
        message = self._machine.answer(self.join, ref, status, response)
        if message is None:
            raise UsageError(
                f"the push {ref!r} cannot be answered: it was answered before, or handle_in has "
                "returned without using self.ref"
            )
        try:
            await self._send(message)
        except BaseException:
            self._machine.not_answered(self.join, ref)
            raise

    async def push(self, event: str, payload: Any) -> None:
        """See :meth:`Channel.push`."""
        self._check_joined("push")
        message = self._machine.push(self.join, check_event(event), payload)
        assert message is not None
        await self._send(message)

    async def _send(self, message: PhoenixMessage) -> None:
        frame = self._encode(message)
        try:
            await self.outgoing.send_in_turn(frame)
        except ConnectionClosed as error:
            raise self._closed_error() from error

    async def broadcast(self, event: str, payload: Any, to_self: bool, keep: bool) -> None:
        """See :meth:`Channel.broadcast`."""
        await self._socket.hub.publish(*self._encode_broadcast(event, payload, to_self, keep))

    def _check_joined(self, call: str) -> None:
        if self.join.state is JoinState.JOINING:
            raise UsageError(
                f"{call}() cannot be used in join, because the client has not joined yet: use "
                "cast(), and push in handle_cast"
            )
        if self.join.state is JoinState.ENDED:
            raise self._closed_error()

    def _closed_error(self) -> ChannelClosed:
        return ChannelClosed(f"the channel {self.join.topic!r} has ended")

    # The end.

    def _leave(self, ref: str | None) -> None:
        self._reply_all(self._machine.left(self.join, ref))
        self._set_ended(Left())

    def _fail(self, name: str, error: Exception) -> None:
        """End the channel because of an exception."""
        if self._reason is not None:
            return
        _logger.error(
            "%s: %s failed in topic %r, which has ended",
            self.connection.name,
            name,
            self.join.topic,
            exc_info=error,
        )
        self._reply_all(self._machine.crashed(self.join))
        self._set_ended(HookError(error=error))
        if self._channel is None:
            self._forget()

    def _set_ended(self, reason: EndReason) -> None:
        if self._reason is None:
            self._reason = reason
            self._busy = True
            self._drop_jobs()
            self._ref_is_valid = False
            self._socket.index.leave(self)

    def _cancel(self) -> None:
        """Cancel a hook that is waiting."""
        if self._scope is not None:
            self._scope.cancel()

    def end_now(self, reason: EndReason) -> None:
        """End a channel that has not joined, or that has no task and a plain ``terminate``."""
        self._set_ended(reason)
        if self.has_joined:
            self._terminate()
        else:
            self._forget()

    def end_soon(self, reason: EndReason, on_end: Callable[[], object]) -> bool:
        """End the channel: cancel its hook and run ``terminate``.

        Args:
            reason: the argument of ``terminate``.
            on_end: called at the end, unless the connection ends before.

        Returns:
            True if the channel has ended already; ``on_end`` is not called.
        """
        self._set_ended(reason)
        if self._scope is None:
            later = self._terminate()
            if later is None:
                return True
            self._start_task(later)
        else:
            self._scope.cancel()
        self._on_end = on_end
        return False

    async def end_with_connection(self, reason: EndReason) -> None:
        """End a channel whose ``terminate`` is async, after all tasks of the connection have ended.

        The connection limits the time.
        """
        self._set_ended(reason)
        await self._call_terminate()

    def _terminate(self) -> Later | None:
        """Run ``terminate`` if necessary; return the coroutine if it is async."""
        if self._terminated or not self.has_joined:
            return None
        if self.hooks.terminate_is_async:
            return self._terminate_async
        channel, reason = self._begin_terminate()
        try:
            returned = channel.terminate(reason, self._state)
            if inspect.iscoroutine(returned):
                returned.close()
                name = f"{self.hooks.name}.terminate"
                raise BadHookResult(f"{name} returned a coroutine; declare it with async def")
        except Exception:
            self._log_terminate()
        return None

    async def _terminate_async(self) -> None:
        with trio.CancelScope(
            shield=True, deadline=trio.current_time() + TERMINATE_SECONDS
        ) as scope:
            await self._call_terminate()
        if scope.cancelled_caught:
            _logger.error(
                "%s.terminate was cancelled after %g seconds", self.hooks.name, TERMINATE_SECONDS
            )

    async def _call_terminate(self) -> None:
        if self._terminated:
            return
        channel, reason = self._begin_terminate()
        try:
            await channel.terminate(reason, self._state)  # type: ignore[misc]
        except Exception:
            self._log_terminate()

    def _begin_terminate(self) -> tuple[Channel[Any], EndReason]:
        self._terminated = True
        channel, reason = self._channel, self._reason
        self._forget()
        callbacks, self._end_callbacks = self._end_callbacks, ()
        for callback in callbacks:
            callback()
        assert reason is not None
        # The traceback of an exception refers to this object.
        self._reason = TERMINATED
        return channel, reason

    def _forget(self) -> None:
        self._socket.remove(self)
        self._drop_jobs()
        self._channel = None  # it refers to this object

    def _log_terminate(self) -> None:
        _logger.exception(  # noqa: LOG004 - called while an exception is handled
            "%s: %s.terminate failed in topic %r",
            self.connection.name,
            self.hooks.name,
            self.join.topic,
        )
