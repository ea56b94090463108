"""A live connection: its actor, queues, tasks and closing."""

from .broadcast import BroadcastResult, broadcast
from .closing import Status
from .connection import Connection
from .decoding import MALFORMED, InvalidMessages
from .fragments.receiver import Fragments
from .report import Statistics, StatusReport
from .requests import PendingRequest, Requests
from .scope import ConnectionScope
from .session import LinkSource, Session
from .subscriptions.driver import check_subscriptions
from .subscriptions.machine import Subscriptions
from .subscriptions.updates import Updates

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
