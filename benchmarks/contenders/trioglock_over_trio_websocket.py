"""trioglock over trio-websocket."""

from __future__ import annotations

from trioglock import TrioWebsocketTransport

from .trioglock_native import Trioglock

__all__ = ["CONTENDER"]

CONTENDER = Trioglock(TrioWebsocketTransport())
