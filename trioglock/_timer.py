"""Timeouts for peers. Pauses of the program itself do not count.

A program that was blocked or suspended has not read what its peers sent. Deadlines that passed in
the meantime are extended by the length of the pause, and the readers run before a peer is declared
silent.
"""

from __future__ import annotations

import heapq
import itertools
import math
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import trio

__all__ = ["CHECKS", "Entry", "PeerDeadline", "PeerTimeout", "current_timer", "effective_deadline"]

# Scheduler rounds in which readers run before a peer is declared silent. A task of another library
# may be between the socket and the reader.
GRACE_ROUNDS = 5

# A timeout is checked this many times; a pause is detected if a check was due during the pause.
CHECKS = 8


class Timed(Protocol):
    """An object that a :class:`Timer` checks."""

    @property
    def is_suspect(self) -> bool:
        """Whether the next check is final; the readers run before it."""

    def check(self, now: float, due: float) -> float:
        """Check whether a peer was silent for too long.

        Args:
            now: the current time.
            due: the time for which the check was scheduled.

        Returns:
            The time of the next check.
        """


Entry: TypeAlias = list[Any]
"""A scheduled check: its time, a unique number, and the object to check, or None once removed."""


class Timer:
    """Runs all checks of one ``trio.run`` in one task, while there are any."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []  # a heap
        self._numbers = itertools.count()
        self._active = 0
        self._sleep = trio.CancelScope()
        self._running = False

    def add(self, timed: Timed, due: float) -> Entry:
        """Start checking, for the first time at ``due``."""
        entry = [due, next(self._numbers), timed]
        heapq.heappush(self._entries, entry)
        self._active += 1
        if not self._running:
            self._running = True
            trio.lowlevel.spawn_system_task(self._run)
        elif due < self._sleep.deadline:
            self._sleep.deadline = due
        return entry

    def remove(self, entry: Entry) -> None:
        """Stop checking."""
        entry[2] = None
        self._active -= 1
        if not self._active:
            self._entries.clear()
            self._sleep.cancel()
        elif len(self._entries) > 2 * self._active + 64:
            self._entries = [entry for entry in self._entries if entry[2] is not None]
            heapq.heapify(self._entries)

    async def _run(self) -> None:
        try:
            while self._entries:
                with trio.CancelScope(deadline=self._entries[0][0]) as self._sleep:
                    await trio.sleep_forever()
                await self._check_due(trio.current_time())
        finally:
            self._running = False

    async def _check_due(self, now: float) -> None:
        suspects: list[Entry] = []
        while self._entries and self._entries[0][0] <= now:
            entry = heapq.heappop(self._entries)
            if entry[2] is not None and entry[2].is_suspect:
                suspects.append(entry)
            else:
                self._check(entry, now)
        if suspects:
            for _ in range(GRACE_ROUNDS):
                await trio.lowlevel.checkpoint()
            for entry in suspects:
                self._check(entry, now)

    def _check(self, entry: Entry, now: float) -> None:
        timed: Timed | None = entry[2]
        if timed is not None:
            entry[0] = timed.check(now, entry[0])
        if entry[2] is not None:
            heapq.heappush(self._entries, entry)


_timer: trio.lowlevel.RunVar[Timer] = trio.lowlevel.RunVar("trioglock timer")


def current_timer() -> Timer:
    """Return the timer of the current ``trio.run``."""
    try:
        return _timer.get()
    except LookupError:
        timer = Timer()
        _timer.set(timer)
        return timer


class HasCancel(Protocol):
    """An object that a :class:`PeerDeadline` cancels, such as a cancel scope."""

    def cancel(self) -> None:
        """Called at the deadline."""


class PeerDeadline:
    """The deadline of a cancel scope that limits the wait for a peer.

    Args:
        scope: is cancelled at the deadline; its own deadline is not used.
        deadline: the time, or infinity.
    """

    __slots__ = ("_deadline", "_entry", "_scope", "_step", "expired", "is_suspect")

    def __init__(self, scope: HasCancel, deadline: float) -> None:
        self.expired: bool = False
        """Whether the deadline has cancelled the scope."""
        self.is_suspect: bool = False
        self._scope = scope
        self._entry: Entry | None = None
        self.move(deadline)

    @property
    def time(self) -> float:
        """The deadline, if the program does not pause before then."""
        return self._deadline

    def move(self, deadline: float) -> None:
        """Change the deadline; infinity removes it."""
        self.stop()
        self._deadline = deadline
        if deadline < math.inf:
            now = trio.current_time()
            self._step = max(0.0, deadline - now) / CHECKS
            self._entry = current_timer().add(self, now + self._step)

    def stop(self) -> None:
        """Remove the deadline."""
        self._deadline = math.inf
        self.is_suspect = False
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)

    def check(self, now: float, due: float) -> float:
        """Extend the deadline by the pause that delayed this check, or cancel the scope."""
        if self.is_suspect:
            self.stop()
            self.expired = True
            self._scope.cancel()
            return math.inf
        self._deadline += now - due
        if now < self._deadline:
            return min(now + self._step, self._deadline)
        self.is_suspect = True
        return now


class PeerTimeout:
    """Like ``trio.move_on_after``, for waiting for a peer: pauses of the program do not count.

    Args:
        seconds: the timeout; None for no limit.
    """

    __slots__ = ("_deadline", "_scope", "_token")

    def __init__(self, seconds: float | None) -> None:
        self._scope = trio.CancelScope()
        end = math.inf if seconds is None else trio.current_time() + seconds
        self._deadline = PeerDeadline(self._scope, end)
        self._token: Token[PeerDeadline | None]

    def __enter__(self) -> PeerDeadline:
        self._scope.__enter__()
        self._token = _innermost.set(self._deadline)
        return self._deadline

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._deadline.stop()
        _innermost.reset(self._token)
        del self._token
        return bool(self._scope.__exit__(kind, error, traceback))


_innermost: ContextVar[PeerDeadline | None] = ContextVar("trioglock deadline", default=None)


def effective_deadline() -> float:
    """Return the deadline of the current task, with that of the innermost :class:`PeerTimeout`."""
    innermost = _innermost.get()
    deadline = trio.current_effective_deadline()
    return deadline if innermost is None else min(deadline, innermost.time)
