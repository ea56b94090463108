"""Event protocols: a router from event names to handlers, and requests waiting for answers."""

from ..connection import InvalidMessages
from .errors import DuplicateHandler, RequestLost, RequestTimeout
from .requests import PendingRequest, Requests
from .router import EventHandler, Router
from .socket import Emit, EventSocket

__all__ = [
    "DuplicateHandler",
    "Emit",
    "EventHandler",
    "EventSocket",
    "InvalidMessages",
    "PendingRequest",
    "RequestLost",
    "RequestTimeout",
    "Requests",
    "Router",
]
