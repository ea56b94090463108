"""The error of JSON-RPC and its codes."""

from __future__ import annotations

from typing import Any

from ..._redact import redact_line
from ...errors import InvalidOption, RequestFailed

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "NO_DATA",
    "PARSE_ERROR",
    "TOO_MANY_REQUESTS",
    "RPCError",
]

PARSE_ERROR = -32700
"""The message was not valid JSON (section 5.1)."""

INVALID_REQUEST = -32600
"""The message was not a valid request (section 5.1)."""

METHOD_NOT_FOUND = -32601
"""The method does not exist (section 5.1)."""

INVALID_PARAMS = -32602
"""The parameters do not match the method (section 5.1)."""

INTERNAL_ERROR = -32603
"""The method raised an unexpected exception (section 5.1)."""

TOO_MANY_REQUESTS = -32000
"""Too many requests are waiting; one of the codes reserved for servers (section 5.1)."""

NO_DATA: Any = object()


class RPCError(RequestFailed):
    """An error response. Raised by a request; a method raises it to choose the response.

    If a request raises it, ``request`` is the name of the method and ``reply`` is the whole
    response. Otherwise both are None. ``error`` is the error object.

    Args:
        code: the kind of error; -32768 to -32000 are reserved by the specification.
        message: a short description.
        data: further details, anything that can be encoded; by default none.

    Raises:
        InvalidOption: ``code`` is not an integer, or ``message`` is not a str.
    """

    def __init__(self, code: int, message: str, data: Any = NO_DATA) -> None:
        if not isinstance(code, int) or isinstance(code, bool):
            raise InvalidOption(f"code must be an integer, not {code!r}")
        if not isinstance(message, str):
            raise InvalidOption(f"message must be a str, not {message!r}")
        super().__init__(None, None, {"code": code, "message": message})
        self.args: tuple[object, ...] = (code, message)
        self.code: int = code
        self.message: str = message
        self.data: Any = None if data is NO_DATA else data
        if data is not NO_DATA:
            self.error["data"] = data

    def __str__(self) -> str:
        return redact_line(f"{self.message} ({self.code})")

    def to_object(self) -> dict[str, Any]:
        """Return the error object (section 5.1)."""
        error: dict[str, Any] = self.error
        return error
