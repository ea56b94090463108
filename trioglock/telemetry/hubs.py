"""The open hubs of this process, whose statistics OpenTelemetry reads as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pubsub import Hub

__all__ = ["open_hubs"]

open_hubs: set[Hub] = set()
"""A hub is added when it opens and removed when it closes."""
