"""The native transport: RFC 6455 frames over any trio stream, with our own I/O."""

from .decoder import Decoder
from .deflate import Deflate
from .encoder import Encoder
from .link import NativeLink
from .transport import NativeTransport

__all__ = ["Decoder", "Deflate", "Encoder", "NativeLink", "NativeTransport"]
