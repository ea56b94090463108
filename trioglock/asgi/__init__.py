"""The same Sockets and handlers inside an ASGI application: see :class:`WebSocketApp`."""

from .app import WebSocketApp

__all__ = ["WebSocketApp"]
