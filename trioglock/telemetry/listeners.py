"""Listeners: functions that are called with the events of all connections in the process.

An event is only created if its type has a listener. Frames are frequent, so the check for them is a
single attribute, :attr:`EmitterBase.emits_frames`: the listeners set the class attribute, and an
instance attribute overrides it while the trace of that connection is on.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from .._redact import label
from ..errors import InvalidOption
from . import events
from .events import Event, FrameReceived, FrameSent, HookReplied

__all__ = ["EmitterBase", "EventListener", "emit", "has_listeners", "listen"]

EventT = TypeVar("EventT", bound=Event)

_logger = logging.getLogger("trioglock.telemetry")

_KINDS: tuple[type[Event], ...] = tuple(
    kind
    for kind in map(events.__dict__.get, events.__all__)
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)
_FRAME_KINDS = (FrameSent, FrameReceived, HookReplied)

# The tuples are replaced, not mutated, because a listener may start or stop during an event.
_listeners: dict[type[Event], tuple[EventListener, ...]] = {}
# trio may run in several threads. The lock is reentrant because of finalizers and signal handlers.
_lock = threading.RLock()


class EmitterBase:
    """Holds the flag that the listeners set for all emitters."""

    __slots__ = ()

    emits_frames: bool = False
    """Whether events for frames are wanted."""


class EventListener:
    """A function that receives events until :meth:`stop` or the end of a ``with`` block."""

    def __init__(self, function: Callable[[Any], object], kinds: tuple[type[Event], ...]) -> None:
        self._function = function
        self._kinds = kinds
        self._active = False

    def start(self) -> None:
        """Start receiving events. Has no effect if already started."""
        with _lock:
            if self._active:
                return
            self._active = True
            for kind in self._kinds:
                _listeners[kind] = (*_listeners.get(kind, ()), self)
            _update_emits_frames()

    def stop(self) -> None:
        """Stop receiving events, including the current one. Has no effect if already stopped.

        A call that is running in another thread is not interrupted.
        """
        with _lock:
            self._active = False
            for kind in self._kinds:
                others = tuple(other for other in _listeners.get(kind, ()) if other is not self)
                if others:
                    _listeners[kind] = others
                else:
                    _listeners.pop(kind, None)
            _update_emits_frames()

    def receive(self, event: Event) -> None:
        """Call the function. If it raises, log the exception and stop."""
        if not self._active:
            return
        try:
            self._function(event)
        except Exception:
            self.stop()
            with suppress(Exception):  # raised by a logging handler
                _logger.exception("listener %s raised and was stopped", label(self._function))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@overload
def listen(listener: Callable[[EventT], object], kind: type[EventT], /) -> EventListener: ...


@overload
def listen(listener: Callable[[Any], object], /, *kinds: type[Event]) -> EventListener: ...


def listen(listener: Callable[[Any], object], /, *kinds: type[Event]) -> EventListener:
    """Call ``listener`` with the events of all connections in this process.

    ::

        with listen(print, Connected, LinkClosed):
            ...

    The listener runs in the task where the event occurs, so it must be a fast plain function. If it
    raises, the exception is logged to ``trioglock.telemetry``, no connection is affected, and the
    listener is stopped.

    Args:
        listener: called with each event.
        kinds: the classes of events; by default all. ``FrameSent``, ``FrameReceived`` and
            ``HookReplied`` occur for every frame and have a corresponding cost.

    Returns:
        A context manager. Leaving it or calling its ``stop()`` stops the listener.

    Raises:
        InvalidOption: ``listener`` is not a plain function, or a kind is not a class of events.
    """
    check_listener(listener)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise InvalidOption(
                f"a kind must be a class of trioglock.telemetry events, not {kind!r}"
            )
    wanted = kinds or (Event,)
    started = EventListener(listener, tuple(kind for kind in _KINDS if issubclass(kind, wanted)))
    started.start()
    return started


def check_listener(listener: object) -> None:
    """Raise InvalidOption unless ``listener`` is a plain function."""
    if not callable(listener):
        raise InvalidOption(f"a listener must be a function, not {listener!r}")
    if inspect.iscoroutinefunction(listener):
        raise InvalidOption(f"a listener must be a plain function, not the async {label(listener)}")


def has_listeners(kind: type[Event]) -> bool:
    """Whether events of this kind have a listener."""
    return kind in _listeners


def emit(event: Event) -> None:
    """Pass an event to the listeners of its kind."""
    for listener in _listeners.get(type(event), ()):
        listener.receive(event)


def _update_emits_frames() -> None:
    EmitterBase.emits_frames = any(kind in _listeners for kind in _FRAME_KINDS)
