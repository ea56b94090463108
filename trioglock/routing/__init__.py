"""Event protocols: a router from event names to handlers, and requests waiting for answers."""

from ..connection import InvalidMessages, PendingRequest, Requests
from ..errors import RequestLost, RequestTimeout
from .errors import DuplicateHandler
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
