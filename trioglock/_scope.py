"""Tasks around the body of an ``async with``, without exception groups.

A trio nursery wraps every exception in a group and raises the ``Cancelled`` that stopped the body.
``connect()``, ``serve()`` and the other context managers of this package do neither:

* An exception from the body is raised unchanged.
* An exception from a task cancels the body and is raised unchanged.
* If both fail independently, a group of both exceptions is raised.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import trio

from ._hints import hide_frames, require_trio
from .errors import ConnectError, InvalidOption, UsageError

__all__ = [
    "Scope",
    "is_cancelled",
    "is_graceful",
    "leave_nursery",
    "leaves",
    "open_scope",
    "raise_selected",
    "scope_function",
]

T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


def leaves(error: BaseException | None) -> list[BaseException]:
    """Return the exceptions in ``error`` and its nested groups; an empty list for None."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` contains only ``trio.Cancelled``."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def is_graceful(error: BaseException) -> bool:
    """Whether to end cleanly: always, except after a cancellation or a KeyboardInterrupt."""
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
        finish: called after the body, with its exception or None, to end the tasks cleanly. The
            nursery is cancelled afterwards.
        failures: exceptions that tasks recorded instead of raising; read after the tasks have
            ended.
        is_consequence: whether the body's exception is only a consequence of the failure of a
            task, and is therefore ignored.
        message: the message of a group of two exceptions.
    """
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    body_error: BaseException | None = None
    try:
        yield nursery
    except BaseException as error:  # noqa: BLE001 - raised below, outside the nursery
        body_error = error
    try:
        await leave_nursery(
            manager,
            nursery,
            body_error,
            finish=finish,
            failures=failures,
            is_consequence=is_consequence,
            message=message,
        )
    finally:
        del body_error  # it refers to this frame


async def leave_nursery(
    manager: AbstractAsyncContextManager[trio.Nursery],
    nursery: trio.Nursery,
    body_error: BaseException | None,
    *,
    finish: Callable[[BaseException | None], Awaitable[object]] | None = None,
    failures: Sequence[BaseException] = (),
    is_consequence: Callable[[BaseException], bool] = is_cancelled,
    message: str = "the body and a task both failed",
) -> None:
    """End the tasks of a nursery, and raise an exception as :func:`open_scope` does.

    Context managers that many connections keep open use it, because a generator takes more memory.

    Args:
        manager: the context manager of the nursery, which has been entered.
        nursery: the nursery.
        body_error: the exception of the body, or None.
        finish: as in :func:`open_scope`.
        failures: as in :func:`open_scope`.
        is_consequence: as in :func:`open_scope`.
        message: as in :func:`open_scope`.
    """
    leaked: BaseException | None = None
    try:
        try:
            if finish is not None:
                await finish(body_error)
            nursery.cancel_scope.cancel()
        except BaseException as error:
            if not await manager.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await manager.__aexit__(None, None, None)
    except BaseException as error:  # noqa: BLE001 - raised below, without its group
        leaked = error
    try:
        raise_selected(body_error, failures, leaked, is_consequence, message)
    finally:
        del body_error, leaked, failures


def raise_selected(
    body_error: BaseException | None,
    failures: Sequence[BaseException],
    leaked: BaseException | None,
    is_consequence: Callable[[BaseException], bool] = is_cancelled,
    message: str = "several tasks failed",
) -> None:
    """Raise the exception with which a scope ends, if any.

    Args:
        body_error: the exception of the body, or None.
        failures: as in :func:`open_scope`.
        leaked: the exception of the nursery, or None.
        is_consequence: as in :func:`open_scope`.
        message: as in :func:`open_scope`.
    """
    outcome = _select_exception(body_error, failures, leaked, is_consequence, message)
    if outcome is not None:
        context = outcome.__context__
        try:
            raise outcome
        finally:
            # Restore the context, which would be the Cancelled, and break the reference cycle
            # between the exception and this frame.
            outcome.__context__ = context
            del outcome, body_error, leaked, context, failures


def _select_exception(
    body_error: BaseException | None,
    failures: Sequence[BaseException],
    leaked: BaseException | None,
    is_consequence: Callable[[BaseException], bool],
    message: str,
) -> BaseException | None:
    """Return the exception to raise from a scope, or None."""
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
    """An async context manager that raises a helpful error if it is misused.

    Subclasses implement ``_enter`` and ``_exit``.
    """

    __slots__ = ()

    _call: str
    """The call that returned this object, such as ``"connect(...)"``."""

    def __repr__(self) -> str:
        return f"<{self._call}, not entered; use async with>"

    async def __aenter__(self) -> T_co:
        require_trio(self._call)
        try:
            return await self._enter()
        except (ConnectError, InvalidOption) as error:
            hide_frames(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._exit(kind, error, traceback)
        finally:
            # A Cancelled refers to the frames of its cause, and another exception to this frame.
            del error, traceback

    @abstractmethod
    async def _enter(self) -> T_co: ...

    @abstractmethod
    async def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...

    def _refuse(self) -> NoReturn:
        raise UsageError(f"use: async with {self._call} as ...:")

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        self._refuse()

    def __aiter__(self) -> NoReturn:
        self._refuse()

    def __enter__(self) -> NoReturn:
        self._refuse()

    def __exit__(self, *_: object) -> None:
        """Do nothing; required so that ``__enter__`` can raise its error."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{name!r} needs the block: use async with {self._call} as ...:")


class _FunctionScope(Scope[T_co]):
    """The scope of a function decorated with :func:`scope_function`."""

    __slots__ = ("_call", "_inner")

    def __init__(self, inner: AbstractAsyncContextManager[T_co], call: str) -> None:
        self._inner = inner
        self._call = call

    async def _enter(self) -> T_co:
        return await self._inner.__aenter__()

    async def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            del error, traceback


def scope_function(
    call: str,
) -> Callable[[Callable[P, AsyncIterator[T_co]]], Callable[P, Scope[T_co]]]:
    """Turn an async generator function with one ``yield`` into a function that returns a Scope.

    Args:
        call: the call as users write it, for error messages.
    """

    def decorate(function: Callable[P, AsyncIterator[T_co]]) -> Callable[P, Scope[T_co]]:
        manager = asynccontextmanager(function)

        @wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Scope[T_co]:
            return _FunctionScope(manager(*args, **kwargs), call)

        return make

    return decorate
