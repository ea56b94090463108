"""The actor: the state of one connection and its hooks.

A hook runs immediately if that keeps the order, and otherwise as a job of the mailbox; see
:mod:`.mailbox`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic

import trio

from .._redact import shorten
from .._types import StateT
from ..disconnect import Disconnect
from ..errors import BadHookResult, DecodeError
from ..frames import Data, Run
from ..hooks import NOT_STATES, ConnectionInfo, Deliver, Reconnect, Socket, Stop
from ._sync import NO_WAITERS, ignore
from .background import Background
from .hook_watch import watch_hooks
from .hooks import Hook, HookResults, hook_of, split, split_call
from .mailbox import SYNC_HOOK, Mailbox, PendingCall, SuspendedHook, run_now

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Actor"]


MAX_PENDING = 2**16
"""Maximum number of jobs. Beyond it ``cast`` raises WouldBlock, and ping hooks are skipped."""

_NO_RUN: Run = []  # always empty


class Actor(Generic[StateT]):
    """Runs the hooks of one socket.

    Args:
        socket: the user's socket.
        results: applies the results of hooks.
        on_failure: called with the name of a hook, its exception, and whether the exception ends
            the connection. An exception from ``handle_send`` or ``handle_call`` does not.
        closed_error: creates the exception for calls after the end.
        background: starts the task of the mailbox.
    """

    __slots__ = (
        "_backlog_waiters",
        "_closed_error",
        "_current_run",
        "_frames",
        "_on_failure",
        "_results",
        "_socket",
        "_wait",
        "backlog",
        "call_hook",
        "cast_hook",
        "connect",
        "disconnect",
        "has_state",
        "init_stream",
        "invalid_hook",
        "mailbox",
        "ping",
        "pong",
        "receive_hook",
        "send_hook",
        "state",
        "terminate_hook",
    )

    state: StateT

    def __init__(
        self,
        socket: Socket[StateT, Any],
        results: HookResults,
        *,
        on_failure: Callable[[str, BaseException, bool], None],
        closed_error: Callable[[], Exception],
        background: Background,
    ) -> None:
        self.mailbox: Mailbox = Mailbox(background, closed_error)
        self.has_state: bool = False
        self.state = None  # type: ignore[assignment]  # until init_stream has run
        self.backlog: int = 0
        """Received messages that are waiting in the mailbox."""
        self._socket = socket
        self._results = results
        self._on_failure = on_failure
        self._closed_error = closed_error
        self._current_run: Run = _NO_RUN
        self._frames: Iterator[Any] = iter(_NO_RUN)  # the rest of the current run
        self._wait: Callable[[], Awaitable[None]] | None = None
        self._backlog_waiters = NO_WAITERS
        self.init_stream: Hook = hook_of(socket, "init_stream")
        self.connect: Hook = hook_of(socket, "handle_connect")
        self.send_hook: Hook = hook_of(socket, "handle_send")
        self.receive_hook: Hook = hook_of(socket, "handle_receive")
        self.invalid_hook: Hook = hook_of(socket, "handle_invalid")
        self.ping: Hook = hook_of(socket, "handle_ping")
        self.pong: Hook = hook_of(socket, "handle_pong")
        self.cast_hook: Hook = hook_of(socket, "handle_cast")
        self.call_hook: Hook = hook_of(socket, "handle_call")
        self.disconnect: Hook = hook_of(socket, "handle_disconnect")
        self.terminate_hook: Hook = hook_of(socket, "terminate")

    def attach(self, connection: Connection[StateT, Any]) -> None:
        """Pass the connection to the socket, before the first attempt."""
        self._socket._attach(connection)  # noqa: SLF001 - a hook of the package's own layers
        if type(self._socket) is not Socket:
            watch_hooks()

    @property
    def socket_name(self) -> str:
        """The name of the socket's class."""
        return type(self._socket).__qualname__

    @property
    def makes_requests(self) -> bool:
        """Whether the socket has its own ``request`` method."""
        return hasattr(self._socket, "request")

    def format_status(self) -> Any:
        """Return the result of the ``format_status`` hook, or a text if it failed."""
        if not self.has_state:
            return None
        try:
            shown = self._socket.format_status(self.state)
            if inspect.iscoroutine(shown):
                shown.close()
                return "not shown: format_status must not be async"
        except Exception as error:
            # The message of the error may contain secrets.
            return f"not shown: format_status raised {type(error).__name__}"
        return shown

    def add_backlog(self) -> None:
        """Count a message that the socket handles later; many of them stop the reader."""
        self.backlog += 1

    def remove_backlog(self) -> None:
        """Count a message that has been handled."""
        self.backlog -= 1
        if not self.backlog:
            self._backlog_waiters.unpark_all()

    async def wait_backlog(self) -> None:
        """Wait until the hooks have handled all received messages."""
        self._backlog_waiters = self._backlog_waiters.own()
        await self._backlog_waiters.park()

    def fail(self, error: BaseException) -> None:
        """End the connection because a user's function raised an exception."""
        self._on_failure("", error, True)

    def release_reader(self) -> None:
        """Let the reader task continue despite the backlog: the connection is closing."""
        self._backlog_waiters.unpark_all()

    def stop(self) -> None:
        """Run no more hooks except ``terminate``, and fail all waiting calls."""
        self._current_run.clear()
        self.mailbox.stop()

    def release_session(self) -> None:
        """Drop the reference to the session, which has ended."""
        self._on_failure = ignore

    # Running hooks.

    def _start(self, job: Callable[[], Coroutine[Any, Any, None]], *hooks: Hook) -> None:
        """Run a job now if its hooks cannot suspend and no other job is ahead, else queue it."""
        if self.idle and not any(hook.is_async for hook in hooks):
            run_now(job())
        else:
            self.mailbox.put(job)

    async def _call(self, hook: Hook, *args: Any) -> Any:
        """Call a hook; return its return value."""
        mailbox = self.mailbox
        mailbox.active = trio.lowlevel.current_task() if hook.is_async else SYNC_HOOK
        try:
            returned = hook.call(*args)
            return await returned if hook.is_async else returned
        finally:
            mailbox.leave()

    async def _run_hook(self, hook: Hook, *args: Any) -> None:
        """Run a hook and apply its result; an exception ends the connection."""
        try:
            result, self.state = split(hook, await self._call(hook, *args, self.state))
            self._results.apply(hook, result)
        except Exception as error:
            self._on_failure(hook.label, error, True)

    # Events, in the order of a connection's lifecycle.

    def run_init(self, info: ConnectionInfo, on_done: Callable[[], None]) -> None:
        """Run ``init_stream``. Neither waits nor raises.

        Args:
            info: the argument of the hook.
            on_done: called when it has returned or raised.
        """

        async def job() -> None:
            try:
                self._set_first_state(await self._call(self.init_stream, info))
            except Exception as error:
                self._on_failure(self.init_stream.label, error, True)
            on_done()

        if not self.mailbox.stopped:
            self._start(job, self.init_stream)

    def run_connect(
        self,
        info: ConnectionInfo,
        on_done: Callable[[ConnectionInfo], None],
        is_current: Callable[[ConnectionInfo], bool],
    ) -> None:
        """Run ``handle_connect``, after ``init_stream``. Neither waits nor raises.

        Args:
            info: the argument of the hook.
            on_done: called when it has returned.
            is_current: whether its link is still open; otherwise the result is discarded.
        """

        async def job() -> None:
            try:
                returned = await self._call(self.connect, info, self.state)
                result, self.state = split(self.connect, returned)
                if is_current(info):
                    self._results.apply(self.connect, result, first=True)
                on_done(info)
            except Exception as error:
                self._on_failure(self.connect.label, error, True)

        if not self.mailbox.stopped:
            self._start(job, self.connect)

    def _set_first_state(self, state: StateT) -> None:
        if inspect.iscoroutine(state):
            raise self.init_stream.bad_result(state)
        if state.__class__ in NOT_STATES:
            raise self.init_stream.bad_state(state)
        self.state = state
        self.has_state = True

    def receive(self, run: Run) -> None:
        """Run ``handle_receive`` for each message. Neither waits nor raises."""
        mailbox, hook = self.mailbox, self.receive_hook
        if mailbox.stopped:
            return
        if mailbox.pending or mailbox.active is not None or hook.is_async:
            self.backlog += len(run)
            mailbox.put(partial(self._receive_queued, run))
        elif hook.is_default:
            self._results.receive_queue.extend(run)
        else:
            self._receive_sync(run)

    def _receive_sync(self, run: Run) -> None:
        """Run a plain ``handle_receive``: the loop that handles nearly all messages."""
        hook, call, state, deliver = self.receive_hook, self.receive_hook.call, self.state, None
        receive_queue = self._results.receive_queue
        self.mailbox.active = SYNC_HOOK
        # stop() empties the run, which ends the loop.
        self._current_run = run
        frames = self._frames = iter(run)
        before = state
        try:
            for frame in frames:
                returned = call(frame, state)
                if returned.__class__ is not tuple:
                    returned = split(hook, returned)
                try:
                    result, state = returned
                except ValueError:
                    raise hook.bad_result(returned) from None
                self.state = state
                if result is None:
                    continue
                if result.__class__ is Deliver:
                    if deliver is None:
                        deliver = receive_queue.open_items().append
                    deliver(result.value)
                else:
                    self._results.apply(hook, result)
            # One check for the run: a result that was returned as the state remains the state.
            if state is not before and state.__class__ in NOT_STATES:
                raise hook.bad_state(state)
        except Exception as error:
            if state.__class__ in NOT_STATES:
                self.state = before
                if not isinstance(error, BadHookResult):
                    swapped = hook.bad_state(state)
                    swapped.__cause__, error = error, swapped
            self._on_failure(hook.label, error, True)
        finally:
            self.mailbox.active = None
        if deliver is not None:
            receive_queue.notify()

    def hold(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Do not handle any other message before ``wait`` has returned.

        Call it only inside a plain ``handle_receive``.

        Args:
            wait: does not raise, and returns immediately when the connection is closing.
        """
        if self.mailbox.runs_in_task:
            self._wait = wait
            return
        run = self._current_run
        rest = run[len(run) - length_hint(self._frames) :]
        run.clear()
        self.backlog += len(rest)
        self.mailbox.put(partial(self._receive_held, wait, rest))

    async def _receive_held(self, wait: Callable[[], Awaitable[None]], run: Run) -> None:
        await wait()
        await self._receive_queued(run)

    async def _receive_queued(self, run: Run) -> None:
        # Like _run_hook() for each message, but without two coroutines for each.
        mailbox, hook = self.mailbox, self.receive_hook
        active = trio.lowlevel.current_task() if hook.is_async else SYNC_HOOK
        for frame in run:
            if mailbox.stopped:
                return
            mailbox.active = active
            try:
                try:
                    returned = hook.call(frame, self.state)
                    if hook.is_async:
                        returned = await returned
                finally:
                    mailbox.leave()
                result, self.state = split(hook, returned)
                self._results.apply(hook, result)
            except Exception as error:
                self._on_failure(hook.label, error, True)
            self.remove_backlog()
            if self._wait is not None:
                wait, self._wait = self._wait, None
                await wait()

    def receive_invalid(self, error: DecodeError, frame: Data) -> None:
        """Run ``handle_invalid`` for a malformed message. Neither waits nor raises."""
        if self.mailbox.stopped:
            return
        self.add_backlog()
        self._start(partial(self._run_invalid, error, frame), self.invalid_hook)

    async def _run_invalid(self, invalid: DecodeError, frame: Data) -> None:
        await self._run_hook(self.invalid_hook, invalid, frame)
        self.remove_backlog()

    def handle_control(self, hook: Hook, payload: bytes) -> None:
        """Run the hook of a ping or pong. Neither waits nor raises."""
        if not (hook.is_default or self.mailbox.stopped or self.mailbox.pending >= MAX_PENDING):
            self._start(partial(self._run_hook, hook, payload), hook)

    def send(self, message: Any) -> AsyncIterable[Any] | SuspendedHook | None:
        """Run ``handle_send`` and queue its frames. Its exceptions are raised here.

        Call it only if :attr:`idle`.

        Returns:
            As in :meth:`HookResults.send`. If the hook is async and has suspended, the argument
            for :meth:`finish_send`.
        """
        hook = self.send_hook
        if hook.is_default:
            return self._results.send(hook, message)
        mailbox = self.mailbox
        # An async hook runs like a plain one until it suspends.
        mailbox.active = SYNC_HOOK
        try:
            returned = hook.call(message, self.state)
            if hook.is_async:
                nurseries = len(trio.lowlevel.current_task().child_nurseries)
                try:
                    request = returned.send(None)
                except StopIteration as done:
                    returned = done.value
                else:
                    return SuspendedHook(returned, request, nurseries)
            if returned.__class__ is not tuple or len(returned) != 2:
                returned = split(hook, returned)
            frame, state = returned
            iterable = self._results.send(hook, frame)
        except Exception as error:
            self._on_failure(hook.label, error, False)
            raise
        finally:
            mailbox.active = None
        self.state = state
        return iterable

    @property
    def idle(self) -> bool:
        """Whether no hook is running or waiting to run."""
        mailbox = self.mailbox
        return not (mailbox.pending or mailbox.active)

    async def finish_send(self, hook: SuspendedHook) -> AsyncIterable[Any] | None:
        """Run a suspended ``handle_send`` to its end and queue its frames."""
        try:
            return self._queue_sent(await self.mailbox.finish(hook))
        except Exception as error:
            self._report_call_failure(self.send_hook, error)
            raise

    async def send_queued(self, message: Any) -> AsyncIterable[Any] | None:
        """Run ``handle_send`` as a job of the mailbox."""
        hook = self.send_hook

        async def job(call: PendingCall) -> None:
            try:
                iterable = self._queue_sent(await self._call(hook, message, self.state))
            except Exception as error:
                self._report_call_failure(hook, error)
                raise
            call.set(iterable)

        return await self.mailbox.call(job)  # type: ignore[no-any-return]

    def _report_call_failure(self, hook: Hook, error: Exception) -> None:
        # After stop() the exception reports the end of the connection.
        if not (hook.is_default or self.mailbox.stopped):
            self._on_failure(hook.label, error, False)

    def _queue_sent(self, returned: Any) -> AsyncIterable[Any] | None:
        frame, state = split(self.send_hook, returned)
        if self.mailbox.stopped or self._results.closed:
            raise self._closed_error()
        iterable = self._results.send(self.send_hook, frame)
        self.state = state
        return iterable

    def cast(self, message: Any) -> None:
        """Queue a message for ``handle_cast``."""
        self.check_cast(message)
        if self.mailbox.pending >= MAX_PENDING:
            raise trio.WouldBlock
        self.mailbox.put(partial(self._run_hook, self.cast_hook, message))

    def check_cast(self, message: Any) -> None:
        """Raise UsageError if the socket has no ``handle_cast``."""
        if self.cast_hook.is_default:
            self._socket.handle_cast(message, self.state)

    async def call(self, request: Any) -> Any:
        """Run ``handle_call`` and return its reply. Its exceptions are raised here."""
        hook = self.call_hook
        if hook.is_default:
            self._socket.handle_call(request, self.state)

        async def job(call: PendingCall) -> None:
            try:
                returned = await self._call(hook, request, self.state)
                reply, result, state = split_call(hook, returned)
                self._results.apply(hook, result)
            except Exception as error:
                self._report_call_failure(hook, error)
                raise
            self.state = state
            call.set(reply)

        return await self.mailbox.call(job)

    async def run_disconnect_hook(self, reason: Disconnect) -> Any:
        """Run ``handle_disconnect`` after all queued jobs and return its decision."""

        async def job(call: PendingCall) -> None:
            try:
                call.set(await self._decide(reason))
            except Exception as error:
                # This happens before the session wakes, so that no other hook runs in between.
                self._on_failure(self.disconnect.label, error, True)

        if self.mailbox.stopped or self.disconnect.is_async or not self.idle:
            return await self.mailbox.call(job)
        call = PendingCall()
        await job(call)
        if self.mailbox.stopped:
            raise self._closed_error()
        return await call.wait()

    async def _decide(self, reason: Disconnect) -> Reconnect | Stop | None:
        hook = self.disconnect
        returned = await self._call(hook, reason, self.state)
        decision, state = split(hook, returned)
        if not (decision is None or isinstance(decision, Reconnect | Stop)):
            raise BadHookResult(
                f"{hook.label} must return a decision of None, Reconnect(...) or Stop(), "
                f"not {shorten(decision)}"
            )
        self.state = state
        return decision

    async def terminate(self, reason: Disconnect) -> None:
        """Run ``terminate``. All other tasks of the connection have ended."""
        await self.mailbox.wait_idle()
        returned = await self._call(self.terminate_hook, reason, self.state)
        if inspect.iscoroutine(returned):
            raise self.terminate_hook.bad_result(returned)
