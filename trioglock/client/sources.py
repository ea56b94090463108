"""Options that accept a value, or a function that returns one.

Such a function is called before every attempt.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from .._hints import called_hint
from ..errors import InvalidOption

__all__ = ["Source", "check_not_called", "resolve"]

T = TypeVar("T")

Source: TypeAlias = T | Callable[[], T | Awaitable[T]]
"""A value, or a function, plain or async, that is called whenever the value is needed."""


def check_not_called(option: str, source: object, result: str) -> None:
    """Raise InvalidOption if an option is a coroutine.

    The async function itself must be passed, without calling it.

    Args:
        option: the name of the option.
        source: its value.
        result: what the function returns.
    """
    if hint := called_hint(source):
        raise InvalidOption(
            f"{option} must be {result}, or a function that returns one, not a coroutine{hint}"
        )


async def resolve(option: str, source: Source[T], kind: type, result: str) -> T:
    """Return the value of an option; if it is a function, call it and check what it returns.

    Args:
        option: the name of the option.
        source: the value, or the function.
        kind: the class of which the result of a function must be an instance. Text is not accepted
            as an iterable.
        result: describes what the function must return.

    Raises:
        InvalidOption: the function returned something else.
        Exception: raised by the function.
    """
    if not callable(source):
        return source
    returned = source()
    value: T = await returned if inspect.isawaitable(returned) else returned
    if not isinstance(value, kind) or (kind is not str and isinstance(value, str | bytes)):
        # Only the type: the value may be a secret.
        got = "None" if value is None else type(value).__name__
        hint = "; return {} for none" if value is None and kind is not str else ""
        raise InvalidOption(
            f"the function passed as {option} must return {result}, not {got}{hint}"
        )
    return value
