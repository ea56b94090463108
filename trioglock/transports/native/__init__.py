"""The native transport: RFC 6455 frames over any trio stream, with our own I/O."""

from .decoder import Decoder
from .deflate import DeflateStreams
from .encoder import Encoder

__all__ = ["Decoder", "DeflateStreams", "Encoder"]
