"""The block: what ``connect()`` and ``serve()`` return, to be entered with ``async with``.

An asynchronous context manager like any other, which also says what to write instead to those who
await it, iterate it, enter it without ``async``, or run it on something other than trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

import trio

from .errors import UsageError

__all__ = ["Block", "block"]

T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


class Block(AbstractAsyncContextManager[T_co]):
    """Enters and leaves another context manager.

    Args:
        inner: that one.
        call: what has made it, such as ``"connect(...)"``.
    """

    __slots__ = ("_call", "_inner")

    def __init__(self, inner: AbstractAsyncContextManager[T_co], call: str) -> None:
        self._inner = inner
        self._call = call

    def __repr__(self) -> str:
        return f"<{self._call}, to be entered with async with>"

    async def __aenter__(self) -> T_co:
        if not trio.lowlevel.in_trio_run():
            raise UsageError(
                f"{self._call} runs on trio: start the program with trio.run(main), "
                "not with asyncio.run(main())"
            )
        return await self._inner.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)

    def _refuse(self) -> NoReturn:
        raise UsageError(f"write: async with {self._call} as ...:")

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        self._refuse()

    def __aiter__(self) -> NoReturn:
        self._refuse()

    def __enter__(self) -> NoReturn:
        self._refuse()

    def __exit__(self, *_: object) -> None:
        """Only there for the error of ``__enter__`` to be raised."""


def block(
    call: str,
) -> Callable[[Callable[P, AsyncIterator[T_co]]], Callable[P, Block[T_co]]]:
    """Make a function with one ``yield`` return a :class:`Block`.

    Args:
        call: what the user has called, as the errors show it.
    """

    def decorate(function: Callable[P, AsyncIterator[T_co]]) -> Callable[P, Block[T_co]]:
        manager = asynccontextmanager(function)

        @wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Block[T_co]:
            return Block(manager(*args, **kwargs), call)

        return make

    return decorate
