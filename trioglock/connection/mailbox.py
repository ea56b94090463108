"""The mailbox: the jobs of one connection's hooks, run one at a time and in order.

If no job is pending and the hook is a plain ``def``, the task in which the job occurs runs the hook
directly; no other task can run in between. Otherwise the job goes into a trio memory channel, and
the mailbox's task runs it. ``pending`` counts the unfinished jobs; the direct path is taken only if
it is 0.

``active`` is set while a hook runs. A plain hook cannot suspend, so any code that runs in the
meantime was called by the hook. An ``async`` hook can suspend; only its own task, and the child
tasks for which it waits, are then inside the hook.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeAlias, TypeVar

import trio

from .._scope import is_cancelled
from ..errors import UsageError
from ._sync import NO_WAITERS
from .background import Background

__all__ = ["SYNC_HOOK", "Job", "Mailbox", "PendingCall", "SuspendedHook", "run_now"]

T = TypeVar("T")

Job: TypeAlias = Callable[[], Awaitable[None]]
"""Runs a hook. Must not raise anything except Cancelled."""

SYNC_HOOK = object()
"""The value of ``active`` while a plain hook runs."""


class PendingCall:
    """The future result of a job whose caller waits for it."""

    def __init__(self) -> None:
        self.withdrawn: bool = False
        """Whether the caller was cancelled; if so, a job that has not started is skipped."""
        self._done = trio.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any) -> None:
        """Set the result."""
        self._value = value
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Set the exception, unless there is a result."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def wait(self) -> Any:
        """Wait for the result. Cancellation withdraws a job that has not started."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            self.withdrawn = True
            raise
        if self._error is not None:
            raise self._error
        return self._value


class Mailbox:
    """The job queue of one actor, with a task that is started for the first queued job.

    Args:
        background: starts the task.
        closed_error: creates the exception for calls after the end.
    """

    __slots__ = (
        "_background",
        "_closed_error",
        "_idle_waiters",
        "_in_caller",
        "_pending_calls",
        "_send_channel",
        "_task",
        "active",
        "pending",
        "stopped",
    )

    def __init__(
        self,
        background: Background,
        closed_error: Callable[[], Exception],
    ) -> None:
        self.pending: int = 0
        """The number of queued and running jobs."""
        self.active: object = None
        """None, :data:`SYNC_HOOK`, or the task that runs an async hook."""
        self.stopped: bool = False
        self._background = background
        self._closed_error = closed_error
        self._send_channel: trio.MemorySendChannel[Job] | None = None
        self._pending_calls: set[PendingCall] | None = None
        self._task: trio.lowlevel.Task | None = None
        self._idle_waiters = NO_WAITERS
        self._in_caller: SuspendedHook | None = None

    def put(self, job: Job) -> None:
        """Queue a job."""
        if self._send_channel is None:
            self._send_channel, jobs = trio.open_memory_channel[Job](math.inf)
            self._background.start(partial(self._run, jobs))
        self._send_channel.send_nowait(job)
        self.pending += 1

    async def call(self, job: Callable[[PendingCall], Awaitable[None]]) -> Any:
        """Queue a job and wait for its result. Its exceptions are raised here."""
        if self.stopped:
            raise self._closed_error()
        pending_call = PendingCall()
        pending_calls = self._pending_calls = self._pending_calls or set()
        pending_calls.add(pending_call)
        try:
            self.put(partial(_run_call, job, pending_call))
            return await pending_call.wait()
        finally:
            pending_calls.discard(pending_call)

    async def finish(self, hook: SuspendedHook) -> Any:
        """Run an async hook to its end, in the task that has started it, and return its result.

        Raises:
            ConnectionClosed: the mailbox was stopped before the hook returned.
            Exception: raised by the hook.
        """
        self.pending += 1
        self.active = trio.lowlevel.current_task()
        self._in_caller = hook
        try:
            return await hook
        except BaseException as error:
            # A cancellation of the caller takes precedence.
            free = trio.current_effective_deadline() > -math.inf
            if hook.interrupted and free and is_cancelled(error):
                raise self._closed_error() from None
            raise
        finally:
            self._in_caller = None
            self.pending -= 1
            self.leave()

    async def wait_idle(self) -> None:
        """Wait until no hook is running."""
        while self.active is not None:
            self._idle_waiters = self._idle_waiters.own()
            await self._idle_waiters.park()

    async def _run(self, jobs: trio.MemoryReceiveChannel[Job]) -> None:
        self._task = trio.lowlevel.current_task()
        try:
            async for job in jobs:
                await self.wait_idle()
                try:
                    if not self.stopped:
                        await job()
                finally:
                    self.pending -= 1
        finally:
            self._task = None  # it refers to this object

    @property
    def runs_in_task(self) -> bool:
        """Whether the current task is the mailbox's."""
        return self._task is not None and trio.lowlevel.current_task() is self._task

    def leave(self) -> None:
        """Record that the hook has returned, and wake the mailbox's task."""
        self.active = None
        if self._idle_waiters:
            self._idle_waiters.unpark_all()

    def reject_inside_hook(self, call: str) -> None:
        """Raise UsageError if the caller is inside a hook of this connection."""
        if self.active is SYNC_HOOK or (self.active is not None and self._is_inside()):
            raise UsageError(
                f"{call}() cannot be used inside a hook of the same connection, because it would "
                "wait for that hook: return Reply(...), Close(...) or Deliver(...), or use cast()"
            )

    def _is_inside(self) -> bool:
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        if task is self.active:
            return True
        if self.active is not self._task:
            return False
        # All nurseries of the mailbox's task were opened by hooks, which wait for their children.
        while task is not None and task is not self._task:
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return task is not None

    def stop(self) -> None:
        """Run no more jobs, and fail all waiting calls."""
        self.stopped = True
        if self._in_caller is not None:
            self._in_caller.interrupt()
        self.fail_calls()

    def fail_calls(self) -> None:
        """Fail all waiting calls; jobs that have started continue."""
        for pending_call in self._pending_calls or ():
            pending_call.fail(self._closed_error())


async def _run_call(
    job: Callable[[PendingCall], Awaitable[None]], pending_call: PendingCall
) -> None:
    if pending_call.withdrawn:
        return
    try:
        await job(pending_call)
    except trio.Cancelled:
        raise
    except BaseException as error:
        pending_call.fail(error)


def run_now(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not suspend, and return its result."""
    try:
        job.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    job.close()
    raise AssertionError("a plain hook cannot suspend")


class SuspendedHook:
    """An async hook that has suspended; awaiting it continues the hook.

    Another task can cancel it, at no cost while it does not block: a ``trio.CancelScope`` around
    every call of an async hook would take longer than the hook. A scope is entered only while the
    hook is suspended, inside any scopes that the hook has opened, and left before it resumes. A
    nursery waits for its children regardless of such an inner scope, so the nurseries of the hook
    are cancelled separately.

    Args:
        coroutine: the hook, started in the task that awaits this object.
        request: the value it yielded for trio.
        nurseries: the number of nurseries that the task had open before the start.
    """

    __slots__ = (
        "_cancelled",
        "_coroutine",
        "_nurseries",
        "_request",
        "_task",
        "_wait",
        "interrupted",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, Any], request: Any, nurseries: int) -> None:
        self.interrupted: bool = False
        """Whether :meth:`interrupt` was called."""
        self._coroutine = coroutine
        self._request = request
        self._task = trio.lowlevel.current_task()
        self._nurseries = nurseries
        self._cancelled = False  # whether the coroutine has received Cancelled
        self._wait = trio.CancelScope()

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, request = self._coroutine, self._request
        try:
            while True:
                try:
                    # The coroutine's cleanup is not interrupted.
                    result = (
                        (yield request) if self._cancelled else (yield from self._waiting(request))
                    )
                except BaseException as error:
                    request = coroutine.throw(error)
                else:
                    request = coroutine.send(result)
        except StopIteration as done:
            return done.value

    def _waiting(self, request: Any) -> Generator[Any, Any, Any]:
        with trio.CancelScope() as self._wait:
            if self.interrupted:
                self._wait.cancel()
            result = yield request
        # trio sends an outcome, which the coroutine unwraps.
        cancelled = isinstance(getattr(result, "error", None), trio.Cancelled)
        self._cancelled = self.interrupted and cancelled
        return result

    def interrupt(self) -> None:
        """Raise ``trio.Cancelled`` once where the coroutine is suspended, even inside a shield."""
        self.interrupted = True
        self._wait.cancel()
        for nursery in self._task.child_nurseries[self._nurseries :]:
            nursery.cancel_scope.cancel()
