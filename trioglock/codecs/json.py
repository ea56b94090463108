"""JSON (RFC 8259), using the standard library or a faster library.

All libraries accept and reject the same values; see :mod:`.json_rules`. To support another JSON
library, write a function that returns its encoder and decoder and add it to :data:`LIBRARIES`.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, overload

from .._text import as_text
from .._types import DecodedT_co
from ..errors import DecodeError, EncodeError, InvalidOption
from ..frames import Codec, Data
from ..options import check_choice
from .json_rules import MAX_DEPTH, check_depth, check_surrogates, is_plain

__all__ = ["JSON", "LIBRARIES", "import_library"]

Encoder: TypeAlias = Callable[[Any], str]
Decoder: TypeAlias = Callable[[str | bytes], Any]

LONG_NUMBER = b"0" * 19
"""The shortest integers that may need more than 64 bits, after translation by ``_DIGITS``."""

_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)


class JSON(Codec[DecodedT_co]):
    """A :class:`Codec` for JSON in text frames; a binary frame is decoded as UTF-8.

    All libraries accept and reject the same values. The following can be encoded: dicts with
    ``str`` keys, lists and tuples (all nested up to 200 levels); ``str``, ``int``, finite
    ``float``, ``bool`` and None; instances of subclasses of these types; ``UUID`` and ``Enum``.
    Everything else raises EncodeError: sets, bytes, NaN, dates, dataclasses, other keys, and lone
    surrogates. Decoding raises DecodeError for NaN, for lone surrogates, for deeper nesting, and
    for numbers that are out of range. If a key is repeated, its last value is used.

    Args:
        into: the type to decode into: a ``msgspec.Struct``, a dataclass, a ``TypedDict``, a union
            of tagged types, or anything else that ``msgspec`` converts to. With ``into``, all types
            that ``msgspec`` supports can be encoded. By default, messages are decoded into dicts,
            lists, strings, numbers, booleans and None.
        library: ``"json"`` is the standard library, the default. ``"msgspec"`` and ``"orjson"`` are
            faster, and must be installed separately. ``into`` needs ``"msgspec"``, which is then
            the default.

    Raises:
        InvalidOption: the library is unknown or not installed, or cannot decode into ``into``.
    """

    @overload
    def __init__(
        self: JSON[Any], *, library: Literal["msgspec", "orjson", "json"] | None = None
    ) -> None: ...

    @overload
    def __init__(
        self,
        into: type[DecodedT_co],
        *,
        library: Literal["msgspec", "orjson", "json"] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: JSON[Any], into: Any, *, library: Literal["msgspec", "orjson", "json"] | None = None
    ) -> None: ...

    def __init__(
        self,
        into: Any = Any,
        *,
        library: Literal["msgspec", "orjson", "json"] | None = None,
    ) -> None:
        self.library: str = library or ("json" if into is Any else "msgspec")
        """The name of the library in use."""
        check_choice("library", self.library, tuple(LIBRARIES))
        self.into: Any = into
        """The type into which messages are decoded; by default ``Any``."""
        if into is not Any and self.library != "msgspec":
            raise InvalidOption(f"into needs library='msgspec', not {library!r}")
        self._encode: Encoder
        self._decode: Decoder
        self._encode, self._decode = LIBRARIES[self.library](into)

    def __repr__(self) -> str:
        return f"JSON(library={self.library!r})"

    def encode(self, message: Any, /) -> str:
        encode = self._encode
        try:
            return encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(f"not expressible as JSON: {error}") from error

    def decode(self, frame: Data, /) -> DecodedT_co:
        decode = self._decode
        try:
            if len(frame) > 2 * MAX_DEPTH:
                check_depth(frame)
            message: DecodedT_co = decode(frame)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"invalid JSON: {error}") from error
        return message


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


def convert_text(value: object) -> str:
    """Convert values that msgspec cannot encode: instances of subclasses of ``str``."""
    if isinstance(value, str):
        return as_text(value)
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _use_msgspec(into: Any) -> tuple[Encoder, Decoder]:
    purpose = "library='msgspec'" if into is Any else "into"
    msgspec = import_library("msgspec", purpose)
    dump = msgspec.json.Encoder(enc_hook=convert_text).encode
    try:
        decoder = msgspec.json.Decoder(into)
    except TypeError as error:
        raise InvalidOption(f"into: {error}") from None

    def encode(message: Any) -> str:
        # msgspec also encodes sets, bytes and more, so every message is checked.
        return dump(message).decode() if is_plain(message) else _write(message)

    def encode_typed(message: Any) -> str:
        text: str = dump(message).decode()
        if "null" in text:
            # Raises for NaN.
            is_plain(msgspec.to_builtins(message, str_keys=True, enc_hook=convert_text))
        return text

    if into is not Any:
        return encode_typed, decoder.decode
    return encode if find_spec("orjson") is None else _orjson_encoder(), decoder.decode


def _use_orjson(_into: Any) -> tuple[Encoder, Decoder]:
    loads = import_library("orjson", "library='orjson'").loads

    def decode(frame: str | bytes) -> Any:
        data = frame.encode() if isinstance(frame, str) else frame
        # orjson reads integers of more than 64 bits as floats.
        return _read(frame) if LONG_NUMBER in data.translate(_DIGITS) else loads(data)

    return _orjson_encoder(), decode


def _orjson_encoder() -> Encoder:
    orjson = import_library("orjson", "library='orjson'")
    dumps = orjson.dumps
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def encode(message: Any) -> str:
        try:
            text: str = dumps(message, None, options).decode()
        except TypeError:
            return _write(message)  # encodes large integers and similar values, or raises
        if "null" in text:
            is_plain(message)  # raises for NaN and Infinity, which were written as null
        check_depth(text)
        return text

    return encode


def _use_standard_library(_into: Any) -> tuple[Encoder, Decoder]:
    return _write, _read


# The standard library also encodes and decodes values that the others would treat differently.


def _write(message: Any) -> str:
    is_plain(message)
    text = "".join(_encode_chunks(message, 0))
    if not text.isascii():
        text.encode()  # raises for lone surrogates
    return text


def _read(frame: str | bytes) -> Any:
    # JSON between systems is UTF-8 (RFC 8259, section 8.1); the library would guess the encoding.
    text = frame if isinstance(frame, str) else frame.decode()
    if "\\u" in text or not text.isascii():
        check_surrogates(text)
    try:
        message, end = _scan(text, 0)
    except StopIteration:
        end = -1
    # There is white space around the value, or an error.
    return message if end == len(text) else _decoder.decode(text)


LIBRARIES: Mapping[str, Callable[[Any], tuple[Encoder, Decoder]]] = {
    "msgspec": _use_msgspec,
    "orjson": _use_orjson,
    "json": _use_standard_library,
}
"""Functions that create the encoder and decoder of each library."""


def _parse_finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is out of range")
    return number


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _convert(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else str(value)  # or a UUID


def _compact_encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return ``JSONEncoder.iterencode``, without creating an encoder in C for each message.

    The second argument is the level of indentation, which has no effect.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_convert
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda message, _: encoder.iterencode(message)
    options = (None, ":", ",", False, False, True)
    encode_chunks: Callable[[Any, int], Iterable[str]] = make(
        None, _convert, json.encoder.encode_basestring, *options
    )
    return encode_chunks


_encode_chunks = _compact_encoder()
_decoder = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite)
_scan: Callable[[str, int], tuple[Any, int]] = getattr(_decoder, "scan_once")  # noqa: B009 - not in typeshed
