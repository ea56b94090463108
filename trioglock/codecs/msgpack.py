"""MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), using msgspec."""

from __future__ import annotations

from typing import Any, overload

from .._types import DecodedT_co
from ..errors import DecodeError, EncodeError, InvalidOption
from ..frames import Codec, Data
from .json import convert_text, import_library

__all__ = ["Msgpack"]


class Msgpack(Codec[DecodedT_co]):
    """A :class:`Codec` for MessagePack in binary frames.

    Args:
        into: the type to decode into, as in :class:`JSON`.

    Raises:
        InvalidOption: msgspec is not installed, or cannot decode into ``into``.
    """

    @overload
    def __init__(self: Msgpack[Any]) -> None: ...

    @overload
    def __init__(self, into: type[DecodedT_co]) -> None: ...

    @overload
    def __init__(self: Msgpack[Any], into: Any) -> None: ...

    def __init__(self, into: Any = Any) -> None:
        module = import_library("msgspec", "Msgpack").msgpack
        self._encode = module.Encoder(enc_hook=convert_text).encode
        try:
            self._decode = module.Decoder(into).decode
        except TypeError as error:
            raise InvalidOption(f"into: {error}") from None

    def __repr__(self) -> str:
        return "Msgpack()"

    def encode(self, message: Any, /) -> bytes:
        try:
            frame: bytes = self._encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(f"not expressible as MessagePack: {error}") from error
        return frame

    def decode(self, frame: Data, /) -> DecodedT_co:
        if isinstance(frame, str):
            raise DecodeError("invalid MessagePack: a text frame instead of a binary one")
        try:
            message: DecodedT_co = self._decode(frame)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"invalid MessagePack: {error}") from error
        return message
