"""The opening handshake of a server: negotiating an upgrade, and the transport that performs it.

Negotiation (RFC 6455, section 4.2) is the same for all transports. A :class:`ServerTransport` then
creates a link, which responds with 101 and uses the stream for WebSocket frames.
"""

from __future__ import annotations

import inspect
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

import trio
from websockets.datastructures import Headers as LibraryHeaders
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.http11 import Request as LibraryRequest
from websockets.http11 import Response as LibraryResponse
from websockets.server import ServerProtocol
from websockets.typing import ExtensionHeader, Origin, Subprotocol
from websockets.utils import accept_key

from .._hints import called_hint
from .._redact import redact_query, redact_subprotocols
from .._text import as_text
from ..errors import BadHookResult, InvalidOption
from ..headers import Headers, checked_headers, is_token
from ..http import Request, Response
from ..options import (
    Compression,
    Deflate,
    check_compression,
    check_subprotocols,
    check_whole,
    deflate_settings,
)
from .base import Handshake, Link
from .http1 import ReceivedRequest, Refusal, refuse
from .native.deflate import MAX_BITS, DeflateStreams
from .urls import is_host_header, normalize_origin

__all__ = [
    "Origins",
    "SelectSubprotocol",
    "ServerTransport",
    "Upgrade",
    "UpgradeOptions",
    "negotiate",
]

Origins: TypeAlias = Sequence[str | re.Pattern[str] | None]
"""Origins that may connect: exact ones, compiled patterns, None for clients without an Origin."""

SelectSubprotocol: TypeAlias = Callable[[Request, Sequence[str]], str | None]
"""Called with the request and the offered subprotocols; returns one of these, or None."""

# At level DEBUG, the library logs complete headers, including credentials.
SILENT = logging.Logger("trioglock.handshake")  # noqa: LOG001 - deliberately has no parent
SILENT.disabled = True

# The origin-form (RFC 9112, section 3.2.1), without characters that could be used to forge log
# lines or headers.
_is_target = re.compile(r"/[\x21-\x7e]*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeOptions:
    """The upgrades that a server accepts: keyword arguments of :func:`trioglock.serve`.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    origins: Origins | None = None
    subprotocols: Sequence[str] | None = None
    select_subprotocol: SelectSubprotocol | None = None
    compression: Compression = "deflate"
    max_size: int | None = 2**20
    fragments: bool = False

    def __post_init__(self) -> None:
        if self.origins is not None:
            object.__setattr__(self, "origins", _check_origins(self.origins))
        object.__setattr__(self, "subprotocols", check_subprotocols(self.subprotocols))
        if not (self.select_subprotocol is None or callable(self.select_subprotocol)):
            hint = called_hint(self.select_subprotocol)
            raise InvalidOption(
                f"select_subprotocol must be a function, not {self.select_subprotocol!r}{hint}"
            )
        if inspect.iscoroutinefunction(self.select_subprotocol):
            raise InvalidOption("select_subprotocol must be a plain function: it is not awaited")
        check_compression(self.compression)
        check_whole("max_size", self.max_size, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """The result of negotiating a request; no response has been sent yet.

    Args:
        received: the request, and the bytes after it.
        handshake: the negotiated values.
        response: the bytes of the 101 response.
        deflate: the compression, if any.
        max_size: maximum size of one message in bytes.
        fragments: the link returns messages as fragments of at most ``max_size`` bytes.
    """

    received: ReceivedRequest
    handshake: Handshake
    response: bytes
    deflate: DeflateStreams | None
    max_size: int | None
    fragments: bool = False


class ServerTransport(ABC):
    """Creates links on the streams of clients."""

    compresses: bool = True
    """Whether permessage-deflate can be negotiated."""
    receives_fragments: bool = False
    """Whether links can return messages as fragments, if ``upgrade.fragments`` is true."""

    reports_pings: bool = True
    """Whether links return pings as events, so that they can be limited."""

    @abstractmethod
    async def upgrade(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        """Create a link on the stream; the link's :meth:`Link.respond` responds with 101.

        Args:
            stream: the stream of the client, which the link then owns.
            upgrade: the result of :func:`negotiate`.
            nursery: for tasks that the link needs; they must end with it and never raise.

        Raises:
            LinkBroken: the stream broke.
        """


def negotiate(received: ReceivedRequest, options: UpgradeOptions) -> Upgrade:
    """Negotiate an upgrade (RFC 6455, section 4.2.2).

    Args:
        received: the request.
        options: the upgrades that the server accepts.

    Raises:
        Refusal: the request is not an acceptable opening handshake.
        Exception: raised by ``select_subprotocol``.
    """
    accepted = _accept_usual(received, options) or _accept_any(received, options)
    request = received.request
    handshake = Handshake(
        url=f"{'wss' if request.secure else 'ws'}://{_host(request)}{_target(request)}",
        subprotocol=accepted.subprotocol,
        request_headers=request.headers,
        response_headers=accepted.headers,
        peer=request.peer,
        peer_certificate=request.peer_certificate,
        peer_certificate_der=request.peer_certificate_der,
        extensions=tuple([extension.name for extension in accepted.extensions]),
        request=request,
    )
    lines = [f"{name}: {value}\r\n" for name, value in accepted.headers.pairs()]
    settings = deflate_settings(options.compression)
    deflate = None
    if accepted.extensions and settings is not None:
        deflate = DeflateStreams(accepted.extensions[0], settings)
    return Upgrade(
        received=received,
        handshake=handshake,
        response=f"HTTP/1.1 101 Switching Protocols\r\n{''.join(lines)}\r\n".encode("latin-1"),
        deflate=deflate,
        max_size=options.max_size,
        fragments=options.fragments,
    )


class _Accepted(NamedTuple):
    headers: Headers  # of the response
    subprotocol: str | None
    extensions: Sequence[Extension]


def _accept_usual(received: ReceivedRequest, options: UpgradeOptions) -> _Accepted | None:
    """Accept a request such as browsers and libraries send; None if it is unusual in any way.

    This takes a tenth of the library's time. The library decides on all other requests, so every
    refusal comes from the library.
    """
    request = received.request
    pairs = request.headers.pairs()
    fields = {name.lower(): value for name, value in pairs}
    get = fields.get
    key = get("sec-websocket-key", "")
    offered = _split_names(get("sec-websocket-protocol"))
    if not (
        len(fields) == len(pairs)  # no header is repeated
        and request.method == "GET"
        and received.version == "1.1"
        and get("upgrade", "").lower() == "websocket"
        and get("connection", "").lower() in USUAL_CONNECTIONS
        and get("sec-websocket-version") == "13"
        and _is_key(key)
        and is_host_header(get("host", ""))
        and _is_target(request.target)
        and (options.origins is None or _is_allowed(get("origin"), options.origins))
        and offered is not None
        and (not options.subprotocols or options.select_subprotocol or offered)
    ):
        return None
    headers = [
        *("Date", _format_date(int(time.time()))),
        *("Upgrade", "websocket", "Connection", "Upgrade"),
        *("Sec-WebSocket-Accept", accept_key(key)),
    ]
    extensions: list[Extension] = []
    offers = get("sec-websocket-extensions")
    settings = deflate_settings(options.compression)
    if offers is not None and settings is not None:
        try:
            agreed = _accept_extensions(offers, settings, extensions)
        except LibraryInvalidHandshake:
            return None
        if agreed:
            headers += "Sec-WebSocket-Extensions", agreed
    subprotocol = None
    if options.select_subprotocol is not None:
        subprotocol = _select(options.select_subprotocol, request, offered)
    elif options.subprotocols:
        subprotocol = next((name for name in options.subprotocols if name in offered), None)
        if subprotocol is None:
            return None
    if subprotocol is not None:
        headers += "Sec-WebSocket-Protocol", subprotocol
    return _Accepted(checked_headers(headers), subprotocol, extensions)


USUAL_CONNECTIONS = frozenset({"upgrade", "keep-alive, upgrade"})
"""The values of the ``Connection`` header in nearly all handshakes, in lower case."""

# 16 bytes in base64.
_is_key = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==").fullmatch


def _split_names(value: str | None) -> list[str] | None:
    """Split the names of a header; None if one is not a token."""
    names = [] if value is None else [name.strip(" \t") for name in value.split(",")]
    return names if all(map(is_token, names)) else None


def _is_allowed(origin: str | None, allowed: Origins) -> bool:
    return any(
        one == origin
        or (isinstance(one, re.Pattern) and origin is not None and one.fullmatch(origin))
        for one in allowed
    )


@lru_cache(maxsize=1)
def _format_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


SERVER_BITS = 12
"""The default window of both sides on a server. With 15, each client would take more memory."""


@lru_cache(maxsize=32)
def _deflate_factory(settings: Deflate) -> ServerPerMessageDeflateFactory:
    def limit(bits: int | None) -> int | None:
        return SERVER_BITS if bits is None else None if bits == MAX_BITS else bits

    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=settings.no_context_takeover,
        client_no_context_takeover=settings.peer_no_context_takeover,
        server_max_window_bits=limit(settings.window_bits),
        client_max_window_bits=limit(settings.peer_window_bits),
    )


MAX_CACHED = 100
"""Maximum length of an extension header that is parsed only once, because many clients send the
same one."""

_parse_cached = lru_cache(maxsize=32)(parse_extension)


def parse_extensions(header: str) -> list[ExtensionHeader]:
    """Parse the ``Sec-WebSocket-Extensions`` header; do not change the result.

    Raises:
        LibraryInvalidHandshake: the header is malformed.
    """
    return _parse_cached(header) if len(header) <= MAX_CACHED else parse_extension(header)


def _accept_extensions(header: str, settings: Deflate, accepted: list[Extension]) -> str:
    """Add the extensions to ``accepted``; return the response header.

    Raises:
        LibraryInvalidHandshake: the header is malformed.
    """
    agreed = []
    factory = _deflate_factory(settings)
    for name, parameters in parse_extensions(header):
        if name == factory.name:
            # An offer that cannot be accepted is ignored.
            with suppress(NegotiationError):
                answer, extension = factory.process_request_params(parameters, accepted)
                agreed.append((name, answer))
                accepted.append(extension)
    return build_extension(agreed)


def _accept_any(received: ReceivedRequest, options: UpgradeOptions) -> _Accepted:
    """Let the library accept or refuse a request."""
    request = received.request
    select = options.select_subprotocol

    def select_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        assert select is not None
        return cast("Subprotocol | None", _select(select, request, offered))

    settings = deflate_settings(options.compression)
    protocol = ServerProtocol(
        origins=cast("Sequence[Origin | re.Pattern[str] | None] | None", options.origins),
        extensions=None if settings is None else [_deflate_factory(settings)],
        subprotocols=[Subprotocol(name) for name in options.subprotocols or ()] or None,
        select_subprotocol=None if select is None else select_subprotocol,
        max_size=None,
        logger=SILENT,
    )
    library_request = LibraryRequest(
        request.target,
        LibraryHeaders(request.headers.pairs()),
        request.method,
        f"HTTP/{received.version}",
    )
    response = protocol.accept(library_request)
    error = protocol.handshake_exc
    if error is not None and not isinstance(error, LibraryInvalidHandshake):
        raise error
    if error is not None:
        _break_cycles(error)
        versions = request.headers.get_all("Sec-WebSocket-Version")
        if response.status_code == _BAD_REQUEST and versions and set(versions) != {"13"}:
            raise refuse(426, "only version 13 of WebSocket is supported", _OTHER_PROTOCOL)
        raise Refusal(_plain(response), f"{response.status_code} {_describe(error)}")
    headers = Headers(response.headers.raw_items())
    return _Accepted(headers, protocol.subprotocol, protocol.extensions)


def _break_cycles(error: BaseException | None) -> None:
    """Clear the tracebacks, whose frames refer to objects that refer to the error."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _describe(error: LibraryInvalidHandshake) -> str:
    """Return the library's message without the subprotocols it quotes: one may be a token."""
    text = str(error)
    return text.partition(":")[0] if "Sec-WebSocket-Protocol" in text else f"{text:.200}"


def _select(select: SelectSubprotocol, request: Request, offered: Sequence[str]) -> str | None:
    chosen = select(request, tuple(offered))
    if chosen is None or chosen in offered:
        return None if chosen is None else as_text(chosen)
    names = redact_subprotocols(f"{list(offered)!r} or None, not {chosen!r}")
    raise BadHookResult(f"select_subprotocol must return one of {names}")


def _host(request: Request) -> str:
    """Return the Host header, of which there must be exactly one (RFC 9112, section 3.2)."""
    hosts = request.headers.get_all("Host")
    if len(hosts) != 1 or not is_host_header(hosts[0]):
        raise refuse(400, f"invalid Host header: {hosts!r:.200}")
    return hosts[0]


def _target(request: Request) -> str:
    if not _is_target(request.target):
        raise refuse(400, f"invalid target: {redact_query(request.target)!r:.200}")
    return request.target


_BAD_REQUEST = 400

# In responses with status 426 (RFC 6455, section 4.2.2).
_OTHER_PROTOCOL = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


def _plain(response: LibraryResponse) -> Response:
    kept = ("allow", "content-type", "date")
    headers = [pair for pair in response.headers.raw_items() if pair[0].lower() in kept]
    if "upgrade" in response.headers:
        headers += _OTHER_PROTOCOL.items()
    return Response(response.status_code, bytes(response.body), headers)


def _check_origins(origins: Origins) -> Origins:
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        raise InvalidOption(f"origins must be a list of origins, not {origins!r}")
    return tuple(map(_check_origin, origins))


def _check_origin(origin: object) -> str | re.Pattern[str] | None:
    if origin is None or (isinstance(origin, re.Pattern) and isinstance(origin.pattern, str)):
        return origin
    if not isinstance(origin, str):
        raise InvalidOption(f"an origin must be a str, a compiled pattern or None, not {origin!r}")
    try:
        return normalize_origin(as_text(origin))
    except ValueError as error:
        raise InvalidOption(
            f"{as_text(origin)!r} is not an origin that browsers send: {error}"
        ) from None
