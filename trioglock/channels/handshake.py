"""The opening handshake of a client: its parameters, its token, and the decision about it."""

from __future__ import annotations

import base64
import binascii
import inspect
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from .._redact import redact_repr, shorten
from ..errors import BadHookResult, BrokerError, BrokerUnavailable, UsageError
from ..headers import Headers
from ..hooks import Socket
from ..http import Request, Response
from ..protocols.phoenix.message import PATH_END, SUBPROTOCOL, TOKEN_PREFIX
from ..pubsub import Hub
from ..pubsub.reservation import Reservation
from ..pubsub.socket import refuse_temporarily
from ..server import HandshakeTarget
from .credentials import has_expired, split_credentials
from .ids import id_channel
from .socket import ChannelsSocket

__all__ = ["Authenticate", "ChannelsTarget", "ConnectRequest", "Identify"]

_logger = logging.getLogger("trioglock.channels")

_is_supported = re.compile(r"2\.0\.[0-9]+").fullmatch
"""Phoenix uses this protocol for all versions that match ``~> 2.0.0``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectRequest:
    """The argument of ``connect``: a client that wants to connect.

    Args:
        path: the path of the request, still percent-encoded, such as ``"/socket/websocket"``.
        params: the parameters of the query, without ``vsn``; the last one of a name counts.
        headers: the headers as received.
        token: the ``auth_token`` of the client, which it sends as a subprotocol; None without one.
        peer: the client's address, such as ``"127.0.0.1:50812"``; "" if unknown.
        secure: whether the request was received over TLS.
        peer_certificate: as in :class:`trioglock.Request`.
        peer_certificate_der: as in :class:`trioglock.Request`.
    """

    path: str
    params: Mapping[str, str] = field(repr=False)
    headers: Headers
    token: str | None = field(default=None, repr=False)
    peer: str = ""
    secure: bool = False
    peer_certificate: dict[str, Any] | None = field(default=None, repr=False, hash=False)
    peer_certificate_der: bytes | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return redact_repr(self)


Authenticate: TypeAlias = Callable[[ConnectRequest], Any | Awaitable[Any]]
"""Authenticates a client: returns the user or :class:`Credentials`, or None to refuse the client
with 403."""

Identify: TypeAlias = Callable[[Any], str | None]
"""Returns the id of the connections of a user, or None."""


class Admitted(NamedTuple):
    """The decision about a client that may connect."""

    user: Any
    id: str | None
    expires_at: float
    reservation: Reservation | None
    """Lasts until the end of the connection."""


class ChannelsTarget(HandshakeTarget):
    """The target of ``serve()`` for a :class:`.Channels`.

    Args:
        hub: the hub.
        make_socket: creates the Socket of a client, given its user, its id and when its
            credentials expire.
        connect: authenticates clients, or None.
        identify: returns the id of a user's connections, or None.
    """

    _codec_hint = "it speaks the protocol of Phoenix Channels"

    def __init__(
        self,
        hub: Hub,
        make_socket: Callable[[Any, str | None, float], ChannelsSocket],
        connect: Authenticate | None,
        identify: Identify | None,
    ) -> None:
        self.hub: Hub = hub
        self._make = make_socket
        self._connect = connect
        self._identify = identify

    def _select_subprotocol(
        self,
        request: Request,  # noqa: ARG002 - the interface
        offered: Sequence[str],
    ) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    async def _admit(self, request: Request) -> object:
        if not request.path.endswith(PATH_END):
            return _refuse(request, 404, f"the path does not end with {PATH_END}")
        params = dict(parse_qsl(request.query, keep_blank_values=True))
        # Without vsn, Phoenix would use an older protocol.
        vsn = params.pop("vsn", None)
        if vsn is None:
            return _refuse(request, 403, "the parameter vsn is missing")
        if not _is_supported(vsn):
            return _refuse(request, 403, f"vsn must be 2.0.0, not {shorten(vsn)}")
        user, expires_at = None, math.inf
        if self._connect is not None:
            returned = self._connect(_make_request(request, params))
            if inspect.isawaitable(returned):
                returned = await returned
            user, expires_at = split_credentials(returned)
            if user is None:
                return _refuse(request, 403, "connect has returned no user")
            if has_expired(expires_at):
                return _refuse(request, 403, "the credentials have expired")
        id = None if self._identify is None else self._identify(user)  # noqa: A001
        if not (id is None or isinstance(id, str)):
            raise BadHookResult(f"id must return a str or None, not {type(id).__name__}")
        reservation = None
        if id is not None:
            try:
                reservation = Reservation(self.hub, id_channel(id))
                await reservation.confirm()
            except (UsageError, BrokerUnavailable, BrokerError) as error:
                return refuse_temporarily(request, error)
        return Admitted(user, id, expires_at, reservation)

    def _make_socket(self, admitted: object) -> Socket[Any, Any]:
        assert isinstance(admitted, Admitted)
        user, id, expires_at, _ = admitted  # noqa: A001
        return self._make(user, id, expires_at)


def _refuse(request: Request, status: int, reason: str) -> Response:
    _logger.info("%s: refused with %d: %s", request.peer or "a client", status, reason)
    return Response(status)


def _make_request(request: Request, params: Mapping[str, str]) -> ConnectRequest:
    return ConnectRequest(
        path=request.path,
        params=params,
        headers=request.headers,
        token=find_token(request.headers),
        peer=request.peer,
        secure=request.secure,
        peer_certificate=request.peer_certificate,
        peer_certificate_der=request.peer_certificate_der,
    )


def find_token(headers: Headers) -> str | None:
    """Return the ``auth_token``, or None without a valid one."""
    for value in headers.get_all("Sec-WebSocket-Protocol"):
        for name in value.split(","):
            encoded = name.strip()
            if encoded.startswith(TOKEN_PREFIX):
                return _decode_token(encoded.removeprefix(TOKEN_PREFIX))
    return None


def _decode_token(encoded: str) -> str | None:
    padded = encoded + "=" * (-len(encoded) % 4)
    # The JavaScript client uses the standard alphabet, despite the name of the prefix.
    standard = padded.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(standard, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
