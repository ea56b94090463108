"""The reception: from a stream that was accepted to a link, or to a plain answer."""

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
from ..options import check_seconds, check_whole
from ..transports import (
    Call,
    Link,
    LinkBroken,
    Refusal,
    ServerTransport,
    Upgrade,
    UpgradeOptions,
    answer,
    describe_peer,
    negotiate,
    read_call,
)

__all__ = ["HandshakeHandler", "HandshakeOptions", "ProcessRequest"]

ProcessRequest: TypeAlias = Callable[[Request], Response | Awaitable[Response | None] | None]
"""Called for every request; returns a plain answer, or None to go on with the handshake."""

LAST_CHANCE = 1.0
"""Seconds to finish a request for those whom the closing server finds in the middle of it. Browsers
open connections in advance: a shutdown must not wait for what they may never say."""

RETRY_AFTER = 5
"""Seconds after which a client that found the server full may try again."""

_logger = logging.getLogger("trioglock.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeOptions:
    """Limits of the opening handshake, and who may come in.

    The fields are the keyword arguments of :func:`trioglock.serve` and mean the same.
    """

    ssl_context: ssl.SSLContext | None = None
    process_request: ProcessRequest | None = None
    open_timeout: float | None = 10
    max_header_size: int = 2**15
    max_connections: int | None = None
    max_handshakes: int | None = 2**12

    def __post_init__(self) -> None:
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise InvalidOption(f"ssl_context is an ssl.SSLContext, not {self.ssl_context!r}")
        if not (self.process_request is None or callable(self.process_request)):
            raise InvalidOption(f"process_request is a function, not {self.process_request!r}")
        check_seconds("open_timeout", self.open_timeout)
        check_whole("max_header_size", self.max_header_size, least=256, none=False)
        check_whole("max_connections", self.max_connections, least=1)
        check_whole("max_handshakes", self.max_handshakes, least=1)


class _Reply(NamedTuple):
    """What a client gets that gets no link, and the stream to say it on."""

    stream: trio.abc.Stream
    response: Response
    method: str


class HandshakeHandler:
    """Does the opening handshakes of one server, any number at the same time.

    Args:
        transport: makes links.
        upgrades: what is agreed to.
        options: limits.
    """

    def __init__(
        self, transport: ServerTransport, upgrades: UpgradeOptions, options: HandshakeOptions
    ) -> None:
        self._transport = transport
        self._upgrades = upgrades
        self._options = options
        self._inside = 0
        self._waiting: dict[trio.CancelScope, None] = {}
        self._hearing: set[trio.CancelScope] = set()
        self._closed = False

    async def receive(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> Link | None:
        """A link, once the client is let in; :meth:`leave` when it goes.

        Args:
            stream: of the client.
            nursery: for tasks that the link may need.

        Returns:
            None if it came to nothing. Nothing but cancellation is raised.
        """
        peer = describe_peer(stream) or "a client"
        timeout = self._options.open_timeout
        scope = trio.move_on_after(math.inf if timeout is None else timeout)
        self._make_room()
        self._waiting[scope] = None
        reply: _Reply | None = None
        try:
            with scope:
                outcome = await self._open(stream, peer, nursery)
                if outcome is None:
                    _logger.debug("%s: had not asked for anything when the server closed", peer)
                if not isinstance(outcome, _Reply):
                    return outcome
                reply = outcome
                await answer(*reply)
            if scope.cancelled_caught:
                self._note_cut(peer, scope, reply)
        except EOFError as error:
            _logger.debug("%s: hung up %s", peer, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError, LinkBroken) as error:
            _logger.info("%s: broke off: %s", peer, redact_line(repr(error.__cause__ or error)))
        except Exception:
            _logger.exception("%s: the transport failed", peer)
        finally:
            del self._waiting[scope]
        return None

    def _make_room(self) -> None:
        """Where too many dawdle, the one who began first has had the most time."""
        limit = self._options.max_handshakes
        if limit is not None and len(self._waiting) >= limit:
            oldest = next((scope for scope in self._waiting if not scope.cancel_called), None)
            if oldest is not None:
                oldest.cancel()

    def _note_cut(self, peer: str, scope: trio.CancelScope, reply: _Reply | None) -> None:
        if reply is not None:
            _logger.debug("%s: took too long to take its answer", peer)
        elif trio.current_time() < scope.deadline:
            _logger.info("%s: dropped, too many others in their opening handshakes", peer)
        else:
            _logger.info("%s: took too long with its opening handshake", peer)

    async def _open(
        self, stream: trio.abc.Stream, peer: str, nursery: trio.Nursery
    ) -> Link | _Reply | None:
        context = self._options.ssl_context
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        method = "GET"
        try:
            call = await self._hear(stream)
            if call is None:
                return None
            method = call.request.method
            decision = await self._decide(call, peer)
            if isinstance(decision, Upgrade):
                return await self._let_in(stream, decision, nursery)
        except Refusal as refusal:
            _logger.info("%s: refused: %s", peer, redact_line(str(refusal)))
            decision = refusal.response
        return _Reply(stream, decision, method)

    async def _hear(self, stream: trio.abc.Stream) -> Call | None:
        """What the client asks for; None if it has not said so when the server closes."""
        deadline = trio.current_time() + LAST_CHANCE if self._closed else math.inf
        with trio.CancelScope(deadline=deadline) as scope:
            self._hearing.add(scope)
            try:
                if isinstance(stream, trio.SSLStream):
                    await stream.do_handshake()
                return await read_call(stream, self._options.max_header_size)
            finally:
                self._hearing.remove(scope)
        return None

    async def _decide(self, call: Call, peer: str) -> Response | Upgrade:
        """What to answer. Whatever the user's functions raise is no fault of the client's."""
        try:
            return await self._process(call.request) or negotiate(call, self._upgrades)
        except Refusal:
            raise
        except Exception:
            _logger.exception("%s: its opening handshake failed", peer)
            return Response(500, "internal server error\n")

    async def _let_in(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        self._enter()
        try:
            return await self._transport.upgrade(stream, upgrade, nursery)
        except BaseException:
            self.leave()
            raise

    async def _process(self, request: Request) -> Response | None:
        if self._options.process_request is None:
            return None
        response = self._options.process_request(request)
        if inspect.isawaitable(response):
            response = await response
        if response is None or isinstance(response, Response):
            return response
        raise BadHookResult(f"process_request returns a Response or None, not {response!r}")

    def _enter(self) -> None:
        limit = self._options.max_connections
        full = limit is not None and self._inside >= limit
        if full or self._closed:
            why = "too many connections" if full else "the server is closing"
            later = Response(503, f"{why}\n", {"Retry-After": str(RETRY_AFTER)})
            raise Refusal(later, f"503 {why}")
        self._inside += 1

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        for scope in self._hearing:
            scope.deadline = trio.current_time() + LAST_CHANCE

    def leave(self) -> None:
        """One who was let in has gone."""
        self._inside -= 1
