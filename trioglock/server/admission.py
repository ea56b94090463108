"""The opening handshakes of a server: from an accepted stream to a link, or a plain response."""

from __future__ import annotations

import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import trio

from .._hints import called_hint
from .._redact import redact_line
from ..errors import BadHookResult, InvalidOption
from ..http import Request, Response
from ..options import MAX_HEADER_SIZE, check_seconds, check_ssl_context, check_whole
from ..transports import (
    Link,
    LinkBroken,
    ReceivedRequest,
    Refusal,
    ServerTransport,
    Upgrade,
    negotiate,
    read_request,
    send_response,
)
from ..transports.http1 import STREAM_ERRORS, end_stream, refuse
from ..transports.native.socket_io import choose_io
from ..transports.tls import TLSSocketIO, is_tls_failure, wrap_tls
from .client_address import (
    ClientAddress,
    IPAddress,
    IPNetwork,
    Networks,
    check_networks,
    client_address,
)
from .forwarded import ForwardedHeaders, TrustedProxies, check_proxies
from .limits import RETRY_AFTER, OpenConnections, PendingHandshake, PendingHandshakes
from .proxy_protocol import InvalidProxyHeader, read_proxy_header
from .routes import HandshakeTarget, Route, Routes

__all__ = ["HandshakeHandler", "HandshakeOptions", "ProcessRequest"]

ProcessRequest: TypeAlias = Callable[[Request], Response | Awaitable[Response | None] | None]
"""Called for every request; returns a plain response, or None to continue the handshake."""

MAX_ACTIVE = 100
"""Maximum number of opening handshakes in progress; other clients wait until a handshake ends."""

PATIENCE = 0.05
"""Seconds after which a handshake whose request is incomplete no longer counts as in progress."""

MAX_BATCH = 16
"""Maximum number of clients that are accepted before other tasks run."""

MIN_RATE = 2**16
"""The rate, in bytes per second, at which a client must receive a long response."""

SERVER_ERROR = "internal server error\n"

_logger = logging.getLogger("trioglock.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeOptions:
    """Limits of the opening handshake: keyword arguments of :func:`trioglock.serve`."""

    ssl_context: ssl.SSLContext | None = None
    process_request: ProcessRequest | None = None
    open_timeout: float | None = 10
    max_header_size: int = MAX_HEADER_SIZE
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_handshakes: int | None = 2**12
    max_handshakes_per_address: int | None = None
    forwarded: TrustedProxies | None = None
    proxy_protocol: Networks | None = None

    def __post_init__(self) -> None:
        check_ssl_context(self.ssl_context)
        if not (self.process_request is None or callable(self.process_request)):
            hint = called_hint(self.process_request)
            raise InvalidOption(
                f"process_request must be a function, not {self.process_request!r}{hint}"
            )
        check_seconds("open_timeout", self.open_timeout)
        check_whole("max_header_size", self.max_header_size, least=256, none=False)
        for name in (
            "max_connections",
            "max_connections_per_address",
            "max_handshakes",
            "max_handshakes_per_address",
        ):
            check_whole(name, getattr(self, name), least=1)
        check_proxies(self.forwarded)
        if self.proxy_protocol is not None:
            check_networks("proxy_protocol", self.proxy_protocol)


class Accepted(NamedTuple):
    """A client whose opening handshake has succeeded."""

    link: Link
    route: Route
    group: IPAddress | None
    """The argument for :meth:`HandshakeHandler.release`."""


class _Rejection(NamedTuple):
    stream: trio.abc.Stream
    response: Response
    method: str


class HandshakeHandler:
    """Performs the opening handshakes of one server, any number of them concurrently."""

    def __init__(
        self,
        transport: ServerTransport,
        routes: Routes,
        options: HandshakeOptions,
    ) -> None:
        self._transport = transport
        self._routes = routes
        self._options = options
        proxies = check_proxies(options.forwarded)
        self._forwarded = None if proxies is None else ForwardedHeaders(proxies)
        # The networks of proxies that send a PROXY protocol header before TLS.
        self._proxies: tuple[IPNetwork, ...] = ()
        if options.proxy_protocol is not None:
            self._proxies = check_networks("proxy_protocol", options.proxy_protocol)
        self._open = OpenConnections(options.max_connections, options.max_connections_per_address)
        self._handshakes = PendingHandshakes(
            options.max_handshakes, options.max_handshakes_per_address
        )
        # Handshakes in progress, each with the time until which it counts if no data is received.
        self._active: dict[PendingHandshake, float] = {}
        self._deciding = 0  # handshakes that are waiting for an async process_request
        self._ended = trio.Event()
        self._closed = False

    async def wait_capacity(self) -> int:
        """Wait while too many handshakes are in progress; other clients wait in the system's queue.

        Without a limit, the handshakes of a burst of connections would all progress slowly and time
        out at the same time. Clients that are silent for :data:`PATIENCE` do not count, so they
        cannot keep others out.

        Returns:
            How many clients to accept next.
        """
        while True:
            now, until = trio.current_time(), math.inf
            for handshake, until in tuple(self._active.items()):
                if until > now:
                    break
                del self._active[handshake]
            free = MAX_ACTIVE - len(self._active) - self._deciding
            if free > 0:
                return min(free, MAX_BATCH)
            self._ended = trio.Event()
            with trio.CancelScope(deadline=until if self._active else math.inf):
                await self._ended.wait()

    async def run(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> Accepted | None:
        """Perform one opening handshake. Call :meth:`release` when the link has ended.

        Returns:
            The link, or None if the handshake failed. Cancellation is the only exception raised.
        """
        now = trio.current_time()
        timeout = self._options.open_timeout
        deadline = math.inf if timeout is None else now + timeout
        client = client_address(stream)
        exempt = self._sends_header(client) or self._forwards(client)
        handshake = PendingHandshake(client, deadline, exempt=exempt)
        scope = handshake.scope
        if self._closed:
            handshake.hurry()
        self._handshakes.add(handshake)
        self._active[handshake] = now + PATIENCE
        try:
            with scope:
                outcome = await self._accept(stream, handshake, nursery)
                if not isinstance(outcome, _Rejection):
                    return outcome
                handshake.rejected = True
                handshake.received()
                self._end_active(handshake)
                handshake.extend(len(outcome.response.body) // MIN_RATE)
                await send_response(*outcome)
            if scope.cancelled_caught:
                self._log_timeout(handshake)
        except EOFError as error:
            _logger.debug("%s: closed the connection %s of its request", handshake.name, error)
        except InvalidProxyHeader as error:
            _logger.info("%s: dropped: %s", handshake.name, error)
        except (*STREAM_ERRORS, LinkBroken) as error:
            reason = redact_line(repr(error.__cause__ or error))
            _logger.info("%s: connection lost: %s", handshake.name, reason)
        except Exception:
            _logger.exception("%s: the transport failed", handshake.name)
        finally:
            handshake.deadline.stop()
            self._handshakes.remove(handshake)
            self._end_active(handshake)
        return None

    def _sends_header(self, client: ClientAddress) -> bool:
        """Whether the client must send a header of the PROXY protocol."""
        return bool(self._proxies) and client.is_in(self._proxies)

    def _forwards(self, client: ClientAddress) -> bool:
        """Whether the headers of a request from this client identify the real client."""
        return self._forwarded is not None and self._forwarded.trusts(client)

    def _end_active(self, handshake: PendingHandshake) -> None:
        self._active.pop(handshake, None)
        self._ended.set()

    async def drop_oldest(self) -> bool:
        """Drop a handshake to free its descriptor; return whether there was one."""
        handshake = self._handshakes.drop_oldest()
        if handshake is None:
            await trio.lowlevel.checkpoint()
            return False
        # A cancelled handshake closes its socket within a few checkpoints, unless its
        # process_request is shielded.
        for _ in range(10):
            await trio.lowlevel.checkpoint()
            if handshake not in self._handshakes:
                break
        return True

    def _log_timeout(self, handshake: PendingHandshake) -> None:
        name = handshake.name
        if handshake.rejected:
            _logger.debug("%s: timed out while sending the response", name)
        elif not handshake.deadline.expired:
            _logger.info("%s: dropped because of too many concurrent opening handshakes", name)
        elif handshake.waiting and self._closed:
            _logger.debug("%s: sent no request before the server closed", name)
        else:
            _logger.info("%s: the opening handshake timed out", name)

    async def _accept(
        self, stream: trio.abc.Stream, handshake: PendingHandshake, nursery: trio.Nursery
    ) -> Accepted | _Rejection:
        if self._sends_header(handshake.client):
            client = await read_proxy_header(stream) or handshake.client
            self._handshakes.move(handshake, client, exempt=self._forwards(client))
        context = self._options.ssl_context
        if context is not None:
            stream = wrap_tls(stream, context, server_side=True)
        method = "GET"
        try:
            received = await self._read_request(stream, handshake)
            method = received.request.method
            route = self._routes.find(received.request.path)
            decision = await self._decide(received, route, handshake)
            if isinstance(decision, Upgrade):
                assert route is not None
                opened = await self._upgrade(stream, decision, route, handshake, nursery)
                if isinstance(opened, Accepted):
                    return opened
                decision = opened
        except Refusal as refusal:
            _logger.info("%s: refused: %s", handshake.name, redact_line(str(refusal)))
            decision = refusal.response
        return _Rejection(stream, decision, method)

    async def _read_request(
        self, stream: trio.abc.Stream, handshake: PendingHandshake
    ) -> ReceivedRequest:
        if isinstance(stream, TLSSocketIO | trio.SSLStream):
            await _start_tls(stream)
        received = await read_request(
            choose_io(stream),
            self._options.max_header_size,
            peer=handshake.client.name,
            secure=self._options.ssl_context is not None,
        )
        handshake.received()
        if self._forwarded is not None:
            forwarded, client = self._forwarded.apply(received.request, handshake.client)
            self._handshakes.move(handshake, client)
            received = received._replace(request=forwarded)
        return received

    async def _decide(
        self, received: ReceivedRequest, route: Route | None, handshake: PendingHandshake
    ) -> Response | Upgrade:
        """Choose the response. An exception raised by the user's functions is a server error."""
        try:
            if route is not None and route.prefix != "/":
                request = replace(received.request, prefix=route.prefix)
                received = received._replace(request=request)
            response = await self._process(received.request)
            if response is not None:
                return response
            if route is None:
                raise refuse(404, "nothing is served at this path")
            response = route.respond(received.request)
            if response is not None:
                return response
            return negotiate(received, route.upgrades)
        except Refusal:
            raise
        except Exception:
            _logger.exception("%s: the opening handshake failed", handshake.name)
            return Response(500, SERVER_ERROR)

    async def _process(self, request: Request) -> Response | None:
        if self._options.process_request is None:
            return None
        response = self._options.process_request(request)
        if inspect.isawaitable(response):
            self._deciding += 1
            try:
                response = await response
            finally:
                self._deciding -= 1
                self._ended.set()
        if response is None or isinstance(response, Response):
            return response
        raise BadHookResult(f"process_request must return a Response or None, not {response!r}")

    async def _admit(
        self, upgrade: Upgrade, target: HandshakeTarget, handshake: PendingHandshake
    ) -> Response | Upgrade:
        """Ask the target whether to admit the client.

        While the target waits, for example for a broker, the handshake does not count as being in
        progress.
        """
        try:
            admitted = await target._admit(upgrade.received.request)  # noqa: SLF001
        except Exception:
            _logger.exception("%s: the opening handshake failed", handshake.name)
            return Response(500, SERVER_ERROR)
        if isinstance(admitted, Response):
            return admitted
        return replace(upgrade, handshake=replace(upgrade.handshake, admitted=admitted))

    async def _upgrade(
        self,
        stream: trio.abc.Stream,
        upgrade: Upgrade,
        route: Route,
        handshake: PendingHandshake,
        nursery: trio.Nursery,
    ) -> Accepted | Response:
        """Count the connection and open it; stop counting it if this fails."""
        # This comes first, so that clients above the limit do not reach the target.
        group = self._open.add(handshake.client)
        accepted = None
        try:
            decision: Response | Upgrade = upgrade
            if isinstance(route.target, HandshakeTarget):
                decision = await self._admit(upgrade, route.target, handshake)
            if isinstance(decision, Response):
                return decision
            if self._closed:
                raise refuse(503, "the server is closing", RETRY_AFTER)
            link = await self._transport.upgrade(stream, decision, nursery)
            accepted = Accepted(link, route, group)
        finally:
            if accepted is None:
                self._open.remove(group)
        return accepted

    def close(self) -> None:
        """Stop accepting connections."""
        self._closed = True
        for handshake in self._handshakes:
            if handshake.waiting:
                handshake.hurry()

    def release(self, group: IPAddress | None) -> None:
        """Stop counting a connection that has ended.

        Args:
            group: as returned by :meth:`run`.
        """
        self._open.remove(group)


async def _start_tls(stream: TLSSocketIO | trio.SSLStream[trio.abc.Stream]) -> None:
    try:
        await stream.do_handshake()
    except ssl.SSLError as error:
        if is_tls_failure(error) and isinstance(stream, TLSSocketIO):
            # Closing with unread bytes would discard the alert before the client has read it.
            await end_stream(stream.transport_stream)
        raise
