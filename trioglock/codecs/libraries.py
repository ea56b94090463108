"""The libraries that do the work: which are installed, and which one JSON uses."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import InvalidOption

__all__ = ["JSON_LIBRARIES", "Functions", "json_functions", "msgspec", "preferred"]

Functions: TypeAlias = tuple[Callable[[Any], str], Callable[[str | bytes], Any]]
"""How to encode and how to decode."""

JSON_LIBRARIES = ("msgspec", "orjson", "json")
"""In the order of preference; the last one is Python's own."""


@functools.cache
def preferred() -> str:
    """The JSON library that is used where none is named; found out once in a process."""
    return next(name for name in JSON_LIBRARIES if importlib.util.find_spec(name) is not None)


def msgspec(purpose: str) -> Any:
    """The module ``msgspec``.

    Args:
        purpose: what needs it, for the error.

    Raises:
        InvalidOption: it is not installed.
    """
    return _installed("msgspec", purpose)


def json_functions(library: str) -> Functions:
    """The functions of one of :data:`JSON_LIBRARIES`, without types.

    Raises:
        InvalidOption: there is no such library, or it is not installed.
    """
    match library:
        case "json":
            encoder = json.JSONEncoder(
                ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
            )
            return encoder.encode, functools.partial(
                _standard_decode,
                json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode,
            )
        case "orjson":
            orjson = _installed("orjson", "library='orjson'")
            dumps = orjson.dumps
            return lambda message: dumps(message).decode(), orjson.loads
        case "msgspec":
            module = msgspec("library='msgspec'").json
            encode = module.Encoder().encode
            return lambda message: encode(message).decode(), module.Decoder().decode
        case _:
            allowed = ", ".join(map(repr, JSON_LIBRARIES))
            raise InvalidOption(f"library is one of {allowed}, not {library!r}")


def _installed(name: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InvalidOption(f"{purpose} needs {name}: pip install 'trioglock[codecs]'") from None


def _standard_decode(decode: Callable[[str], Any], frame: str | bytes) -> Any:
    # JSON between systems is UTF-8 (RFC 8259, section 8.1); the library would guess others.
    return decode(frame if isinstance(frame, str) else frame.decode())


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is out of range")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
