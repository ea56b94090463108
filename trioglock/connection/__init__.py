"""A live connection: its actor, queues, tasks and closing."""

from .broadcast import BroadcastResult, broadcast
from .closing import Status
from .connection import Connection
from .decoding import MALFORMED, InvalidMessages
from .fragment_receiver import Fragments
from .report import Statistics, StatusReport
from .scope import ConnectionScope
from .session import LinkSource, Session

__all__ = [
    "MALFORMED",
    "BroadcastResult",
    "Connection",
    "ConnectionScope",
    "Fragments",
    "InvalidMessages",
    "LinkSource",
    "Session",
    "Statistics",
    "Status",
    "StatusReport",
    "broadcast",
]
