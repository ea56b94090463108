"""Requests that are waiting for an answer with the same ``ref``.

A request fails with RequestLost as soon as the link that carries it has ended. A request made
while there is no link waits for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ..connection import Connection
from ..disconnect import Disconnect
from ..errors import UsageError
from .errors import RequestLost

__all__ = ["PendingRequest", "Requests"]


class PendingRequest:
    """A request that is waiting for its answer.

    Args:
        event: the name of the request.
        has_link: whether an open link carries the request.
    """

    def __init__(self, event: str, has_link: bool) -> None:
        self.event: str = event
        """The name of the request."""
        self.has_link: bool = has_link
        """Whether the request ends with the current link."""
        self.parts: list[Any] = []
        """The answers collected so far, for a request with several answers."""
        self._sending = trio.CancelScope()
        self._resolved = trio.Event()
        self._answer: Any = None
        self._error: Exception | None = None

    async def send(self, connection: Connection[Any], message: Any) -> None:
        """Send the message of the request; stop waiting for the send queue if the link ends.

        Args:
            connection: the connection to send over.
            message: the message, not yet encoded.

        Raises:
            RequestLost: the link ended.
            Exception: as for :meth:`Connection.send`.
        """
        with self._sending:
            await connection.send(message)
        if self._error is not None:
            raise self._error

    async def wait(self) -> Any:
        """Return the answer.

        Raises:
            RequestLost: the link ended.
            Exception: the error passed to :meth:`resolve`.
        """
        await self._resolved.wait()
        if self._error is not None:
            raise self._error
        return self._answer

    def resolve(self, answer: Any, error: Exception | None = None) -> None:
        """End the request, with an answer or with an exception.

        Args:
            answer: returned by :meth:`wait`.
            error: raised by :meth:`wait` instead.
        """
        self._answer, self._error = answer, error
        self._resolved.set()
        self._sending.cancel()


class Requests:
    """The requests of one connection that are waiting for an answer, by their ``ref``."""

    def __init__(self) -> None:
        self._pending: dict[str | int, PendingRequest] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def get(self, ref: object) -> PendingRequest | None:
        """Return the pending request with the reference ``ref``, or None."""
        # In Python, True == 1: a bool would match a request with the reference 1. A float may,
        # because JSON does not distinguish 1.0 from 1.
        known = isinstance(ref, str | int | float) and not isinstance(ref, bool)
        return self._pending.get(ref) if known else None  # type: ignore[call-overload]

    @contextmanager
    def open(self, ref: str | int, event: str, *, has_link: bool) -> Iterator[PendingRequest]:
        """Register a request for the body of a ``with`` statement.

        Args:
            ref: the reference that the answer will have.
            event: the name of the request.
            has_link: whether an open link carries the request.

        Raises:
            UsageError: another request with this reference is waiting for its answer.
        """
        if ref in self._pending:
            other = self._pending[ref].event
            raise UsageError(
                f"the reference {ref!r} belongs to a request that is waiting: {other!r}"
            )
        request = self._pending[ref] = PendingRequest(event, has_link)
        try:
            yield request
        finally:
            # After the answer, another request may already use the same reference.
            if self._pending.get(ref) is request:
                del self._pending[ref]

    def resolve(self, ref: object, answer: Any, error: Exception | None = None) -> bool:
        """End the request with this reference.

        Args:
            ref: the reference in the answer.
            answer: the answer.
            error: the exception that the request raises instead.

        Returns:
            Whether a request was waiting.
        """
        request = self.get(ref)
        if request is None:
            return False
        del self._pending[ref]  # type: ignore[arg-type]
        request.resolve(answer, error)
        return True

    def add_link(self) -> None:
        """Record that a new link is open; it carries the requests that were waiting for a link."""
        for request in self._pending.values():
            request.has_link = True

    def fail(self, reason: Disconnect, *, final: bool = False) -> None:
        """Raise RequestLost in the requests whose link has ended.

        Args:
            reason: why the link ended.
            final: whether this was the last link. If so, all requests fail.
        """
        for ref, request in list(self._pending.items()):
            if final or request.has_link:
                self.resolve(ref, None, RequestLost(request.event, reason))
