"""The mailbox: what the hooks have to do, one job at a time, in the order in which it came.

The theory. Whatever happens is a *job* for the hooks. While nothing is pending, a job whose hook
is a plain ``def`` is simply done, on the spot, in the task that brought it: no other task can run
in between. Otherwise it goes into a trio memory channel, and the actor's task does it in its
turn. ``pending`` counts the jobs that are posted and not done, so it is the whole test for the
short cut.

``active`` says who is inside a hook. A plain hook is on the stack while it is set, so whoever
calls then is inside. An ``async`` hook suspends, and then only its own task is inside, and the
tasks that it has started and waits for.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import trio

from .._scope import is_cancelled
from ..errors import UsageError
from ._sync import Waiters
from .cancellable import Cancellable

__all__ = ["PLAIN", "Answer", "Job", "Mailbox"]

Job: TypeAlias = Callable[[], Awaitable[None]]
"""Something for a hook to do; raises nothing but Cancelled."""

PLAIN = object()
"""The value of ``active`` while a plain hook runs, in whatever task."""


class Answer:
    """What a caller waits for while its job is in the mailbox."""

    def __init__(self) -> None:
        self.withdrawn: bool = False
        """The caller has gone away: a job that has not begun need not."""
        self._done = trio.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any) -> None:
        """The job is done."""
        self._value = value
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """The job cannot be done, or its hook raised."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def wait(self) -> Any:
        """The value, or the error raised here; a cancelled wait withdraws a job not yet begun."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            self.withdrawn = True
            raise
        if self._error is not None:
            raise self._error
        return self._value


class Mailbox:
    """The queue of one actor, and the task that works it off.

    Args:
        spawn: starts that task, when it is first needed.
        closed_error: makes the error for callers that come too late.
    """

    def __init__(
        self,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        closed_error: Callable[[], Exception],
    ) -> None:
        self.pending: int = 0
        """Jobs that are posted, or being done in a caller's task, and not done."""
        self.active: object = None
        """Who is inside a hook: nobody (None), a plain hook (PLAIN), or a task."""
        self.stopped: bool = False
        self._spawn = spawn
        self._closed_error = closed_error
        self._post: trio.MemorySendChannel[Job] | None = None
        self._answers: set[Answer] = set()
        self._task: trio.lowlevel.Task | None = None
        self._turn = Waiters()
        self._here: Cancellable | None = None

    def put(self, job: Job) -> None:
        """Post a job."""
        if self._post is None:
            self._post, jobs = trio.open_memory_channel[Job](math.inf)
            self._spawn(partial(self._run, jobs))
        self._post.send_nowait(job)
        self.pending += 1

    async def ask(self, job: Callable[[Answer], Awaitable[None]]) -> Any:
        """Post a job and wait for its answer; raises what the job raises."""
        if self.stopped:
            raise self._closed_error()
        answer = Answer()
        self._answers.add(answer)
        try:
            self.put(partial(_answering, job, answer))
            return await answer.wait()
        finally:
            self._answers.discard(answer)

    async def run_here(self, hook: Coroutine[Any, Any, Any]) -> Any:
        """Run an async hook in the caller's task, as good as any while nothing is pending.

        Raises:
            ConnectionClosed: the mailbox was stopped meanwhile.
            Exception: what the hook raises.
        """
        self.pending += 1
        self.active = task = trio.lowlevel.current_task()
        nurseries = len(task.child_nurseries)
        try:
            wish = hook.send(None)
            return await self._wait_for(Cancellable(hook, wish, nurseries))
        except StopIteration as done:
            return done.value
        finally:
            self.pending -= 1
            self.leave()

    async def _wait_for(self, here: Cancellable) -> Any:
        self._here = here
        try:
            return await here
        except BaseException as error:
            # If the caller is cancelled as well, that goes first.
            free = trio.current_effective_deadline() > -math.inf
            if here.interrupted and free and is_cancelled(error):
                raise self._closed_error() from None
            raise
        finally:
            self._here = None

    async def wait_idle(self) -> None:
        """Wait until nobody is inside a hook."""
        while self.active is not None:
            await self._turn.park()

    async def _run(self, jobs: trio.MemoryReceiveChannel[Job]) -> None:
        self._task = trio.lowlevel.current_task()
        async for job in jobs:
            await self.wait_idle()
            try:
                if not self.stopped:
                    await job()
            finally:
                self.pending -= 1

    def enter(self) -> None:
        """The current task begins a hook that may suspend."""
        self.active = trio.lowlevel.current_task()

    def leave(self) -> None:
        """It has returned; the mailbox's task may have waited for that."""
        self.active = None
        if self._turn:
            self._turn.unpark_all()

    def refuse_inside(self, call: str) -> None:
        """Raise UsageError if the caller is inside a hook of this connection."""
        if self.active is PLAIN or (self.active is not None and self._is_inside()):
            raise UsageError(
                f"{call}() would wait for the very hook it is called in: return Reply(...), "
                "Close(...) or Deliver(...) from the hook, or leave it a note with cast()"
            )

    def _is_inside(self) -> bool:
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        if task is self.active:
            return True
        if self.active is not self._task:
            return False
        # The mailbox's task opens no nursery but those of hooks: they wait for these tasks.
        while task is not None and task is not self._task:
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return task is not None

    def stop(self) -> None:
        """Do no further job; whoever waits for one learns that it is over."""
        self.stopped = True
        if self._here is not None:
            self._here.interrupt()
        self.fail_answers()

    def fail_answers(self) -> None:
        """Let nobody wait for an answer any longer; the jobs themselves go on."""
        for answer in self._answers:
            answer.fail(self._closed_error())


async def _answering(job: Callable[[Answer], Awaitable[None]], answer: Answer) -> None:
    if answer.withdrawn:
        return
    try:
        await job(answer)
    except trio.Cancelled:
        raise
    except BaseException as error:
        answer.fail(error)
