"""``Peer``: one side of a JSON-RPC connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

import trio

from ..._redact import shorten
from ...codecs import Codec
from ...connection import Connection, PendingRequest
from ...connection.decoding import decode
from ...connection.requests import has_link
from ...disconnect import Disconnect
from ...errors import ConnectionClosed, DecodeError, EncodeError, UsageError
from ...frames import Data
from ...hooks import Deliver, Reply
from ...options import check_whole
from ...routing import EventSocket
from .batch import Batch
from .errors import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    NO_DATA,
    PARSE_ERROR,
    TOO_MANY_REQUESTS,
    RPCError,
)
from .messages import (
    Call,
    Notification,
    Outcome,
    Parameters,
    is_id,
    is_response,
    make_call,
    make_error,
    make_result,
    parse,
)
from .methods import BoundCall, Methods

__all__ = ["Peer"]

_logger = logging.getLogger("trioglock.jsonrpc")


class Peer(EventSocket[None]):
    """One side of a JSON-RPC 2.0 connection: a client, a server, or both.

    A client sends requests::

        peer = Peer()
        async with connect("wss://example.org/rpc", peer) as conn:
            difference = await peer.request("subtract", [42, 23])
            async for notification in conn:
                print(notification.method, notification.params)

    A server offers methods, and may itself send requests to its client::

        def subtract(minuend, subtrahend):
            return minuend - subtrahend

        serve(lambda: Peer({"subtract": subtract}), "127.0.0.1", 8765)

    Parameters are passed by position or by name; parameters that do not match the function are
    refused. A plain function is called immediately and must not block; an async function runs in a
    task, which is cancelled if the link ends. Both may raise :class:`RPCError` to choose the
    response; any other exception is logged and answered with the code -32603, without details.

    A notification calls the method of the same name; if there is none, it is delivered as a
    :class:`Notification` to the receivers of the connection.

    Args:
        methods: the functions that the other side may call, by name.
        codec: by default :class:`~trioglock.codecs.JSON`.
        max_concurrent: the maximum number of async methods that run at the same time.
        max_waiting: the maximum number of calls to async methods that wait for another one to end.
            Further requests are refused with the code -32000, and further notifications are
            dropped.
        max_batch: the maximum number of calls in one message. A larger batch is refused with the
            code -32600, because its calls and responses would delay all other connections.

    Raises:
        InvalidOption: an argument is invalid.
    """

    def __init__(
        self,
        # Type checkers infer dict[str, function] for several functions; function is not a Callable.
        methods: Mapping[str, Any] | None = None,
        *,
        codec: Codec[Any] | None = None,
        max_concurrent: int = 64,
        max_waiting: int = 1024,
        max_batch: int = 1000,
    ) -> None:
        super().__init__(codec=codec)
        check_whole("max_concurrent", max_concurrent, least=1, none=False)
        check_whole("max_waiting", max_waiting, least=0, none=False)
        check_whole("max_batch", max_batch, least=1, none=False)
        self._methods = Methods({} if methods is None else methods)
        self._last_ref = 0
        self._max_concurrent = max_concurrent
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._waiting: deque[tuple[BoundCall, Responses]] = deque()
        self._running: set[trio.CancelScope] = set()

    # Requests to the other side.

    async def request(
        self, method: str, params: Parameters | None = None, *, timeout: float | None = 10
    ) -> Any:
        """Call a method of the other side and return its result.

        During an outage the request waits until the connection has been re-established.

        Args:
            method: the name of the method.
            params: a list of values, or a dict that maps names to values; None for no parameters.
            timeout: seconds to wait in total; None for no limit.

        Raises:
            RPCError: the response is an error.
            RequestTimeout: no response arrived in time.
            RequestLost: the network connection ended before the response arrived.
            ConnectionClosed: the connection is closing or closed.
            EncodeError: the parameters cannot be encoded.
            UsageError: the peer is not connected, or the call is made inside a plain method.
            InvalidOption: an argument is invalid.
        """
        make_call(method, params)  # invalid arguments raise before anything else
        return await super().request(method, params, timeout=timeout)

    async def notify(self, method: str, params: Parameters | None = None) -> None:
        """Send a notification, which has no response.

        Args:
            method: the name of the method.
            params: as in :meth:`request`.

        Raises:
            ConnectionClosed, EncodeError, UsageError, InvalidOption: see :meth:`request`.
        """
        await self.connection.send(make_call(method, params))

    def batch(self) -> Batch:
        """Return an empty :class:`Batch`."""
        return Batch(self)

    @property
    def connection(self) -> Connection[None, Any]:
        """The connection.

        Raises:
            UsageError: the peer is not connected.
        """
        connection = self._connection
        if connection is None:
            raise UsageError("the peer is not connected: use it inside connect(url, peer)")
        return connection

    def make_ref(self) -> int:
        self._last_ref += 1
        return self._last_ref

    def make_request(self, event: str, payload: Any, ref: str | int) -> dict[str, Any]:
        return make_call(event, payload, ref)

    def open_request(
        self, call_id: str | int, method: str
    ) -> AbstractContextManager[PendingRequest]:
        """Register a request of a batch for the duration of a block."""
        return self.requests.open(call_id, method, has_link=has_link(self.connection))

    # Messages from the other side.

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        try:
            message = decode(self.codec, frame)
        except DecodeError as error:
            self.invalid.note(error, frame)
            return self._refuse(RPCError(PARSE_ERROR, "Parse error")), state
        is_batch = isinstance(message, list) and len(message) > 0
        parts = message if is_batch else [message]
        if len(parts) > self._max_batch < sum(not is_response(part) for part in parts):
            too_large = RPCError(INVALID_REQUEST, f"Batch too large: {self._max_batch} at most")
            self.invalid.note(too_large, frame)
            return self._refuse(too_large), state
        responses = Responses(len(parts), is_batch=is_batch)
        notifications = []
        for part in parts:
            try:
                notification = self._receive(part, responses)
            except RPCError as error:
                self.invalid.note(error, part)
                call_id = part.get("id") if isinstance(part, dict) else None
                responses.add(make_error(call_id if is_id(call_id) else None, error))
            else:
                if notification is not None:
                    notifications.append(notification)
        if notifications and not is_batch:
            return Deliver(notifications[0]), state
        if notifications:  # a hook delivers only one value
            self.connection._receive_queue.extend(notifications)  # noqa: SLF001 - as hooks do
        reply = self._encode(responses)
        return None if reply is None else Reply(reply), state

    def _receive(self, part: Any, responses: Responses) -> Notification | None:
        """Handle one message; return a notification if it has to be delivered.

        Raises:
            RPCError: the message is invalid.
        """
        message = parse(part)
        if isinstance(message, Outcome):
            responses.add(None)
            if message.error is not None and (request := self.requests.get(message.id)):
                message.error.request, message.error.reply = request.event, part
            if not self.requests.resolve(message.id, message.result, message.error):
                self._receive_unexpected(message, part)
            return None
        call_id = message.id if isinstance(message, Call) else NO_DATA
        if call_id is NO_DATA and message.method not in self._methods:
            responses.add(None)
            return Notification(message.method, message.params)
        try:
            bound = self._methods.bind(message, call_id)
            if bound.is_async:
                self._start(bound, responses)
                return None
            response = make_result(call_id, bound.run())
        except RPCError as error:
            response = make_error(call_id, error)
        responses.add(None if call_id is NO_DATA else response, message.method)
        return None

    def _receive_unexpected(self, response: Outcome, part: Any) -> None:
        """Handle a response for which no request is waiting."""
        # bool is a subclass of int.
        if response.id.__class__ is int and 0 < response.id <= self._last_ref:
            # Its request has timed out, was cancelled, or has already been answered.
            _logger.debug("a late response was dropped: %s", shorten(part))
        else:
            self.invalid.note(ValueError("a response without a request"), part)

    # Async methods.

    def _start(self, bound: BoundCall, responses: Responses) -> None:
        """Run an async method in a task, now or as soon as another one has ended.

        Raises:
            RPCError: too many are waiting.
        """
        if len(self._running) < self._max_concurrent:
            scope = trio.CancelScope()
            self._running.add(scope)
            with suppress(ConnectionClosed):
                self.connection.start_soon(self._run, scope, bound, responses)
        elif len(self._waiting) < self._max_waiting:
            self._waiting.append((bound, responses))
        else:
            raise RPCError(TOO_MANY_REQUESTS, "Too many requests")

    async def _run(self, scope: trio.CancelScope, bound: BoundCall, responses: Responses) -> None:
        try:
            with scope, suppress(ConnectionClosed):
                while True:
                    await self._run_one(bound, responses)
                    if not self._waiting:
                        break
                    bound, responses = self._waiting.popleft()
        finally:
            self._running.discard(scope)

    async def _run_one(self, bound: BoundCall, responses: Responses) -> None:
        try:
            response = make_result(bound.id, await bound.run_async())
        except RPCError as error:
            response = make_error(bound.id, error)
        responses.add(None if bound.id is NO_DATA else response, bound.method)
        if (frame := self._encode(responses)) is not None:
            await self.connection.send_frame(frame)

    def _link_ended(self, reason: Disconnect) -> None:
        """Cancel the methods: their responses belong to the link that has ended."""
        super()._link_ended(reason)
        self._waiting.clear()
        for scope in self._running:
            scope.cancel()
        self._running = set()

    # Responses.

    def _refuse(self, error: RPCError) -> Reply:
        """Return the reply to a message that was not executed."""
        return Reply(self.codec.encode(make_error(None, error)))

    def _encode(self, responses: Responses) -> Data | None:
        """Encode the responses to a message; None if there are none, or while calls are running."""
        taken = responses.take()
        if not taken:
            return None
        sent = [response for response, _ in taken]
        try:
            return self.codec.encode(sent if responses.is_batch else sent[0])
        except EncodeError:
            sent = [self._encodable(*one, is_batch=responses.is_batch) for one in taken]
            return self.codec.encode(sent if responses.is_batch else sent[0])

    def _encodable(self, response: Any, method: str, *, is_batch: bool) -> Any:
        """Return a response, or an error if it cannot be encoded."""
        try:
            self.codec.encode([response] if is_batch else response)
        except EncodeError as error:
            _logger.error("the result of %r cannot be encoded: %s", method, error)  # noqa: TRY400
            return make_error(response["id"], RPCError(INTERNAL_ERROR, "Internal error"))
        return response


class Responses:
    """Collects the responses to one message, which may be a batch.

    Args:
        expected: the number of calls in the message.
        is_batch: whether the responses are sent as a list.
    """

    __slots__ = ("_expected", "_responses", "is_batch")

    def __init__(self, expected: int, *, is_batch: bool) -> None:
        self.is_batch: bool = is_batch
        self._expected = expected
        self._responses: list[tuple[dict[str, Any], str]] = []

    def add(self, response: dict[str, Any] | None, method: str = "") -> None:
        """Add the response to one call; None for a call without a response.

        Args:
            response: the response.
            method: the method that was called, if any, for the log.
        """
        self._expected -= 1
        if response is not None:
            self._responses.append((response, method))

    def take(self) -> list[tuple[dict[str, Any], str]]:
        """Return the responses and their methods, once; none while calls are running."""
        if self._expected:
            return []
        responses, self._responses = self._responses, []
        return responses
