"""From messages to frames and back: JSON text, and binary where the payload is bytes."""

from __future__ import annotations

from typing import Any, Protocol

from ...codecs import JSON, Codec
from ...frames import Data
from .binary import decode_binary, encode_binary
from .errors import InvalidMessage
from .message import Message

__all__ = ["Serializer", "V2Serializer"]


class Serializer(Protocol):
    """Two functions; bring your own for a server that has been given another serializer."""

    def encode(self, message: Message) -> Data:
        """A frame: ``str`` is sent as text, ``bytes`` as binary.

        Raises:
            TypeError, ValueError: the message cannot be encoded; any kind of them.
        """

    def decode(self, frame: Data) -> Message:
        """The message of a received frame.

        Raises:
            ValueError: it is none; any kind of it.
        """


class V2Serializer:
    """What Phoenix's ``V2.JSONSerializer`` and JavaScript's ``serializer.js`` speak: the default.

    Args:
        codec: for text, by default the quickest JSON that is installed.
    """

    def __init__(self, codec: Codec | None = None) -> None:
        codec = codec or JSON()
        self._encode = codec.encode
        self._decode = codec.decode

    def encode(self, message: Message) -> Data:
        """See :meth:`Serializer.encode`.

        Raises:
            InvalidMessage: a field does not fit into the binary layout.
            EncodeError: the payload is neither bytes nor what JSON can say.
        """
        payload = message.payload
        if isinstance(payload, bytes):
            return encode_binary(message)
        return self._encode([message.join_ref, message.ref, message.topic, message.event, payload])

    def decode(self, frame: Data) -> Message:
        """See :meth:`Serializer.decode`.

        Raises:
            InvalidMessage: it is no message of this protocol.
            DecodeError: it is no JSON.
        """
        if isinstance(frame, bytes):
            return decode_binary(frame)
        parts: Any = self._decode(frame)
        if parts.__class__ is not list or len(parts) != 5:
            raise InvalidMessage(f"a message is an array of five, not {frame:.100}")
        join_ref, ref, topic, event, payload = parts
        if not (
            (join_ref is None or join_ref.__class__ is str)
            and (ref is None or ref.__class__ is str)
            and topic.__class__ is str
            and event.__class__ is str
        ):
            raise InvalidMessage(f"refs are text or null, topic and event text: {frame:.100}")
        return Message(join_ref, ref, topic, event, payload)
