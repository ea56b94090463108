"""Both real transports pass the conformance kit."""

from __future__ import annotations

from trioglock import NativeTransport, Transport, TrioWebsocketTransport
from trioglock.testing.conformance import TransportConformance


class TestNative(TransportConformance):
    def make_transport(self) -> Transport:
        return NativeTransport()


class TestTrioWebsocket(TransportConformance):
    def make_transport(self) -> Transport:
        return TrioWebsocketTransport()
