"""Codecs: encode messages as JSON or MessagePack frames, and decode them, optionally into types."""

from .json import JSON, Codec
from .msgpack import Msgpack

__all__ = ["JSON", "Codec", "Msgpack"]
