"""A live connection: its actor, queues, tasks and closing."""

from .closing import Status
from .connection import Connection
from .report import Statistics, StatusReport
from .scope import open_connection
from .session import LinkSource, Session

__all__ = [
    "Connection",
    "LinkSource",
    "Session",
    "Statistics",
    "Status",
    "StatusReport",
    "open_connection",
]
