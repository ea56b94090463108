"""Batches: several requests and notifications in one message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._timer import PeerTimeout
from ...connection import PendingRequest
from ...errors import RequestTimeout, UsageError
from ...options import check_seconds
from .errors import RPCError
from .messages import Parameters, make_call

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["Batch", "BatchResult"]


class BatchResult:
    """The result of one request of a batch.

    Args:
        method: the name of the method.
        call_id: the identifier of the request.
    """

    def __init__(self, method: str, call_id: Any) -> None:
        self.method: str = method
        self.id: Any = call_id
        self._result: Any = None
        self._error: Exception | None = None
        self._is_done = False

    def result(self) -> Any:
        """Return the result.

        Raises:
            RPCError: the response is an error.
            RequestTimeout, RequestLost, ConnectionClosed: :meth:`Batch.send` raised it before the
                response had arrived.
            UsageError: :meth:`Batch.send` has not been called, or has not returned.
        """
        if not self._is_done:
            raise UsageError(f"the request {self.method!r} has no response yet: await batch.send()")
        if self._error is not None:
            raise self._error
        return self._result

    async def _wait(
        self, request: PendingRequest, send: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        try:
            if send is not None:
                await send()
            self._result = await request.wait()
        except Exception as error:
            if not request.is_resolved:
                raise
            self._is_done, self._error = True, error
            if not isinstance(error, RPCError):
                raise
        else:
            self._is_done = True

    def _end(self, request: PendingRequest, error: Exception) -> None:
        """Take a response that has arrived, or fail with ``error``."""
        if self._is_done:
            return
        self._is_done = True
        if not request.is_resolved:
            self._error = error
            return
        try:
            self._result = request.take()
        except Exception as raised:  # noqa: BLE001 - raised by result()
            self._error = raised


class Batch:
    """Several requests and notifications, sent as one message (section 6 of the specification).

    Created by :meth:`Peer.batch`::

        batch = peer.batch()
        total = batch.request("sum", [1, 2, 4])
        batch.notify("log", ["summed"])
        await batch.send()
        print(total.result())
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._messages: list[dict[str, Any]] = []
        self._results: list[BatchResult] = []
        self._is_sent = False

    def request(self, method: str, params: Parameters | None = None) -> BatchResult:
        """Add a request; see :meth:`Peer.request`.

        Returns:
            An object that provides the result after :meth:`send`.

        Raises:
            InvalidOption: an argument is invalid.
        """
        message = make_call(method, params, self._peer.make_ref())
        result = BatchResult(message["method"], message["id"])
        self._messages.append(message)
        self._results.append(result)
        return result

    def notify(self, method: str, params: Parameters | None = None) -> None:
        """Add a notification; see :meth:`Peer.notify`.

        Raises:
            InvalidOption: an argument is invalid.
        """
        self._messages.append(make_call(method, params))

    async def send(self, *, timeout: float | None = 10) -> None:
        """Send the batch and wait until all of its requests have been answered.

        Args:
            timeout: seconds to wait in total; None for no limit.

        Raises:
            RequestTimeout: a response did not arrive in time.
            RequestLost: the network connection ended before all responses had arrived.
            UsageError: the batch is empty or has already been sent. ConnectionClosed, EncodeError,
            UsageError, InvalidOption: see :meth:`Peer.request`.

        Even then, results whose responses have arrived are available; the other results raise the
        same exception.
        """
        check_seconds("timeout", timeout)
        if not self._messages:
            raise UsageError("the batch is empty: a batch contains at least one message")
        if self._is_sent:
            raise UsageError("the batch has been sent: create another one with peer.batch()")
        self._is_sent = True
        with ExitStack() as stack:
            requests = [
                stack.enter_context(self._peer.open_request(result.id, result.method))
                for result in self._results
            ]
            try:
                with PeerTimeout(timeout):
                    await self._exchange(requests)
                    return
            except Exception as error:
                for result, request in zip(self._results, requests, strict=True):
                    result._end(request, error)  # noqa: SLF001 - of this module
                raise
            self._time_out(requests, timeout)

    async def _exchange(self, requests: list[PendingRequest]) -> None:
        connection = self._peer.connection
        if not requests:
            await connection.send(self._messages)
            return
        # If the link is lost, the first request ends the wait for the send queue.
        send = partial(requests[0].send, connection, self._messages)
        await self._results[0]._wait(requests[0], send)  # noqa: SLF001 - of this module
        for result, request in zip(self._results[1:], requests[1:], strict=True):
            await result._wait(request)  # noqa: SLF001

    def _time_out(self, requests: list[PendingRequest], timeout: float | None) -> None:
        """Take the responses that have arrived; raise RequestTimeout if any are missing."""
        assert timeout is not None
        late: RequestTimeout | None = None
        for result, request in zip(self._results, requests, strict=True):
            error = RequestTimeout(result.method, timeout)
            if not result._is_done and not request.is_resolved:  # noqa: SLF001 - of this module
                late = late or error
            result._end(request, error)  # noqa: SLF001
        if late is None and not requests:
            late = RequestTimeout(self._messages[0]["method"], timeout)
        if late is not None:
            raise late
