"""The trio-websocket transport: an independent implementation behind the same port."""

from .transport import TrioWebsocketTransport

__all__ = ["TrioWebsocketTransport"]
