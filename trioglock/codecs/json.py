"""JSON (RFC 8259), using the fastest installed library, and the interface of every codec.

To support another JSON library, write a function that returns its encoder and decoder and add it
to :data:`LIBRARIES`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import DecodeError, EncodeError, InvalidOption
from ..frames import Data
from ..options import check_choice

__all__ = ["JSON", "LIBRARIES", "Codec", "import_library"]

Encoder: TypeAlias = Callable[[Any], str]
Decoder: TypeAlias = Callable[[str | bytes], Any]


class Codec(Protocol):
    """Encodes messages as frames and decodes frames into messages.

    Any object with these two methods is a codec. ``decode`` may raise any ValueError for a
    malformed frame; the codecs of this package raise :class:`~trioglock.errors.DecodeError`, a
    subclass of ValueError.
    """

    def encode(self, message: Any, /) -> Data:
        """Return the frame for a message: ``str`` for a text frame, ``bytes`` for a binary one.

        Raises:
            EncodeError: the format cannot express the message.
        """

    def decode(self, frame: Data, /) -> Any:
        """Return the message in a frame.

        Raises:
            DecodeError: the frame is malformed or of the wrong type.
        """


class JSON(Codec):
    """A :class:`Codec` for JSON in text frames; a binary frame is decoded as UTF-8.

    ``NaN``, ``Infinity`` and numbers too large for a float are not JSON: decoding them raises
    DecodeError. Encoding them raises EncodeError with ``json``; ``msgspec`` and ``orjson`` write
    ``null``.

    Args:
        into: the type to decode into: a ``msgspec.Struct``, a dataclass, a ``TypedDict``, a union
            of tagged types, or anything else that ``msgspec`` converts to. By default dicts,
            lists, strings, numbers, booleans and None.
        library: ``"msgspec"``, ``"orjson"`` or ``"json"``; by default the first one installed.
            Each encodes some types beyond JSON's own: see its documentation.

    Raises:
        InvalidOption: the library is unknown or not installed, or cannot decode into ``into``.
    """

    def __init__(
        self,
        into: Any = Any,
        *,
        library: Literal["msgspec", "orjson", "json"] | None = None,
    ) -> None:
        self.library: str = library or ("msgspec" if into is not Any else _preferred())
        """The name of the library in use."""
        check_choice("library", self.library, tuple(LIBRARIES))
        if into is not Any and self.library != "msgspec":
            raise InvalidOption(f"into needs library='msgspec', not {library!r}")
        self._encode: Encoder
        self._decode: Decoder
        self._encode, self._decode = LIBRARIES[self.library](into)

    def __repr__(self) -> str:
        return f"JSON(library={self.library!r})"

    def encode(self, message: Any, /) -> str:
        try:
            return self._encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(f"not expressible as JSON: {error}") from error

    def decode(self, frame: Data, /) -> Any:
        try:
            return self._decode(frame)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"invalid JSON: {error}") from error


def import_library(name: str, purpose: str) -> Any:
    """Import an optional library.

    Args:
        name: the name of the module.
        purpose: the feature that needs it, for the error message.

    Raises:
        InvalidOption: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InvalidOption(f"{purpose} needs {name}: pip install 'trioglock[codecs]'") from None


def _use_msgspec(into: Any) -> tuple[Encoder, Decoder]:
    purpose = "library='msgspec'" if into is Any else "into"
    module = import_library("msgspec", purpose).json
    encode = module.Encoder().encode
    try:
        decoder = module.Decoder(into)
    except TypeError as error:
        raise InvalidOption(f"into: {error}") from None
    return lambda message: encode(message).decode(), decoder.decode


def _use_orjson(_into: Any) -> tuple[Encoder, Decoder]:
    orjson = import_library("orjson", "library='orjson'")
    dumps = orjson.dumps
    return lambda message: dumps(message).decode(), orjson.loads


def _use_standard_library(_into: Any) -> tuple[Encoder, Decoder]:
    encoder = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
    )
    read = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite).decode

    def decode(frame: str | bytes) -> Any:
        # JSON between systems is UTF-8 (RFC 8259, section 8.1); the library would guess it.
        return read(frame if isinstance(frame, str) else frame.decode())

    return encoder.encode, decode


LIBRARIES: Mapping[str, Callable[[Any], tuple[Encoder, Decoder]]] = {
    "msgspec": _use_msgspec,
    "orjson": _use_orjson,
    "json": _use_standard_library,
}
"""Functions that create the encoder and decoder of each library, in order of preference."""


@functools.cache
def _preferred() -> str:
    return next(name for name in LIBRARIES if importlib.util.find_spec(name) is not None)


def _parse_finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is out of range")
    return number


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
