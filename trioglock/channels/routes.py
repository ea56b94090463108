"""The routes: which channel class handles a topic."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from .._hints import describe_value
from ..errors import InvalidOption
from ..protocols.phoenix.message import PHOENIX
from .channel import Channel, hook_table
from .history import History

__all__ = ["ChannelRoutes"]

ChannelClass: TypeAlias = type[Channel[Any]]


class ChannelRoutes:
    """Finds the channel class of a topic. As in Phoenix, the first pattern that matches is used.

    Args:
        routes: the class for each pattern.

    Raises:
        InvalidOption: a pattern or a class is invalid, or a pattern can never match.
    """

    def __init__(self, routes: Mapping[str, ChannelClass]) -> None:
        if not isinstance(routes, Mapping) or not routes:
            raise InvalidOption(
                f"routes must be a dict such as {{'room:*': Room}}, not {describe_value(routes)}"
            )
        self._exact: dict[str, ChannelClass] = {}
        self._prefixes: list[tuple[str, ChannelClass]] = []
        for pattern, kind in routes.items():
            self._add(pattern, kind)
        self.patterns: tuple[str, ...] = tuple(routes)
        """The patterns."""

    def _add(self, pattern: str, kind: ChannelClass) -> None:
        if not isinstance(pattern, str) or not pattern or "*" in pattern[:-1]:
            raise InvalidOption(
                "a route must be a topic such as 'lobby', or a prefix and a final '*' such as "
                f"'room:*', not {pattern!r}"
            )
        if pattern == PHOENIX:
            raise InvalidOption(
                f"the route {PHOENIX!r} is never used, because clients send heartbeats "
                "to this topic"
            )
        if not (isinstance(kind, type) and issubclass(kind, Channel)):
            raise InvalidOption(
                f"the route {pattern!r} must map to a Channel class, not {describe_value(kind)}"
            )
        hook_table(kind)  # also checks the hooks
        try:
            inspect.signature(kind).bind()
        except TypeError:
            raise InvalidOption(
                f"the route {pattern!r} must map to a class that can be created without "
                f"arguments, which {kind.__qualname__} cannot"
            ) from None
        name = pattern.removesuffix("*")
        for prefix, _ in self._prefixes:
            if name.startswith(prefix):
                raise InvalidOption(
                    f"the route {pattern!r} is never used, because '{prefix}*' comes before it"
                )
        if pattern.endswith("*"):
            self._prefixes.append((name, kind))
        else:
            # Later patterns do not match these topics.
            self._exact[pattern] = kind

    def find(self, topic: str) -> ChannelClass | None:
        """Return the class for a topic, or None."""
        kind = self._exact.get(topic)
        if kind is not None:
            return kind
        for prefix, kind in self._prefixes:
            if topic.startswith(prefix):
                return kind
        return None

    def find_history(self, topic: str) -> History | None:
        """Return the history of a topic, or None."""
        kind = self.find(topic)
        return None if kind is None else kind.history

    @property
    def has_history(self) -> bool:
        """Whether a class has a history."""
        kinds = (*self._exact.values(), *(kind for _, kind in self._prefixes))
        return any(kind.history is not None for kind in kinds)
