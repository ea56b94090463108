"""The router: from the name of an event to the one handler for it.

A name is ``"verb"`` or ``"noun/verb"``; a noun may have several parts. Of the handlers that fit,
the most exact one gets the event: ``"channels/broadcast"`` before ``"channels/*"`` before the
fallback. Nothing is decided by the order of definition, and two handlers for one name or pattern
are refused when they are defined.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

from .._redact import label
from ..errors import InvalidOption, UsageError
from .errors import DuplicateHandler

__all__ = ["Handler", "Router", "is_async"]

Handler: TypeAlias = Callable[[Any, Any], Any]
"""``(event, state) -> (result, state)``, plain or async."""

HandlerT = TypeVar("HandlerT", bound=Handler)

FALLBACK = "*"


def ignore(event: Any, state: Any) -> tuple[None, Any]:
    """The handler of events that nobody handles: nothing follows."""
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
        noun: what the names given to :meth:`on` begin with: ``on("sign-in")`` of the router for
            ``"players"`` is for ``"players/sign-in"``, ``on("*")`` for ``"players/*"``. By default
            names are whole.

    Raises:
        InvalidOption: the noun is not a name.
    """

    def __init__(self, noun: str = "") -> None:
        if not isinstance(noun, str) or "*" in noun or (noun and not all(noun.split("/"))):
            raise InvalidOption(f"noun is a name such as 'players', not {noun!r}")
        self.noun: str = noun
        """What the names begin with; "" for whole names."""
        self._exact: dict[str, Handler] = {}
        self._nouns: dict[str, Handler] = {}
        self._depth = 0
        self._fallback: Handler = ignore
        self._used = ""

    def __repr__(self) -> str:
        return f"<Router {self.noun or '(whole names)'}, {len(list(self.patterns()))} handlers>"

    # Defining.

    def on(self, name: str) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of an event, or of all events of a noun.

        Args:
            name: ``"channels/broadcast"`` for one event; ``"channels/*"`` for all others of that
                noun, of however many parts; ``"*"`` for all others of this router.

        Raises:
            DuplicateHandler: there is one already.
            InvalidOption: the name is none, or the handler cannot be called.
            UsageError: the router is in use: define handlers before.
        """
        pattern = self._whole(name)

        def define(handler: HandlerT) -> HandlerT:
            if not callable(handler):
                raise InvalidOption(f"a handler is a function of event and state, not {handler!r}")
            self._define(pattern, handler)
            return handler

        return define

    def fallback(self, handler: HandlerT) -> HandlerT:
        """Decorate the handler of events that no other one fits; by default they are ignored.

        In a router with a noun the same as ``on("*")``.

        Raises:
            DuplicateHandler, InvalidOption, UsageError: as :meth:`on`.
        """
        return self.on("*")(handler)

    def include(self, router: Router) -> None:
        """Take over all handlers of another router, below this one's noun.

        That one is complete then: it takes no further handlers.

        Raises:
            DuplicateHandler: both have a handler for the same name or pattern.
            UsageError: this router is in use.
            InvalidOption: it is no router, or this one.
        """
        if not isinstance(router, Router) or router is self:
            raise InvalidOption(f"another Router is included, not {router!r}")
        for pattern, handler in router.patterns():
            self._check(self._whole(pattern), handler)
        for pattern, handler in router.patterns():
            self._define(self._whole(pattern), handler)
        router.freeze(f"included in {self!r}")

    def freeze(self, why: str = "in use") -> None:
        """Take no further handlers; :class:`EventSocket` does this.

        Args:
            why: for the error that ``on`` raises then.
        """
        self._used = self._used or why

    def _whole(self, name: str) -> str:
        parts = name.split("/") if isinstance(name, str) else []
        if not parts or not all(parts) or any("*" in part for part in parts[:-1]):
            raise InvalidOption(f"an event is 'noun/verb', 'noun/*' or '*', not {name!r}")
        if "*" in parts[-1] and parts[-1] != "*":
            raise InvalidOption(f"a star stands for a whole part, as in 'noun/*', not in {name!r}")
        return f"{self.noun}/{name}" if self.noun else name

    def _define(self, pattern: str, handler: Handler) -> None:
        self._check(pattern, handler)
        if pattern == FALLBACK:
            self._fallback = handler
        elif pattern.endswith("/*"):
            self._nouns[pattern[:-2]] = handler
            self._depth = max(self._depth, pattern.count("/"))
        else:
            self._exact[pattern] = handler

    def _check(self, pattern: str, handler: Handler) -> None:
        if self._used:
            raise UsageError(f"{self!r} takes no more handlers: it is {self._used}")
        present = self._present(pattern)
        if present is not None:
            raise DuplicateHandler(
                f"{pattern!r} has two handlers: {label(present)} and {label(handler)}"
            )

    def _present(self, pattern: str) -> Handler | None:
        if pattern == FALLBACK:
            return None if self._fallback is ignore else self._fallback
        table = self._nouns if pattern.endswith("/*") else self._exact
        return table.get(pattern.removesuffix("/*"))

    # Using.

    def find(self, name: str) -> Handler:
        """The handler for the event ``name``; the fallback if no other fits."""
        handler = self._exact.get(name)
        if handler is not None:
            return handler
        noun = name
        if name.count("/") > self._depth:
            # The peer chooses the name: however long it is, no more is tried than there can be.
            noun = "/".join([*name.split("/", self._depth)[:-1], ""])
        while self._nouns and "/" in noun:
            noun = noun.rpartition("/")[0]
            handler = self._nouns.get(noun)
            if handler is not None:
                return handler
        return self._fallback

    def patterns(self) -> Iterator[tuple[str, Handler]]:
        """Every name or pattern that is defined, with its handler."""
        yield from self._exact.items()
        yield from ((f"{noun}/*", handler) for noun, handler in self._nouns.items())
        if self._fallback is not ignore:
            yield FALLBACK, self._fallback

    @property
    def is_async(self) -> bool:
        """Whether any handler is an ``async def``."""
        return any(is_async(handler) for _, handler in self.patterns())


def is_async(handler: Any) -> bool:
    """Whether calling it gives a coroutine: an ``async def``, also as a method or ``__call__``."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004  # not whether, but how it is called
    )
