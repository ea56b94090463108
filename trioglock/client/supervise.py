"""``supervise()``: services that are restarted when they fail, a limited number of times.

A restart recovers from a transient failure. A failure may recur, so restarts are counted, and if
there are too many within a period, the supervisor itself fails. An outer supervisor may then
restart everything below it, so a tree of supervisors isolates failures.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias, get_args

import trio

from .._hints import checks_keywords, describe_value
from .._scope import open_scope
from ..errors import InvalidOption, RestartLimit, ServiceReturned
from ..options import check_choice, check_seconds, check_whole
from ..retry import Backoff

__all__ = ["Service", "supervise"]

Service: TypeAlias = Callable[[], Awaitable[object]]
"""An async function without arguments; use ``functools.partial`` to pass arguments."""

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""When a service is restarted; see :func:`supervise`."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all"]
"""Which services are restarted after a failure; see :func:`supervise`."""

_logger = logging.getLogger("trioglock.supervise")


@checks_keywords("supervise")
async def supervise(
    *services: Service,
    max_restarts: int | None = 3,
    within: float = 5,
    strategy: Strategy = "one_for_one",
    restart: Restart = "transient",
    backoff: Backoff | None = None,
    name: str = "supervise",
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run services concurrently and restart those that fail; return when all have ended.

    ::

        await supervise(partial(run, "wss://example.org/feed", Feed()), store, max_restarts=5)

    A supervisor is a service too: ``partial(supervise, ...)`` makes a tree. An inner
    :exc:`RestartLimit` counts as one failure for the outer supervisor.

    Args:
        services: async functions without arguments.
        max_restarts: maximum number of restarts within the period, for all services combined. None
            means no limit; restarts are then always delayed, by ``Backoff()`` if ``backoff`` is
            None.
        within: seconds of the sliding period.
        strategy: ``"one_for_one"`` restarts only the failed service. ``"one_for_all"`` cancels
            the others first and restarts all, including those that had returned.
        restart: ``"transient"`` restarts a service that raises. ``"permanent"`` also restarts one
            that returns, and counts that as a failure. ``"temporary"`` never restarts: a failure
            is logged, and the other services continue.
        backoff: delays between a failure and the restart, for each service. They start over once
            the service has run for ``stable_after`` seconds. None restarts immediately, unless
            ``max_restarts`` is None as well. ``max_attempts`` and ``retryable`` apply to
            connections and are ignored here.
        name: the name of this supervisor in logs.
        task_status: passed by ``nursery.start``, which returns as soon as all services are started.

    Raises:
        RestartLimit: too many failures; the other services were cancelled.
        InvalidOption: an argument is invalid; raised immediately.
        BaseException: a service raised an exception that is not an ``Exception``; it propagates
            unchanged.
    """
    _check(services, max_restarts, within, strategy, restart, backoff)
    if backoff is None and max_restarts is None:
        # Without delays, a service that fails immediately would be restarted 100,000 times per
        # second.
        backoff = Backoff()
    endless = None if backoff is None else replace(backoff, max_attempts=None)
    supervisor = _Supervisor(name, max_restarts, within, restart, endless)
    labels = [f"{_name(service)}#{number}" for number, service in enumerate(services, 1)]
    tasks = [partial(supervisor.run_once, *pair) for pair in zip(labels, services, strict=True)]
    if strategy == "one_for_all":
        labels, tasks = ["all services"], [partial(_run_all, tasks)]
    loops = [partial(supervisor.run, *pair) for pair in zip(labels, tasks, strict=True)]
    with supervisor.scope:
        await _run_all(loops, task_status)
    if supervisor.causes:
        raise RestartLimit(supervisor.causes, within) from supervisor.last


@dataclass
class _Supervisor:
    """Restarts services and counts their failures."""

    name: str
    max_restarts: int | None
    within: float
    restart: Restart
    backoff: Backoff | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """The scope around all services."""
    failures: deque[tuple[float, Exception]] = field(default_factory=deque)
    causes: list[Exception] = field(default_factory=list)
    """The failures within the period, once they exceed the limit."""
    last: Exception | None = None
    """The failure that exceeded the limit."""

    async def run_once(self, label: str, service: Service) -> None:
        """Run a service once; a permanent service that returns has failed."""
        await service()
        _logger.info("%s: %s returned", self.name, label)
        if self.restart == "permanent":
            raise ServiceReturned(f"{label} returned")

    async def run(self, label: str, service: Service) -> None:
        """Run a service repeatedly, until it returns or the limit is exceeded."""
        delays = None if self.backoff is None else self.backoff.delays()
        while True:
            began = trio.current_time()
            try:
                await service()
            except Exception as error:
                if trio.current_effective_deadline() == -math.inf:
                    # The scope is cancelled: no restart, but the failure must not be lost.
                    if not self.causes:
                        raise
                    self.causes.append(error)
                    return
                if self.restart == "temporary":
                    _logger.exception("%s: %s failed", self.name, label)
                    return
                if not self._count_failure(label, error):
                    return
            else:
                return
            delay = 0.0
            if self.backoff is not None and delays is not None:
                if trio.current_time() - began >= self.backoff.stable_after:
                    delays = self.backoff.delays()
                delay = next(delays)
            _logger.info("%s: %s restarts in %.3g seconds", self.name, label, delay)
            await trio.sleep(delay)

    def _count_failure(self, label: str, error: Exception) -> bool:
        """Count a failure; return whether a restart is allowed, otherwise cancel all services."""
        if self.max_restarts is not None:
            now = trio.current_time()
            self.failures.append((now, error))
            while self.failures[0][0] <= now - self.within:
                self.failures.popleft()
            if len(self.failures) > self.max_restarts:
                _logger.error("%s: %s failed too often", self.name, label, exc_info=error)
                self.causes = [cause for _, cause in self.failures]
                self.last = error
                self.scope.cancel()
                return False
        _logger.warning("%s: %s failed", self.name, label, exc_info=error)
        return True


async def _run_all(
    tasks: Sequence[Service], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run all tasks concurrently; a failure cancels the others and is raised unchanged."""
    failures: list[BaseException] = []
    running = len(tasks)
    all_done = trio.Event()

    async def run(task: Service) -> None:
        nonlocal running
        try:
            await task()
        except BaseException as error:  # noqa: BLE001 - raised by open_scope
            # Exception groups are kept as raised, except for the Cancelled in them.
            failure, cancelled = _split(error)
            if failure is not None:
                failures.append(failure)
                nursery.cancel_scope.cancel()
            if cancelled is not None:
                raise cancelled from None
        running -= 1
        if not running:
            all_done.set()

    async with open_scope(failures=failures, message="several services failed") as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
        task_status.started()
        if tasks:
            await all_done.wait()


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into the failure and the Cancelled in it."""
    if isinstance(error, BaseExceptionGroup):
        cancelled, failure = error.split(trio.Cancelled)
        return (error, None) if cancelled is None else (failure, cancelled)
    return (None, error) if isinstance(error, trio.Cancelled) else (error, None)


def _name(service: Service) -> str:
    """Return the ``name`` argument of a service, or the name of the function."""
    inner: object = service
    while isinstance(inner, partial):
        given = inner.keywords.get("name")
        if isinstance(given, str):
            return given
        inner = inner.func
    return str(getattr(inner, "__name__", type(inner).__name__))


def _check(
    services: Sequence[Service],
    max_restarts: int | None,
    within: float,
    strategy: Strategy,
    restart: Restart,
    backoff: Backoff | None,
) -> None:
    for service in services:
        if not callable(service):
            close = getattr(service, "close", None)
            if isinstance(service, Awaitable) and close is not None:
                close()  # a coroutine that is never awaited
            raise InvalidOption(
                f"a service must be an async function, not {service!r}: "
                "write functools.partial(fn, *args) instead of fn(*args)"
            )
    check_whole("max_restarts", max_restarts, least=0)
    check_seconds("within", within, none=False)
    check_choice("strategy", strategy, get_args(Strategy))
    check_choice("restart", restart, get_args(Restart))
    if restart == "temporary" and strategy == "one_for_all":
        raise InvalidOption(
            "strategy='one_for_all' restarts all services, but restart='temporary' restarts none"
        )
    if not (backoff is None or isinstance(backoff, Backoff)):
        raise InvalidOption(f"backoff must be a Backoff or None, not {describe_value(backoff)}")
