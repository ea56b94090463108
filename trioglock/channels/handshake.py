"""The opening handshake of a client: parameters, token, and the decision whether to accept it."""

from __future__ import annotations

import base64
import binascii
import inspect
import logging
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from .._redact import shorten
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


class ConnectRequest(Request):
    """The argument of ``connect``: the request of a connecting client."""

    __slots__ = ()

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the query, without ``vsn``; the last one of each name is used."""
        params = _parse_query(self)
        params.pop("vsn", None)
        return params

    @property
    def token(self) -> str | None:
        """The ``auth_token``, which the client sends as a subprotocol; None if it sends none."""
        return find_token(self.headers)


Authenticate: TypeAlias = Callable[[ConnectRequest], Any | Awaitable[Any]]
"""Authenticates a client.

It returns the user or :class:`Credentials`, or None to refuse the client with 403.
"""

Identify: TypeAlias = Callable[[Any], str | None]
"""Returns the id of the connections of a user, or None."""


class Admitted(NamedTuple):
    """The data of a client that may connect."""

    user: Any
    id: str | None
    expires_at: float
    reservation: Reservation | None
    """Held until the connection has been added to the index of ids."""


class ChannelsTarget(HandshakeTarget):
    """The target of ``serve()`` for a :class:`.Channels`.

    Args:
        hub: the hub.
        make_socket: creates the Socket of a client, given its user, its id and when its
            credentials expire.
        connect: authenticates clients, or None.
        identify: returns the id of a user's connections, or None.
    """

    _codec_hint = "pass it to the Channels object, as in Channels(..., codec=...)"

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
        # Without vsn, Phoenix would use an older protocol.
        vsn = _parse_query(request).get("vsn")
        if vsn is None:
            return _refuse(request, 403, "the vsn parameter is missing")
        if not _is_supported(vsn):
            return _refuse(request, 403, f"vsn must be 2.0.0, not {shorten(vsn)}")
        user, expires_at = None, math.inf
        if self._connect is not None:
            values = {field.name: getattr(request, field.name) for field in fields(Request)}
            returned = self._connect(ConnectRequest(**values))
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
        user, id, expires_at, reservation = admitted  # noqa: A001
        socket = self._make(user, id, expires_at)
        socket.reservation = reservation
        return socket


def _refuse(request: Request, status: int, reason: str) -> Response:
    _logger.info("%s: refused with %d: %s", request.peer or "a client", status, reason)
    return Response(status)


def _parse_query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query, keep_blank_values=True))


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
