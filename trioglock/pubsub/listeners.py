"""Listeners: functions and methods that a hub calls with each event."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from .._redact import label
from ..errors import InvalidOption
from .message import Event, Gap, check_channel
from .patterns import ChannelFilter
from .subscribers import Counters, Subscriber
from .subscription import Subscription

__all__ = [
    "HubListener",
    "PlainListener",
    "Topic",
    "check_topic",
    "find_listeners",
    "on",
    "run_listener",
]

_logger = logging.getLogger("trioglock.pubsub")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Topic: TypeAlias = str | type[Gap]
"""The topic of a listener: a channel, a pattern, or the class :class:`Gap`."""

_TOPICS = "_trioglock_topics"


@dataclass(frozen=True, slots=True)
class HubListener:
    """A function and its topic."""

    topic: Topic
    function: Callable[[Any], Any]

    @property
    def channels(self) -> ChannelFilter | None:
        """The channels; None for gaps."""
        return ChannelFilter(self.topic) if isinstance(self.topic, str) else None

    @property
    def is_async(self) -> bool:
        """Whether the function runs in its own task."""
        return inspect.iscoroutinefunction(self.function)


def check_topic(topic: object) -> Topic:
    """Return a valid topic."""
    if topic is Gap:
        return Gap
    if not isinstance(topic, str):
        raise InvalidOption(f"topic must be a channel, a pattern or the class Gap, not {topic!r}")
    return check_channel(topic)


def on(topic: Topic) -> Callable[[FunctionT], FunctionT]:
    """Mark a method as a listener; :meth:`Hub.include` registers it.

    ::

        class Audit:
            @on("echo")
            def echo(self, message): ...

            @on("orders/*")
            async def order(self, message): ...

        hub.include(Audit())

    Args:
        topic: a channel, a pattern (see :class:`Hub`), or the class :class:`Gap`. A method may
            have several marks.

    Raises:
        InvalidOption: ``topic`` is none of these.
    """
    checked = check_topic(topic)

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _TOPICS, (*getattr(function, _TOPICS, ()), checked))
        return function

    return mark


def find_listeners(owner: object) -> Iterator[HubListener]:
    """Yield the marked methods of an object."""
    if isinstance(owner, type):
        raise InvalidOption(f"include() takes an instance, not a class: {owner.__name__}()")
    found = False
    for name in dir(type(owner)):
        for topic in getattr(getattr(type(owner), name, None), _TOPICS, ()):
            found = True
            yield HubListener(topic, getattr(owner, name))
    if not found:
        raise InvalidOption(f"{type(owner).__name__} has no method marked with @on(...)")


class PlainListener(Subscriber):
    """Calls a plain function; see :func:`run_listener` for async ones."""

    def __init__(self, listener: HubListener, counters: Counters) -> None:
        self._function = listener.function
        self._gaps = listener.topic is Gap
        self._counters = counters

    def put(self, event: Event) -> None:
        if (event.__class__ is Gap) is not self._gaps:
            return
        try:
            returned = self._function(event)
        except Exception as error:  # noqa: BLE001 - the other listeners continue
            _log_error(self._function, error, self._counters)
            return
        if inspect.iscoroutine(returned):
            returned.close()
            self._counters.failures += 1
            name = label(self._function)
            _logger.error("listener %s returned a coroutine: declare it with async def", name)

    def end(self) -> None:
        pass


async def run_listener(
    function: Callable[[Any], Any], events: Subscription[Any], counters: Counters
) -> None:
    """Call an async function with each event."""
    dropped = 0
    async for event in events:
        if events.dropped and not dropped:
            _logger.warning("listener %s is too slow: it is missing messages", label(function))
        dropped = events.dropped
        try:
            await function(event)
        except Exception as error:  # noqa: BLE001 - continues with the next event
            _log_error(function, error, counters)


def _log_error(function: Callable[[Any], Any], error: Exception, counters: Counters) -> None:
    counters.failures += 1
    _logger.error("listener %s raised", label(function), exc_info=error)
