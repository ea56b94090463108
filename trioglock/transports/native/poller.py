"""One poller for many sockets, on Linux.

If each link waited for its own socket, every message would cost a system call of trio's I/O manager
and a switch to the link's task. With many connections, that is half of the cost of echoing a
message. Therefore one task for each ``trio.run`` waits until an epoll instance, which contains the
sockets of all links, is readable, and calls the functions that read and handle received bytes.
In the meantime, the task of each link is parked. The task wakes up when its function returns a
result or raises an exception, and when the task is cancelled.

The function of a link reads one chunk, in the context (:mod:`contextvars`) of the link's task. One
turn makes at most :data:`TURN` such calls and does not poll again after :data:`TURN_SECONDS`, so
a peer that sends continuously delays the others only slightly. There is a checkpoint between turns,
so other tasks run. Polling is level-triggered, so data that a turn leaves unread is reported again.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import outcome
import trio

if sys.platform == "linux":
    from select import EPOLLIN
    from select import epoll as Epoll  # noqa: N812
elif TYPE_CHECKING:  # on other systems
    EPOLLIN = 1

    class Epoll(Any): ...  # type: ignore[misc]


__all__ = ["AGAIN", "ENDED", "LEFT", "PAUSED", "WAIT", "Poller", "poller_of_run"]

_logger = logging.getLogger("trioglock")

TURN = 128
"""Maximum number of links handled in one turn. A list of several hundred events would also start
the garbage collector each time."""

TURN_SECONDS = 0.0003
"""Seconds after the beginning of a turn during which the turn may poll again."""

is_supported: bool = sys.platform == "linux"
"""Whether this system has epoll."""

enabled: bool = is_supported
"""Whether links use a poller. Tests set it to False, to run as on other systems."""


# The results of a link's function. Plain integers, because an enum would slow down every chunk.
WAIT = 0
"""Call the function again when the descriptor is readable."""
AGAIN = 1
"""Call the function again in the next turn: bytes or events are still buffered in the link."""
PAUSED = 2
"""Do not call the function again: its task continues."""
ENDED = 3
"""Do not call the function again: the stream has ended."""
LEFT = 4
"""Do not call the function again: its task reads from the stream itself from now on."""


class _Entry:
    """A link in the poller: the function to call, and the task that is parked."""

    __slots__ = ("end", "fd", "step", "task")

    def __init__(self, fd: int, step: Callable[[], int], task: trio.lowlevel.Task) -> None:
        self.fd = fd
        self.step = step
        self.task = task
        # Set if the task must be woken while ``step`` is running: raises the exception that the
        # task receives.
        self.end: Callable[[], Any] | None = None


class Poller:
    """Feeds the links of one ``trio.run``.

    The epoll instance and the task exist from the first :meth:`feed` until the last link leaves.
    """

    __slots__ = (
        "_again",
        "_current",
        "_deferred",
        "_entries",
        "_epoll",
        "_stale",
        "defers",
        "links",
    )

    def __init__(self) -> None:
        self.links: int = 0
        """The number of links that have joined and not left."""
        self._entries: dict[int, _Entry] = {}
        self._again: dict[int, _Entry] = {}  # entries that are not waiting for their descriptor
        self._current: _Entry | None = None  # the entry whose function is running
        self._deferred: list[tuple[_Entry, Callable[[], None]]] = []
        self.defers: bool = False
        """Whether several links are being fed, so that :meth:`defer` may be called."""
        self._epoll: Epoll | None = None
        self._stale = False  # the epoll instance may contain a file that cannot be removed

    def join(self) -> None:
        """Count a link that may use the poller."""
        self.links += 1

    def leave(self) -> None:
        """Stop counting a link."""
        self.links -= 1
        if not self.links:
            self._close()

    async def feed(self, fd: int, step: Callable[[], int]) -> int:
        """Call ``step`` whenever ``fd`` is readable, until it returns a final result or raises.

        Args:
            fd: an open descriptor, which only the caller reads.
            step: reads one chunk and handles it, without waiting. It runs in the context of the
                current task, but in another task.

        Returns:
            PAUSED, ENDED or LEFT, as returned by ``step``; also LEFT if the poller cannot be used.

        Raises:
            OSError: the descriptor was closed.
        """
        entry = _Entry(fd, step, trio.lowlevel.current_task())
        if not self._add(entry):
            return LEFT

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            if entry is self._current:
                entry.end = raise_cancel
                return trio.lowlevel.Abort.FAILED
            self._remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        result: int = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def defer(self, write: Callable[[], None]) -> None:
        """Call ``write`` after all readable links have been fed; see :meth:`Link.defer`."""
        assert self._current is not None
        self._deferred.append((self._current, write))

    def closed(self, fd: int) -> None:
        """Wake the task that is waiting for ``fd``, if any, because the descriptor was closed."""
        entry = self._entries.get(fd)
        if entry is None:
            return
        if entry is self._current:
            entry.end = entry.end or _raise_closed
        else:
            self._wake(entry, outcome.capture(_raise_closed))

    def _add(self, entry: _Entry) -> bool:
        if self._epoll is None:
            self._epoll = Epoll()
            trio.lowlevel.spawn_system_task(self._run, name="trioglock poller")
        # The number may still belong to a link whose descriptor was closed by other code.
        self.closed(entry.fd)
        try:
            self._epoll.register(entry.fd, EPOLLIN)
        except (OSError, ValueError):  # ValueError: a closed socket has the number -1
            return False
        self._entries[entry.fd] = entry
        return True

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.fd]
        self._again.pop(entry.fd, None)
        if self._epoll is not None:
            try:
                self._epoll.unregister(entry.fd)
            except OSError:
                # The descriptor is closed. If another process has inherited the file, the file
                # stays in the epoll instance, which may then always be readable.
                self._stale = True

    def _wake(self, entry: _Entry, result: outcome.Outcome[int]) -> None:
        self._remove(entry)
        trio.lowlevel.reschedule(entry.task, result)

    def _renew(self) -> Epoll:
        """Replace the epoll instance with one that contains nothing but the links."""
        if self._epoll is not None:
            self._epoll.close()
        self._stale = False
        self._epoll = Epoll()
        for entry in list(self._entries.values()):
            try:
                self._epoll.register(entry.fd, EPOLLIN)
            except OSError:
                self.closed(entry.fd)
        return self._epoll

    def _close(self) -> None:
        """Close the epoll instance, which ends the task."""
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            trio.lowlevel.notify_closing(epoll)
            epoll.close()

    # The task.

    async def _run(self) -> None:
        epoll = self._epoll
        try:
            while epoll is not None and epoll is self._epoll:
                if self._again:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(epoll)
                if epoll is self._epoll:
                    if self._stale:
                        epoll = self._renew()
                    self._turn(epoll)
        except (OSError, trio.ClosedResourceError):
            pass  # the epoll instance was closed
        finally:
            if epoll is self._epoll:
                # The run is ending, or other code has closed the epoll instance: from now on,
                # each task waits for its own socket.
                self._close()
                for entry in list(self._entries.values()):
                    self._wake(entry, outcome.Value(LEFT))

    def _turn(self, epoll: Epoll) -> None:
        """Call the functions of the links that are readable or have buffered data."""
        ready = epoll.poll(0, TURN)
        if self._again:
            ready = self._add_again(ready)
        until = time.perf_counter() + TURN_SECONDS
        left = TURN
        while ready:
            self.defers = left < TURN or len(ready) > 1
            self._feed_ready(ready)
            # A pass through the scheduler takes longer than handling several short messages, and
            # more may have arrived in the meantime.
            left -= len(ready)
            if left <= 0 or epoll is not self._epoll or time.perf_counter() > until:
                return
            ready = epoll.poll(0, left)

    def _feed_ready(self, ready: list[tuple[int, int]]) -> None:
        entries = self._entries
        for fd, _ in ready:
            entry = entries.get(fd)
            if entry is None:
                continue  # removed in this turn
            self._current = entry
            try:
                progress = entry.task.context.run(entry.step)
            except BaseException as error:  # noqa: BLE001 - passed to the task
                self._current = None
                self._wake(entry, outcome.Error(error))
            else:
                self._current = None
                if progress or entry.end is not None:
                    self._finish(entry, progress)
        self.defers = False
        if self._deferred:
            self._call_deferred()

    def _call_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for entry, write in deferred:
            try:
                entry.task.context.run(write)
            except BaseException as error:
                if self._entries.get(entry.fd) is entry:
                    self._wake(entry, outcome.Error(error))
                else:
                    # Its task was already woken in this turn, and the poller's task must not end.
                    _logger.exception("could not write the replies of a connection")

    def _add_again(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Add the links that are not waiting for their descriptor, the oldest ones first."""
        again = list(islice(self._again, TURN))
        for fd in again:
            del self._again[fd]
        fds = dict.fromkeys([*again, *(fd for fd, _ in ready)])
        return [(fd, 0) for fd in fds]

    def _finish(self, entry: _Entry, progress: int) -> None:
        if progress > AGAIN:
            self._wake(entry, outcome.Value(progress))
        elif entry.end is not None:
            self._wake(entry, outcome.capture(entry.end))
        else:
            self._again[entry.fd] = entry


def _raise_closed() -> NoReturn:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


_poller: trio.lowlevel.RunVar[Poller] = trio.lowlevel.RunVar("trioglock poller")


def poller_of_run() -> Poller | None:
    """Return the poller of this ``trio.run``, or None on systems without epoll."""
    if not enabled:
        return None
    try:
        return _poller.get()
    except LookupError:
        poller = Poller()
        _poller.set(poller)
        return poller
