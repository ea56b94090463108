"""Codecs: messages to frames and back, as JSON or MessagePack, untyped or typed."""

from .codec import Codec
from .json import JSON
from .msgpack import Msgpack

__all__ = ["JSON", "Codec", "Msgpack"]
