"""A list of what is online elsewhere, kept by events and by a periodic status.

The answers to a status have no end: one comes for each game that is online, and none for the
others. So an entry is dropped at a refresh if nothing was heard of it since the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeVar

__all__ = ["MAX_ENTRIES", "Roster"]

T = TypeVar("T")

MAX_ENTRIES = 10_000
"""A server that invents games, or players, does not fill our memory."""


@dataclass(frozen=True, slots=True)
class Roster(Generic[T]):
    """By the name of a game, what is known of it."""

    known: Mapping[str, T] = field(default_factory=lambda: MappingProxyType({}))
    heard: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """In which refresh it was heard of."""
    refreshes: int = 0

    def with_entry(self, game: str, value: T) -> Roster[T]:
        """Something was heard of a game."""
        if game not in self.known and len(self.known) >= MAX_ENTRIES:
            return self
        return replace(
            self,
            known={**self.known, game: value},
            heard={**self.heard, game: self.refreshes},
        )

    def without(self, game: str) -> Roster[T]:
        """It has gone."""
        return self._keeping({name for name in self.known if name != game})

    def refreshed(self) -> Roster[T]:
        """Everyone is asked again; those that said nothing since the last time are dropped."""
        kept = {name for name, number in self.heard.items() if number == self.refreshes}
        return replace(self._keeping(kept), refreshes=self.refreshes + 1)

    def _keeping(self, names: set[str]) -> Roster[T]:
        return replace(
            self,
            known={name: value for name, value in self.known.items() if name in names},
            heard={name: number for name, number in self.heard.items() if name in names},
        )
