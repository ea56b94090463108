"""The native transport: websockets' opening handshake, our codec, trio's streams."""

from .link import NativeLink
from .transport import NativeTransport

__all__ = ["NativeLink", "NativeTransport"]
