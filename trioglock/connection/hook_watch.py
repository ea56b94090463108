"""Warns about hooks that block the event loop.

A thread looks once per second at the functions that are running in the threads with connections.
Measuring the time of every hook would slow down every message, and would not reveal the line.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

__all__ = ["watch_hooks"]

INTERVAL = 1.0
"""Seconds between two inspections. A hook that is found twice in the same call is reported."""

_PACKAGE = __name__.partition(".")[0]
_RUNNERS = (
    f"{_PACKAGE}.connection.actor",
    f"{_PACKAGE}.connection.mailbox",
    f"{_PACKAGE}.channels.actor",
)

_logger = logging.getLogger("trioglock.connection")
_lock = threading.Lock()
_threads: set[int] = set()
_watcher: threading.Thread | None = None


def watch_hooks() -> None:
    """Warn from now on if a hook blocks the current thread, until the thread ends."""
    thread = threading.get_ident()
    if thread not in _threads:
        _start(thread)


def _start(thread: int) -> None:
    global _watcher  # noqa: PLW0603 - one for the process
    with _lock:
        _threads.add(thread)
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_watch, name="trioglock hooks", daemon=True)
            with suppress(RuntimeError):  # no thread can be started
                _watcher.start()


def _reset() -> None:
    """Start again in a forked process, which has only the thread that forked."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)


def _watch() -> None:
    # Kept only until the next inspection, because a frame keeps its variables alive.
    seen: dict[int, FrameType] = {}
    blocked: dict[int, FrameType] = {}
    while _has_threads():
        looked_at = time.monotonic()
        time.sleep(INTERVAL)
        if time.monotonic() - looked_at > 3 * INTERVAL:
            seen.clear()  # the process was suspended
        running = _running_hooks()
        blocked = _report_blocked(running, seen, blocked)
        seen = running


def _report_blocked(
    running: dict[int, FrameType], seen: dict[int, FrameType], reported: dict[int, FrameType]
) -> dict[int, FrameType]:
    """Report each hook that was already running at the last inspection once; return them."""
    blocked = {thread: hook for thread, hook in running.items() if seen.get(thread) is hook}
    for thread, hook in blocked.items():
        if reported.get(thread) is not hook:
            _report(hook)
    return blocked


def _has_threads() -> bool:
    with _lock:
        _threads.intersection_update(sys._current_frames())  # noqa: SLF001 - documented
        return bool(_threads)


def _running_hooks() -> dict[int, FrameType]:
    found = {}
    for thread, frame in sys._current_frames().items():  # noqa: SLF001 - documented
        if thread in _threads:
            hook = None
            # A frame that another thread is entering may be incomplete (seen on CPython 3.11).
            with suppress(AttributeError, TypeError):
                hook = _find_hook(frame)
            if hook is not None:
                found[thread] = hook
    # The last one may be the frame of this call: a reference cycle.
    del frame
    return found


def _find_hook(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the user's hook, or of the user's function called by another hook."""
    users: FrameType | None = None
    while frame is not None:
        module: str = frame.f_globals.get("__name__", "")
        if module in _RUNNERS:
            return users
        if module.partition(".")[0] != _PACKAGE:
            users = frame
        frame = frame.f_back
    return None


def _report(hook: FrameType) -> None:
    code = hook.f_code
    name = code.co_qualname.rpartition("<locals>.")[2]
    _logger.warning(
        "%s blocks all connections for more than %g %s, at %s:%d: "
        "call slow functions with await trio.to_thread.run_sync(function)",
        name,
        INTERVAL,
        "second" if INTERVAL == 1 else "seconds",
        code.co_filename,
        hook.f_lineno,
    )
