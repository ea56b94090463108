"""Helpers of the telemetry tests: a listener that records events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trioglock.telemetry import Event, listen

__all__ = ["Seen", "kinds", "recorded", "values"]

Seen = list[Event]


@contextmanager
def recorded(*kinds: type[Event]) -> Iterator[Seen]:
    """Record the events within the block."""
    seen: Seen = []
    with listen(seen.append, *kinds):
        yield seen


def kinds(seen: Seen) -> list[str]:
    """The names of the kinds of events."""
    return [type(event).__name__ for event in seen]


def values(event: Event) -> dict[str, Any]:
    """The fields of an event, except the connection."""
    names = [field.name for field in dataclasses.fields(event) if field.name != "connection"]
    return {name: getattr(event, name) for name in names}
