"""The messages of JSON-RPC 2.0, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..._hints import describe_value
from ..._text import as_text
from ...errors import InvalidOption
from .errors import INVALID_REQUEST, NO_DATA, RPCError

__all__ = [
    "Call",
    "Notification",
    "Outcome",
    "Parameters",
    "make_call",
    "make_error",
    "make_result",
    "parse",
]

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""Parameters by position, or by name (section 4.2)."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A call without a response (section 4.1).

    Args:
        method: the name of the method.
        params: the parameters: a list, a dict, or None if there are none.
    """

    method: str
    params: list[Any] | dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request (section 4).

    Args:
        method: the name of the method.
        params: as in :class:`Notification`.
        id: the identifier: a str, a number or None.
    """

    method: str
    params: list[Any] | dict[str, Any] | None
    id: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """A response (section 5).

    Args:
        id: the identifier of the request; None if the peer could not read the identifier.
        result: the result, unless there is an error.
        error: the error, or None.
    """

    id: Any
    result: Any = None
    error: RPCError | None = None


def parse(message: Any) -> Call | Notification | Outcome:
    """Parse one decoded message that is not a batch.

    Raises:
        RPCError: the message is neither a valid request nor a valid response. Do not
            answer an invalid response; it can be recognized by its missing ``method``.
    """
    if not isinstance(message, dict):
        raise RPCError(INVALID_REQUEST, "Invalid Request")
    if is_response(message):
        return _parse_response(message)
    method, params = message.get("method"), message.get("params")
    if (
        message.get("jsonrpc") != "2.0"
        or not isinstance(method, str)
        or not isinstance(params, list | dict | None)
        or not is_id(message.get("id"))
    ):
        raise RPCError(INVALID_REQUEST, "Invalid Request")
    return Call(method, params, message["id"]) if "id" in message else Notification(method, params)


def is_response(message: Any) -> bool:
    """Whether a decoded message is intended as a response."""
    return (
        isinstance(message, dict)
        and "method" not in message
        and ("result" in message or "error" in message)
    )


def _parse_response(message: dict[str, Any]) -> Outcome:
    # Some servers add "error": null to a result.
    error = message.get("error")
    if error is None:
        return Outcome(message.get("id"), message.get("result"))
    if isinstance(error, dict):
        code, text = error.get("code"), error.get("message")
        if isinstance(code, int) and not isinstance(code, bool) and isinstance(text, str):
            return Outcome(
                message.get("id"), error=RPCError(code, text, error.get("data", NO_DATA))
            )
    # The request has failed, but the reason cannot be read.
    return Outcome(message.get("id"), error=RPCError(0, "a malformed error object", error))


def is_id(value: object) -> bool:
    """Whether ``value`` can identify a request: a str, a number or None (section 4)."""
    return isinstance(value, str | int | float | None) and not isinstance(value, bool)


def check_method(method: object) -> str:
    """Return the name of a method.

    Raises:
        InvalidOption: it is not a str.
    """
    if not isinstance(method, str):
        raise InvalidOption(f"method must be a str, not {describe_value(method)}")
    return as_text(method)


def make_call(method: str, params: Parameters | None, call_id: Any = NO_DATA) -> dict[str, Any]:
    """Return a request; without ``call_id``, a notification (sections 4 and 4.1).

    Raises:
        InvalidOption: ``params`` is neither a sequence nor a mapping.
    """
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": check_method(method)}
    if params is not None:
        if isinstance(params, str | bytes | bytearray) or not isinstance(
            params, Sequence | Mapping
        ):
            raise InvalidOption(
                "params must be a list of values or a dict that maps parameter names to values, "
                f"not {describe_value(params)}"
            )
        message["params"] = dict(params) if isinstance(params, Mapping) else list(params)
    if call_id is not NO_DATA:
        message["id"] = call_id
    return message


def make_result(call_id: Any, result: Any) -> dict[str, Any]:
    """Return the response to a successful request (section 5)."""
    return {"jsonrpc": "2.0", "result": result, "id": call_id}


def make_error(call_id: Any, error: RPCError) -> dict[str, Any]:
    """Return the response to a failed request (section 5)."""
    return {"jsonrpc": "2.0", "error": error.to_object(), "id": call_id}
