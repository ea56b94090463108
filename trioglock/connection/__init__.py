"""A live connection: its actor, queues, tasks and closing."""

from .broadcast import BroadcastResult, broadcast
from .closing import Status
from .connection import Connection
from .decoding import MALFORMED, InvalidMessages
from .fragment_receiver import Fragments
from .report import Statistics, StatusReport
from .requests import PendingRequest, Requests
from .resubscribing import check_subscriptions
from .scope import ConnectionScope
from .session import LinkSource, Session
from .subscriptions import Subscriptions
from .updates import Updates

__all__ = [
    "MALFORMED",
    "BroadcastResult",
    "Connection",
    "ConnectionScope",
    "Fragments",
    "InvalidMessages",
    "LinkSource",
    "PendingRequest",
    "Requests",
    "Session",
    "Statistics",
    "Status",
    "StatusReport",
    "Subscriptions",
    "Updates",
    "broadcast",
    "check_subscriptions",
]
