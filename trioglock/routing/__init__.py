"""Evented connections: events routed to small handlers, and requests that wait for an answer."""

from .connect import connect
from .connection import EventConnection
from .emit import Emit
from .errors import DuplicateHandler, RequestLost, RequestTimeout
from .requests import Requests
from .router import Handler, Router
from .socket import EventSocket

__all__ = [
    "DuplicateHandler",
    "Emit",
    "EventConnection",
    "EventSocket",
    "Handler",
    "RequestLost",
    "RequestTimeout",
    "Requests",
    "Router",
    "connect",
]
