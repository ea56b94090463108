"""``supervise()``: services that are started again when they fail, but not for ever.

The theory. A failure that a restart cures is forgotten; one that comes back is not cured, so
restarts are counted, and too many within a period are a failure of the supervisor itself. Its own
supervisor may then try a restart of everything below: a tree of them isolates what is broken.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

import trio

from ..backoff import Backoff
from ..errors import InvalidOption, RestartLimit, ServiceReturned
from ..options import check_seconds, check_whole

__all__ = ["Service", "supervise"]

Service: TypeAlias = Callable[[], Awaitable[object]]
"""What is supervised: an async function without arguments; ``functools.partial`` takes them."""

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""Which ends make a service start again; see :func:`supervise`."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all"]
"""Which services start again with the one that failed; see :func:`supervise`."""

_logger = logging.getLogger("trioglock.supervise")


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
    """Run services at the same time and start again those that fail; return when all have ended.

    ::

        await supervise(partial(run, "wss://example.org/feed", Feed()), store, max_restarts=5)

    A supervisor is a service too: ``partial(supervise, ...)`` makes a tree. An inner
    :exc:`RestartLimit` is one failure for the outer.

    Args:
        services: async functions without arguments.
        max_restarts: how often services may be started again within the period, all of them
            together; None for any number.
        within: seconds of the period, which slides with the clock.
        strategy: ``"one_for_one"`` starts only the failed service again. ``"one_for_all"`` cancels
            the others first and starts all again, also those that had returned.
        restart: ``"transient"`` starts a service again when it raises: one that returns has done
            its work. ``"permanent"`` also when it returns, which then counts as a failure.
            ``"temporary"`` never: a failure is logged, and the others go on.
        backoff: delays between a failure and the restart, for each service; they begin anew once
            it has run for ``stable_after`` seconds. None restarts at once. ``max_attempts`` and
            ``retryable`` are those of connections and mean nothing here.
        name: what logs call this supervisor.
        task_status: of ``nursery.start``, which returns as soon as all services are started.

    Raises:
        RestartLimit: one failure too many; the other services were cancelled.
        InvalidOption: at once.
        BaseException: whatever a service raises that is no Exception, as it was raised.
    """
    _check(services, max_restarts, within, strategy, restart, backoff)
    supervisor = _Supervisor(name, max_restarts, within, restart, backoff)
    labels = [f"{_name(service)}#{number}" for number, service in enumerate(services, 1)]
    members = [
        partial(supervisor.live, label, service)
        for label, service in zip(labels, services, strict=True)
    ]
    if strategy == "one_for_all":
        labels, members = ["all services"], [partial(_together, members)]
    keepers = [
        partial(supervisor.keep, label, member)
        for label, member in zip(labels, members, strict=True)
    ]
    with supervisor.scope:
        await _together(keepers, task_status)
    if supervisor.causes:
        raise RestartLimit(supervisor.causes, within) from supervisor.last


class _Supervisor:
    """Counts the failures of its services and decides what follows."""

    def __init__(
        self,
        name: str,
        max_restarts: int | None,
        within: float,
        restart: Restart,
        backoff: Backoff | None,
    ) -> None:
        self._name = name
        self._max_restarts = max_restarts
        self._within = within
        self._restart = restart
        self._backoff = None if backoff is None else replace(backoff, max_attempts=None)
        self._failures: deque[tuple[float, Exception]] = deque()
        self.scope: trio.CancelScope = trio.CancelScope()
        """Around all services."""
        self.causes: list[Exception] = []
        """What the services raised, once that was too much."""
        self.last: Exception | None = None
        """The failure that was one too many."""

    async def live(self, label: str, service: Service) -> None:
        """One life of one service; where it must not end, its return is a failure."""
        await service()
        _logger.info("%s: %s has returned", self._name, label)
        if self._restart == "permanent":
            raise ServiceReturned(f"{label} has returned")

    async def keep(self, label: str, service: Service) -> None:
        """Life after life, until it returns or the limit is exceeded."""
        delays = None if self._backoff is None else self._backoff.delays()
        while True:
            began = trio.current_time()
            try:
                await service()
            except Exception as error:
                if trio.current_effective_deadline() == -math.inf:
                    # It was being stopped: nothing is started again, and nothing is lost.
                    if not self.causes:
                        raise
                    self.causes.append(error)
                    return
                if self._restart == "temporary":
                    _logger.exception("%s: %s failed", self._name, label)
                    return
                if not self._forgives(label, error):
                    return
            else:
                return
            delay = 0.0
            if self._backoff is not None and delays is not None:
                if trio.current_time() - began >= self._backoff.stable_after:
                    delays = self._backoff.delays()
                delay = next(delays)
            _logger.info("%s: %s starts again in %.3g seconds", self._name, label, delay)
            await trio.sleep(delay)

    def _forgives(self, label: str, error: Exception) -> bool:
        """Count a failure; if it is one too many, stop all services."""
        if self._max_restarts is not None:
            now = trio.current_time()
            self._failures.append((now, error))
            while self._failures[0][0] <= now - self._within:
                self._failures.popleft()
            if len(self._failures) > self._max_restarts:
                _logger.error("%s: %s failed once too often", self._name, label, exc_info=error)
                self.causes = [cause for _, cause in self._failures]
                self.last = error
                self.scope.cancel()
                return False
        _logger.warning("%s: %s failed", self._name, label, exc_info=error)
        return True


async def _together(
    tasks: Sequence[Service], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run all at the same time; a failure cancels the others and comes out as it was raised."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            task_status.started()
    except BaseExceptionGroup as group:
        failure = _bare(group)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # no cycle between the exception and this frame


def _bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure in a group of our nursery's; if there are several, a group of them."""
    failures = [failure for failure in map(_real, group.exceptions) if failure is not None]
    if failures:
        return failures[0] if len(failures) == 1 else BaseExceptionGroup(group.message, failures)
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _real(error: BaseException) -> BaseException | None:
    """A failure without the Cancelled that came along with it; None if that is all there is."""
    if isinstance(error, BaseExceptionGroup) and error.subgroup(trio.Cancelled) is not None:
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


def _name(service: Service) -> str:
    """What to call a service: its ``name`` argument, or the name of the function."""
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
                close()  # a coroutine that nobody will ever await
            raise InvalidOption(
                f"a service is an async function, not {service!r}: "
                "write functools.partial(fn, *args) instead of fn(*args)"
            )
    check_whole("max_restarts", max_restarts, least=0)
    if within is None:
        raise InvalidOption("within is a number of seconds, not None")
    check_seconds("within", within)
    if strategy not in ("one_for_one", "one_for_all"):
        raise InvalidOption(f"strategy is 'one_for_one' or 'one_for_all', not {strategy!r}")
    if restart not in ("permanent", "transient", "temporary"):
        raise InvalidOption(f"restart is 'permanent', 'transient' or 'temporary', not {restart!r}")
    if restart == "temporary" and strategy == "one_for_all":
        raise InvalidOption("strategy='one_for_all' restarts all, restart='temporary' none")
    if not (backoff is None or isinstance(backoff, Backoff)):
        raise InvalidOption(f"backoff is a Backoff or None, not {backoff!r}")
