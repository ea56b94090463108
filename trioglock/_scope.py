"""Scopes: tasks around the body of an ``async with``, and the exception that comes out of it.

trio's nurseries wrap every exception in a group and show the ``Cancelled`` with which they stop
the body. Users of ``connect()``, ``serve()`` and the other context managers see neither:

* The body's exception comes out as it was raised.
* A task that fails cancels the body, and its exception comes out as it was raised.
* If both fail for reasons of their own, one group holds both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

import trio

from .errors import UsageError

__all__ = ["is_cancelled", "is_graceful", "leaves", "open_scope", "scope_function"]

T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


def leaves(error: BaseException | None) -> list[BaseException]:
    """The exceptions in ``error``, without the groups around them; none for None."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` is ``trio.Cancelled`` and nothing else."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def is_graceful(error: BaseException) -> bool:
    """Whether there is time for a clean end: not after a cancellation or KeyboardInterrupt."""
    return all(isinstance(leaf, Exception) for leaf in leaves(error))


@asynccontextmanager
async def open_scope(
    *,
    finish: Callable[[BaseException | None], Awaitable[object]] | None = None,
    failures: Sequence[BaseException] = (),
    is_consequence: Callable[[BaseException], bool] = is_cancelled,
    message: str = "the body and a task both failed",
) -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks end with the body.

    Args:
        finish: called after the body with its exception or None, to end the tasks cleanly; then
            the nursery is cancelled.
        failures: what tasks recorded instead of raising it; read after the tasks have ended.
        is_consequence: whether the body's exception only follows from the failure of a task, and
            is therefore left out.
        message: of the group that holds two failures.
    """
    body_error: BaseException | None = None
    leaked: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: BLE001 - raised below, outside the nursery
                body_error = error
            if finish is not None:
                await finish(body_error)
            nursery.cancel_scope.cancel()
    except BaseException as error:  # noqa: BLE001 - raised below, without its group
        leaked = error
    verdict = _verdict(body_error, failures, leaked, is_consequence, message)
    if verdict is not None:
        context = verdict.__context__
        try:
            raise verdict
        finally:
            # Neither the Cancelled that is being handled here, nor a reference cycle between the
            # exception and this frame.
            verdict.__context__ = context
            del verdict, body_error, leaked, context


def _verdict(
    body_error: BaseException | None,
    failures: Sequence[BaseException],
    leaked: BaseException | None,
    is_consequence: Callable[[BaseException], bool],
    message: str,
) -> BaseException | None:
    """The one exception that comes out of a scope, or None."""
    raised = leaves(leaked)
    real = [error for error in (*failures, *raised) if not isinstance(error, trio.Cancelled)]
    if (
        body_error is not None
        and not isinstance(body_error, trio.Cancelled)
        and not (real and is_consequence(body_error))
        and all(error is not body_error for error in real)
    ):
        real.insert(0, body_error)
    if len(real) > 1:
        return BaseExceptionGroup(message, real)
    if real:
        return real[0]
    return next(iter(raised), None) if body_error is None else body_error


class Scope(AbstractAsyncContextManager[T_co]):
    """An async context manager whose misuse raises errors that say what to write instead.

    Args:
        inner: the context manager to enter.
        call: the call that returned it, such as ``"connect(...)"``.
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
        """Needed for the error of ``__enter__`` to be raised."""


def scope_function(
    call: str,
) -> Callable[[Callable[P, AsyncIterator[T_co]]], Callable[P, Scope[T_co]]]:
    """Make a function with one ``yield`` return a :class:`Scope`.

    Args:
        call: the call as users write it, for error messages.
    """

    def decorate(function: Callable[P, AsyncIterator[T_co]]) -> Callable[P, Scope[T_co]]:
        manager = asynccontextmanager(function)

        @wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Scope[T_co]:
            return Scope(manager(*args, **kwargs), call)

        return make

    return decorate
