"""JSON (RFC 8259), by the quickest library that is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..errors import DecodeError, EncodeError, InvalidOption
from ..frames import Data
from .libraries import json_functions, msgspec, preferred

__all__ = ["JSON"]


class JSON:
    """A :class:`Codec` for JSON in text frames.

    ``NaN`` and ``Infinity`` are not JSON: they, and numbers too large for a float, are refused in
    decoding. In encoding ``json`` refuses them, ``msgspec`` and ``orjson`` make them ``null``.

    Args:
        into: what to decode into: a ``msgspec.Struct``, a dataclass, a ``TypedDict``, a union of
            tagged ones, anything that ``msgspec`` converts to. By default whatever JSON says.
        library: ``"msgspec"``, ``"orjson"`` or ``"json"``; by default the first of them that is
            installed. They differ in what they encode beyond JSON's own types: see their manuals.

    Raises:
        InvalidOption: the library is not installed or unknown; ``into`` is given and msgspec is
            not installed, or cannot decode into it.
    """

    def __init__(
        self,
        into: Any = Any,
        *,
        library: Literal["msgspec", "orjson", "json"] | None = None,
    ) -> None:
        self.library: str = library or ("msgspec" if into is not Any else preferred())
        """Which one does the work."""
        self._encode: Callable[[Any], str]
        self._decode: Callable[[str | bytes], Any]
        self._encode, self._decode = json_functions(self.library)
        if into is not Any:
            if self.library != "msgspec":
                raise InvalidOption(f"into needs library='msgspec', not {library!r}")
            self._decode = _typed(msgspec("into"), into)

    def __repr__(self) -> str:
        return f"JSON(library={self.library!r})"

    def encode(self, message: Any, /) -> str:
        """The text frame for a message.

        Raises:
            EncodeError: it contains something that JSON has no way to express.
        """
        try:
            return self._encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(f"not expressible as JSON: {error}") from error

    def decode(self, frame: Data, /) -> Any:
        """The message in a frame; a binary frame is read as UTF-8.

        Raises:
            DecodeError: it is no JSON, or not of ``into``.
        """
        try:
            return self._decode(frame)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"invalid JSON: {error}") from error


def _typed(library: Any, into: Any) -> Callable[[str | bytes], Any]:
    try:
        decode: Callable[[str | bytes], Any] = library.json.Decoder(into).decode
    except TypeError as error:
        raise InvalidOption(f"into: {error}") from None
    return decode
