"""What the tests of telemetry share: a listener that keeps what it hears."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trioglock.telemetry import Event, listen

__all__ = ["Seen", "heard", "kinds", "values"]

Seen = list[Event]


@contextmanager
def heard(*kinds: type[Event]) -> Iterator[Seen]:
    """What is told of the connections of the process within the block; by default everything."""
    seen: Seen = []
    with listen(seen.append, *kinds):
        yield seen


def kinds(seen: Seen) -> list[str]:
    """Their names, in order."""
    return [type(event).__name__ for event in seen]


def values(event: Event) -> dict[str, Any]:
    """Its fields, but for the connection."""
    names = [field.name for field in dataclasses.fields(event) if field.name != "connection"]
    return {name: getattr(event, name) for name in names}
