"""Errors of handlers.

::

    TrioglockError
    └── DuplicateHandler (ValueError)    your code: two handlers for one event
"""

from __future__ import annotations

from ..errors import TrioglockError

__all__ = ["DuplicateHandler"]


class DuplicateHandler(TrioglockError, ValueError):
    """Two handlers for one event. The message names the event and both handlers."""
