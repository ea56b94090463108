"""RFC 6455, section 5, in both roles and without I/O: bytes to events, frames to bytes."""

from .decoder import Decoder
from .deflate import Deflate
from .encoder import Encoder

__all__ = ["Decoder", "Deflate", "Encoder"]
