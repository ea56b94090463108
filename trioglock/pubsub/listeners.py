"""Listeners: functions, and methods of classes, that are called with what is published."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from .._redact import label
from ..errors import InvalidOption
from .message import Gap, check_channel
from .queue import Event
from .subscriber import Subscriber

__all__ = ["Listener", "Topic", "call_async", "listeners_of", "on"]

_logger = logging.getLogger("trioglock.pubsub")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Topic: TypeAlias = str | type[Gap]
"""What a listener listens to: a channel, a pattern of channels, or gaps."""

_MARK = "_trioglock_topics"


@dataclass(frozen=True, slots=True)
class Listener:
    """A function and what it listens to."""

    topic: Topic
    function: Callable[[Any], object]

    @property
    def pattern(self) -> str | None:
        """Of the channels; None for gaps."""
        return self.topic if isinstance(self.topic, str) else None

    @property
    def is_async(self) -> bool:
        """Whether it needs a task of its own."""
        return inspect.iscoroutinefunction(self.function)


def check_topic(topic: object) -> Topic:
    """What may be listened to.

    Raises:
        InvalidOption: that is neither a channel nor Gap.
    """
    if topic is Gap:
        return Gap
    if not isinstance(topic, str):
        raise InvalidOption(f"a listener listens to a channel, a pattern or Gap, not {topic!r}")
    return check_channel(topic)


def on(topic: Topic) -> Callable[[FunctionT], FunctionT]:
    """Mark a method as a listener; :meth:`Hub.include` finds it.

    ::

        class Audit:
            @on("echo")
            def echo(self, message): ...

            @on("orders/*")
            async def order(self, message): ...

        hub.include(Audit())

    Args:
        topic: a channel, a pattern (see :class:`Hub`), or the class :class:`Gap`. A method may be
            marked several times.

    Raises:
        InvalidOption: it is none of these.
    """
    checked = check_topic(topic)

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _MARK, (*getattr(function, _MARK, ()), checked))
        return function

    return mark


def listeners_of(owner: object) -> Iterator[Listener]:
    """The marked methods of an object.

    Raises:
        InvalidOption: it is a class, or has none.
    """
    if isinstance(owner, type):
        raise InvalidOption(f"include an instance, not the class: {owner.__name__}()")
    found = False
    for name in dir(type(owner)):
        for topic in getattr(getattr(type(owner), name, None), _MARK, ()):
            found = True
            yield Listener(topic, getattr(owner, name))
    if not found:
        raise InvalidOption(f"{type(owner).__name__} has no method that is marked with @on(...)")


class PlainListener(Subscriber):
    """Calls a plain function on the spot.

    Args:
        listener: the function.
        failed: told that it raised.
    """

    def __init__(self, listener: Listener, failed: Callable[[], None]) -> None:
        self._function = listener.function
        self._gaps = listener.topic is Gap
        self._failed = failed

    def put(self, event: Event) -> None:
        """See :meth:`Subscriber.put`."""
        if (event.__class__ is Gap) is self._gaps:
            try:
                returned = self._function(event)
            except Exception as error:  # noqa: BLE001 - the other listeners go on
                complain(self._function, error)
                self._failed()
                return
            if inspect.iscoroutine(returned):
                returned.close()
                name = label(self._function)
                _logger.error("%s returned a coroutine: declare it with async def", name)
                self._failed()

    def end(self) -> None:
        """See :meth:`Subscriber.end`."""


async def call_async(function: Callable[[Any], Any], event: object) -> bool:
    """Call an async listener; whether it returned without raising."""
    try:
        await function(event)
    except Exception as error:  # noqa: BLE001 - it goes on with the next event
        complain(function, error)
        return False
    return True


def complain(function: Callable[..., object], error: Exception) -> None:
    """Log the exception of a listener."""
    _logger.error("the listener %s raised", label(function), exc_info=error)
