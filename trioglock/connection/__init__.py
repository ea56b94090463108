"""A live connection: its actor, queues, tasks and closing."""

from .broadcast import BroadcastResult, broadcast
from .closing import Status
from .connection import Connection
from .decoding import MALFORMED, InvalidMessages
from .report import Statistics, StatusReport
from .requests import PendingRequest, Requests
from .scope import ConnectionScope
from .session import LinkSource, Session

__all__ = [
    "MALFORMED",
    "BroadcastResult",
    "Connection",
    "ConnectionScope",
    "InvalidMessages",
    "LinkSource",
    "PendingRequest",
    "Requests",
    "Session",
    "Statistics",
    "Status",
    "StatusReport",
    "broadcast",
]
