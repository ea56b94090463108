"""Listeners: functions that are told what happens to all connections of the process.

Nothing is built for a kind of event that nobody listens to. Frames are many, so whether anybody
wants them is one attribute, :attr:`Watch.frames`: the class has it for the listeners, and an
instance whose trace is on has its own.
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

__all__ = ["Listening", "Watch", "hear", "is_heard", "listen"]

EventT = TypeVar("EventT", bound=Event)

_logger = logging.getLogger("trioglock.telemetry")

_KINDS: tuple[type[Event], ...] = tuple(
    kind
    for kind in map(events.__dict__.get, events.__all__)
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)
_FRAME_KINDS = (FrameSent, FrameReceived, HookReplied)

# Replaced, never changed: a listener may begin or stop to listen while it is told something.
_heard_by: dict[type[Event], tuple[Listening, ...]] = {}
# A process may run trio in several threads; a finalizer or signal handler may come in between.
_changing = threading.RLock()


class Watch:
    """Whether somebody wants to know of every frame."""

    __slots__ = ()

    frames: bool = False


class Listening:
    """A listener that is told events until :meth:`stop`; also a context manager that stops it."""

    def __init__(self, listener: Callable[[Any], object], kinds: tuple[type[Event], ...]) -> None:
        self._listener = listener
        self._kinds = kinds
        self._listens = False

    def start(self) -> None:
        """Begin to listen; harmless if that is so already."""
        with _changing:
            if self._listens:
                return
            self._listens = True
            for kind in self._kinds:
                _heard_by[kind] = (*_heard_by.get(kind, ()), self)
            _watch_frames()

    def stop(self) -> None:
        """Listen no more, not even to what others are being told; harmless if that is so already.

        Another thread may be in the middle of a call.
        """
        with _changing:
            self._listens = False
            for kind in self._kinds:
                left = tuple(other for other in _heard_by.get(kind, ()) if other is not self)
                if left:
                    _heard_by[kind] = left
                else:
                    _heard_by.pop(kind, None)
            _watch_frames()

    def tell(self, event: Event) -> None:
        """Call the listener. If it raises, it is told nothing more: it may do so at every frame."""
        if not self._listens:
            return
        try:
            self._listener(event)
        except Exception:
            self.stop()
            with suppress(Exception):  # of a handler of somebody's log
                _logger.exception("%s raised, and is told nothing more", label(self._listener))

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
def listen(listener: Callable[[EventT], object], kind: type[EventT], /) -> Listening: ...


@overload
def listen(listener: Callable[[Any], object], /, *kinds: type[Event]) -> Listening: ...


def listen(listener: Callable[[Any], object], /, *kinds: type[Event]) -> Listening:
    """Tell ``listener`` what happens to every connection of this process, clients and servers.

    ::

        with listen(print, Connected, LinkClosed):
            ...

    It is called in the step in which it happened, so it must be quick and must not wait: a plain
    function. What it raises is logged to ``trioglock.telemetry``, harms no connection, and ends the
    listening.

    Args:
        listener: called with each event.
        kinds: the classes of events to be told; by default all of them. ``FrameSent``,
            ``FrameReceived`` and ``HookReplied`` come for every frame, and cost accordingly.

    Returns:
        A context manager whose end, or whose ``stop()``, ends the listening.

    Raises:
        InvalidOption: ``listener`` is no plain function, or a kind is no class of events.
    """
    check_listener(listener)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise InvalidOption(f"a kind is a class of trioglock.telemetry events, not {kind!r}")
    wanted = kinds or (Event,)
    listening = Listening(listener, tuple(kind for kind in _KINDS if issubclass(kind, wanted)))
    listening.start()
    return listening


def check_listener(listener: object) -> None:
    """Raise InvalidOption unless it is a plain function."""
    if not callable(listener):
        raise InvalidOption(f"a listener is a function, not {listener!r}")
    if inspect.iscoroutinefunction(listener):
        raise InvalidOption(f"a listener is a plain function, not the async {label(listener)}")


def is_heard(kind: type[Event]) -> bool:
    """Whether anybody listens to such events."""
    return kind in _heard_by


def hear(event: Event) -> None:
    """Tell an event to all who listen to its kind."""
    for listening in _heard_by.get(type(event), ()):
        listening.tell(event)


def _watch_frames() -> None:
    Watch.frames = any(kind in _heard_by for kind in _FRAME_KINDS)
