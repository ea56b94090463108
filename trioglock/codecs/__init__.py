"""Codecs: encode messages as JSON or MessagePack frames, and decode them, optionally into types."""

from ..frames import Codec
from .json import JSON
from .msgpack import Msgpack

__all__ = ["JSON", "Codec", "Msgpack"]
