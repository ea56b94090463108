"""The opening handshakes of a server: from an accepted stream to a link, or a plain response."""

from __future__ import annotations

import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import trio

from .._redact import redact_line
from ..errors import BadHookResult, InvalidOption
from ..http import Request, Response
from ..options import check_seconds, check_ssl_context, check_whole
from ..transports import (
    Link,
    LinkBroken,
    ReceivedRequest,
    Refusal,
    ServerTransport,
    Upgrade,
    UpgradeOptions,
    describe_peer,
    negotiate,
    read_request,
    send_response,
)
from ..transports.http1 import MAX_HEADER_SIZE, STREAM_ERRORS, end_stream, refuse
from ..transports.tls import TLSSocketIO, is_tls_failure, wrap_tls

__all__ = ["HandshakeHandler", "HandshakeOptions", "ProcessRequest"]

ProcessRequest: TypeAlias = Callable[[Request], Response | Awaitable[Response | None] | None]
"""Called for every request; returns a plain response, or None to continue the handshake."""

CLOSING_GRACE = 1.0
"""Seconds that clients have to finish a request when the server closes. Browsers open connections
in advance: a shutdown must not wait for requests that may never come."""

RETRY_AFTER = 5
"""Seconds after which a client may retry if the server is full."""

_logger = logging.getLogger("trioglock.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeOptions:
    """Limits of the opening handshake: keyword arguments of :func:`trioglock.serve`."""

    ssl_context: ssl.SSLContext | None = None
    process_request: ProcessRequest | None = None
    open_timeout: float | None = 10
    max_header_size: int = MAX_HEADER_SIZE
    max_connections: int | None = None
    max_handshakes: int | None = 2**12

    def __post_init__(self) -> None:
        check_ssl_context(self.ssl_context)
        if not (self.process_request is None or callable(self.process_request)):
            raise InvalidOption(f"process_request must be a function, not {self.process_request!r}")
        check_seconds("open_timeout", self.open_timeout)
        check_whole("max_header_size", self.max_header_size, least=256, none=False)
        check_whole("max_connections", self.max_connections, least=1)
        check_whole("max_handshakes", self.max_handshakes, least=1)


class _Rejection(NamedTuple):
    stream: trio.abc.Stream
    response: Response
    method: str


class HandshakeHandler:
    """Performs the opening handshakes of one server, any number of them concurrently."""

    def __init__(
        self, transport: ServerTransport, upgrades: UpgradeOptions, options: HandshakeOptions
    ) -> None:
        self._transport = transport
        self._upgrades = upgrades
        self._options = options
        self._open_connections = 0
        self._handshakes: dict[trio.CancelScope, None] = {}  # oldest first
        self._reading: set[trio.CancelScope] = set()
        self._closed = False

    async def run(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> Link | None:
        """Perform one opening handshake. Call :meth:`release` when the link has ended.

        Returns:
            The link, or None if the handshake failed. Only cancellation is raised.
        """
        peer = describe_peer(stream) or "a client"
        timeout = self._options.open_timeout
        scope = trio.move_on_after(math.inf if timeout is None else timeout)
        self._drop_oldest()
        self._handshakes[scope] = None
        rejection: _Rejection | None = None
        try:
            with scope:
                outcome = await self._accept(stream, peer, nursery)
                if outcome is None:
                    _logger.debug("%s: sent no request before the server closed", peer)
                if not isinstance(outcome, _Rejection):
                    return outcome
                rejection = outcome
                await send_response(*rejection)
            if scope.cancelled_caught:
                self._log_timeout(peer, scope, rejection)
        except EOFError as error:
            _logger.debug("%s: closed the connection %s of its request", peer, error)
        except (*STREAM_ERRORS, LinkBroken) as error:
            _logger.info(
                "%s: connection lost: %s", peer, redact_line(repr(error.__cause__ or error))
            )
        except Exception:
            _logger.exception("%s: the transport failed", peer)
        finally:
            del self._handshakes[scope]
        return None

    def _drop_oldest(self) -> None:
        """Cancel the oldest handshake, which has had the most time, if there are too many."""
        limit = self._options.max_handshakes
        if limit is not None and len(self._handshakes) >= limit:
            oldest = next((scope for scope in self._handshakes if not scope.cancel_called), None)
            if oldest is not None:
                oldest.cancel()

    def _log_timeout(
        self, peer: str, scope: trio.CancelScope, rejection: _Rejection | None
    ) -> None:
        if rejection is not None:
            _logger.debug("%s: timed out while sending the response", peer)
        elif trio.current_time() < scope.deadline:
            _logger.info("%s: dropped because of too many concurrent opening handshakes", peer)
        else:
            _logger.info("%s: the opening handshake timed out", peer)

    async def _accept(
        self, stream: trio.abc.Stream, peer: str, nursery: trio.Nursery
    ) -> Link | _Rejection | None:
        context = self._options.ssl_context
        if context is not None:
            stream = wrap_tls(stream, context, server_side=True)
        method = "GET"
        try:
            received = await self._read_request(stream)
            if received is None:
                return None
            method = received.request.method
            decision = await self._decide(received, peer)
            if isinstance(decision, Upgrade):
                return await self._upgrade(stream, decision, nursery)
        except Refusal as refusal:
            _logger.info("%s: refused: %s", peer, redact_line(str(refusal)))
            decision = refusal.response
        return _Rejection(stream, decision, method)

    async def _read_request(self, stream: trio.abc.Stream) -> ReceivedRequest | None:
        """Read the request; None if the server closes before it is complete."""
        deadline = trio.current_time() + CLOSING_GRACE if self._closed else math.inf
        with trio.CancelScope(deadline=deadline) as scope:
            self._reading.add(scope)
            try:
                if isinstance(stream, TLSSocketIO | trio.SSLStream):
                    await _start_tls(stream)
                return await read_request(stream, self._options.max_header_size)
            finally:
                self._reading.remove(scope)
        return None

    async def _decide(self, received: ReceivedRequest, peer: str) -> Response | Upgrade:
        """Choose the response. An exception raised by the user's functions is a server error."""
        try:
            response = await self._process(received.request)
            return response or negotiate(received, self._upgrades)
        except Refusal:
            raise
        except Exception:
            _logger.exception("%s: the opening handshake failed", peer)
            return Response(500, "internal server error\n")

    async def _process(self, request: Request) -> Response | None:
        if self._options.process_request is None:
            return None
        response = self._options.process_request(request)
        if inspect.isawaitable(response):
            response = await response
        if response is None or isinstance(response, Response):
            return response
        raise BadHookResult(f"process_request must return a Response or None, not {response!r}")

    async def _upgrade(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        limit = self._options.max_connections
        full = limit is not None and self._open_connections >= limit
        if full or self._closed:
            reason = "too many connections" if full else "the server is closing"
            raise refuse(503, reason, {"Retry-After": str(RETRY_AFTER)})
        self._open_connections += 1
        try:
            return await self._transport.upgrade(stream, upgrade, nursery)
        except BaseException:
            self.release()
            raise

    def close(self) -> None:
        """Stop accepting connections."""
        self._closed = True
        for scope in self._reading:
            scope.deadline = trio.current_time() + CLOSING_GRACE

    def release(self) -> None:
        self._open_connections -= 1


async def _start_tls(stream: TLSSocketIO | trio.SSLStream[trio.abc.Stream]) -> None:
    try:
        await stream.do_handshake()
    except ssl.SSLError as error:
        if is_tls_failure(error) and isinstance(stream, TLSSocketIO):
            # Closing with unread bytes would discard the alert before the client reads it.
            await end_stream(stream.transport_stream)
        raise
