"""``Router``: finds the handler of an event by its name.

A name is ``"verb"`` or ``"noun/verb"``; a noun may have several parts. The most specific match
receives the event: ``"channels/broadcast"`` before ``"channels/*"`` before the fallback.
The order of definition does not matter. A second handler for the same name or pattern raises
DuplicateHandler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._hints import describe_value
from .._redact import label
from .._text import as_text
from ..errors import InvalidOption, UsageError
from .errors import DuplicateHandler

__all__ = ["EventHandler", "Router", "is_async"]

EventHandler: TypeAlias = Callable[[Any, Any], Any]
"""``(event, state) -> (result, state)``, plain or async."""

HandlerT = TypeVar("HandlerT", bound=EventHandler)


def ignore(event: Any, state: Any) -> tuple[None, Any]:
    """The default fallback: ignore the event."""
    return None, state


class Router:
    """Maps events to handlers.

    ::

        players = Router("players")

        @players.on("sign-in")
        def signed_in(event, state):
            return None, state | {event["payload"]["name"]}

        router = Router()
        router.include(players)

    Args:
        noun: prefix of the names given to :meth:`on`: in ``Router("players")``, ``on("sign-in")``
            handles ``"players/sign-in"`` and ``on("*")`` handles ``"players/*"``. By default names
            have no prefix.

    Raises:
        InvalidOption: the noun is not a name.
    """

    def __init__(self, noun: str = "") -> None:
        if not isinstance(noun, str) or "*" in noun or (noun and not all(noun.split("/"))):
            raise InvalidOption(f"noun must be a name such as 'players', not {noun!r}")
        self.noun: str = as_text(noun)
        """The prefix of the names; "" for none."""
        self._handlers: dict[str, EventHandler] = {}
        self._depth = 0  # the maximum number of slashes in a pattern "noun/*"
        self._used = ""

    def __repr__(self) -> str:
        return f"<Router {self.noun or '(no noun)'}, {len(self._handlers)} handlers>"

    if TYPE_CHECKING:
        # In a channel class, a Router can replace a method.
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    # Defining.

    def on(self, name: str) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of an event, or of all events of a noun.

        Args:
            name: ``"channels/broadcast"`` for one event; ``"channels/*"`` for all other events of
                that noun, with any number of parts; ``"*"`` for all other events of this router.

        Raises:
            DuplicateHandler: the name or pattern already has a handler.
            InvalidOption: the name is invalid, or the handler is not callable.
            UsageError: the router is in use.
        """
        pattern = self._full_name(name)

        def define(handler: HandlerT) -> HandlerT:
            if not callable(handler):
                raise InvalidOption(f"a handler must be a function, not {handler!r}")
            self._define(pattern, handler)
            return handler

        return define

    def fallback(self, handler: HandlerT) -> HandlerT:
        """Decorate the handler of all other events, which are ignored by default.

        It is the same as ``on("*")``.

        Raises:
            DuplicateHandler, InvalidOption, UsageError: as in :meth:`on`.
        """
        return self.on("*")(handler)

    def include(self, router: Router) -> None:
        """Add all handlers of another router, under this router's noun.

        No handlers can be added to the other router afterwards.

        Raises:
            DuplicateHandler: both routers have a handler for the same name or pattern.
            UsageError: this router is in use.
            InvalidOption: the argument is not a router, or is this router.
        """
        if not isinstance(router, Router) or router is self:
            raise InvalidOption(f"include() takes another Router, not {describe_value(router)}")
        for pattern, handler in router.patterns():
            self._check(self._full_name(pattern), handler)
        for pattern, handler in router.patterns():
            self._define(self._full_name(pattern), handler)
        router.freeze(f"included in {self!r}")

    def freeze(self, why: str = "in use") -> None:
        """Refuse further handlers; called by :class:`EventSocket`.

        Args:
            why: the reason in the error that ``on`` raises.
        """
        self._used = self._used or why

    def _full_name(self, name: str) -> str:
        parts = name.split("/") if isinstance(name, str) else []
        if not parts or not all(parts) or any("*" in part for part in parts[:-1]):
            raise InvalidOption(f"an event must be 'noun/verb', 'noun/*' or '*', not {name!r}")
        if "*" in parts[-1] and parts[-1] != "*":
            raise InvalidOption(f"'*' must be a whole part, as in 'noun/*', not {name!r}")
        return f"{self.noun}/{as_text(name)}" if self.noun else as_text(name)

    def _define(self, pattern: str, handler: EventHandler) -> None:
        self._check(pattern, handler)
        self._handlers[pattern] = handler
        if pattern.endswith("*"):
            self._depth = max(self._depth, pattern.count("/"))

    def _check(self, pattern: str, handler: EventHandler) -> None:
        if self._used:
            raise UsageError(f"no handlers can be added to {self!r}: it is {self._used}")
        present = self._handlers.get(pattern)
        if present is not None:
            raise DuplicateHandler(
                f"{pattern!r} has two handlers: {label(present)} and {label(handler)}"
            )

    # Finding.

    def find(self, name: str) -> EventHandler:
        """Return the handler for event ``name``, or the fallback if no other handler matches."""
        handler = self._handlers.get(name)
        if handler is not None:
            return handler
        # The peer chooses the name, so do not try more parts than any pattern has.
        nouns = name.split("/", self._depth)[:-1] if self._depth else []
        while nouns:
            handler = self._handlers.get("/".join([*nouns, "*"]))
            if handler is not None:
                return handler
            nouns.pop()
        return self._handlers.get("*", ignore)

    def patterns(self) -> Iterator[tuple[str, EventHandler]]:
        """Iterate over the defined names and patterns, with their handlers."""
        yield from self._handlers.items()

    @property
    def is_async(self) -> bool:
        """Whether any handler is an ``async def``."""
        return any(map(is_async, self._handlers.values()))


def is_async(handler: Any) -> bool:
    """Whether a callable is an ``async def``, including methods, ``__call__`` and partials."""
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - its kind matters, not that it exists
    )
