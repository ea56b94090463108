"""The close codes (RFC 6455, section 7.4, and the IANA WebSocket registry)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ABNORMAL",
    "CLOSE_CODES",
    "GOING_AWAY",
    "NORMAL",
    "NO_STATUS",
    "SERVICE_RESTART",
    "TOO_LARGE",
    "is_sendable",
]

CLOSE_CODES: Mapping[int, str] = {
    1000: "normal closure",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}
"""The registered codes that a Close frame may carry, with their meanings."""

GOING_AWAY = 1001
"""A server shuts down, or a browser leaves the page."""

SERVICE_RESTART = 1012
"""The server restarts; clients may reconnect (IANA WebSocket Close Code Number Registry)."""

NO_STATUS = 1005
"""Represents a Close frame without a code. It is not sent."""

NORMAL = frozenset({1000, 1001, NO_STATUS})
"""Codes of a normal end: :exc:`trioglock.ConnectionClosedOK`. ``close()`` in a browser sends a
Close frame without a code."""

TOO_LARGE = 1009
"""A message exceeds the receiver's limit."""

ABNORMAL = 1006
"""Represents an end without a Close frame. It is not sent."""


def is_sendable(code: int) -> bool:
    """Whether a Close frame may carry ``code``."""
    return code in CLOSE_CODES or 3000 <= code <= 4999
