"""Batches: several requests and notifications in one message."""

from __future__ import annotations

from contextlib import ExitStack
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
        self._error: RPCError | None = None
        self._is_done = False

    def result(self) -> Any:
        """Return the result.

        Raises:
            RPCError: the response is an error.
            UsageError: the batch has not been sent or answered.
        """
        if not self._is_done:
            raise UsageError(f"the request {self.method!r} has no response yet: await batch.send()")
        if self._error is not None:
            raise self._error
        return self._result

    async def _wait(self, request: PendingRequest) -> None:
        try:
            self._result = await request.wait()
        except RPCError as error:
            self._error = error
        self._is_done = True


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
            RequestTimeout: a response did not arrive in time. The other results are available.
            RequestLost: the network connection ended before all responses had arrived.
            UsageError: the batch is empty or has been sent before.
            ConnectionClosed, EncodeError, UsageError, InvalidOption: see :meth:`Peer.request`.
        """
        check_seconds("timeout", timeout)
        if not self._messages:
            raise UsageError("the batch is empty: a batch contains at least one message")
        if self._is_sent:
            raise UsageError("the batch has been sent: create another one with peer.batch()")
        self._is_sent = True
        waiting = self._results
        with ExitStack() as stack:
            requests = [
                stack.enter_context(self._peer.open_request(result.id, result.method))
                for result in waiting
            ]
            stack.enter_context(PeerTimeout(timeout))
            if requests:
                await requests[0].send(self._peer.connection, self._messages)
            else:
                await self._peer.connection.send(self._messages)
            for result, request in zip(waiting, requests, strict=True):
                await result._wait(request)  # noqa: SLF001 - of this module
            return
        first = self._messages[0]["method"]  # of a batch without requests
        late = next((one.method for one in waiting if not one._is_done), first)  # noqa: SLF001
        assert timeout is not None
        raise RequestTimeout(late, timeout)
