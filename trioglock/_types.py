"""The type parameters of sockets and connections, with their defaults (PEP 696)."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

__all__ = ["DecodedT_co", "MessageT_co", "StateT"]

StateT = TypeVar("StateT", default=None)
"""The state of a socket."""

MessageT_co = TypeVar("MessageT_co", covariant=True, default=str | bytes)
"""The messages that a connection delivers."""

DecodedT_co = TypeVar("DecodedT_co", covariant=True, default=Any)
"""The messages that a codec decodes."""
