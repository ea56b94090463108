"""The methods that a peer offers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..._hints import describe_value
from ...errors import InvalidOption
from ...routing.router import is_async
from .errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RPCError
from .messages import Call, Notification

__all__ = ["BoundCall", "Methods"]

_logger = logging.getLogger("trioglock.jsonrpc")


class Methods:
    """Functions, keyed by the names by which the peer can call them.

    Args:
        functions: the functions, plain or async.

    Raises:
        InvalidOption: a name is not a str, or a value is not a function.
    """

    def __init__(self, functions: Mapping[str, Any]) -> None:
        if not isinstance(functions, Mapping):
            raise InvalidOption(
                f"methods must be a dict of functions, not {describe_value(functions)}"
            )
        for name, function in functions.items():
            if not isinstance(name, str) or not callable(function):
                raise InvalidOption(
                    "methods must map names to functions: "
                    f"{name!r} maps to {describe_value(function)}"
                )
        self._methods = {
            name: (function, _signature(function), is_async(function))
            for name, function in functions.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._methods

    def bind(self, call: Call | Notification, call_id: Any) -> BoundCall:
        """Return a call of the function with the parameters.

        Args:
            call: the method and the parameters.
            call_id: the identifier of the request; ``NO_DATA`` for a notification.

        Raises:
            RPCError: there is no such method, or the parameters do not match it.
        """
        if call.method not in self._methods:
            raise RPCError(METHOD_NOT_FOUND, "Method not found")
        function, signature, runs_async = self._methods[call.method]
        params = call.params
        args, named = ((), params) if isinstance(params, dict) else (params or (), {})
        if signature is not None:
            try:
                signature.bind(*args, **named)
            except TypeError as error:
                raise RPCError(INVALID_PARAMS, "Invalid params", str(error)) from None
        return BoundCall(call.method, call_id, partial(function, *args, **named), runs_async)


class BoundCall:
    """A function with its arguments.

    Args:
        method: the name of the method.
        call_id: the identifier of the request; ``NO_DATA`` for a notification.
        call: calls the function.
        is_async: whether the function is an ``async def``.
    """

    __slots__ = ("_call", "id", "is_async", "method")

    def __init__(self, method: str, call_id: Any, call: Callable[[], Any], is_async: bool) -> None:
        self.method: str = method
        self.id: Any = call_id
        self.is_async: bool = is_async
        self._call = call

    def run(self) -> Any:
        """Call a plain function; return its result.

        Raises:
            RPCError: raised by the function, or in place of another exception.
        """
        try:
            result = self._call()
        except Exception as error:  # noqa: BLE001 - the other side receives a response
            raise self._failure(error) from None
        if inspect.iscoroutine(result):
            result.close()
            raise self._failure(TypeError("it returned a coroutine: declare it with async def"))
        return result

    async def run_async(self) -> Any:
        """Call an async function; return its result.

        Raises:
            RPCError: as in :meth:`run`.
        """
        try:
            return await self._call()
        except Exception as error:  # noqa: BLE001 - the other side receives a response
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> RPCError:
        # The error response to a request that the method itself has sent is not intended for its
        # caller.
        if isinstance(error, RPCError) and error.reply is None:
            return error
        # The peer must not receive the details.
        _logger.error("the method %r raised an exception", self.method, exc_info=error)
        return RPCError(INTERNAL_ERROR, "Internal error")


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None  # some functions written in C have none
