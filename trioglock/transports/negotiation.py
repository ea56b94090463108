"""The server's port: what is agreed in the opening handshake, and who carries it out.

Reading the request and agreeing on an answer (RFC 6455, section 4.2) is the same for all plugs. A
:class:`ServerTransport` then answers 101 and speaks WebSocket on the stream.
"""

from __future__ import annotations

import inspect
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import trio
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.http11 import Response as LibraryResponse
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from .._redact import redact_query, redact_subprotocols
from ..errors import BadHookResult, InvalidOption
from ..headers import Headers
from ..http import Request, Response
from ..options import check_subprotocols, check_whole
from .base import Handshake, Link
from .http_requests import Call, Refusal
from .native.deflate import Deflate

__all__ = [
    "Origins",
    "SelectSubprotocol",
    "ServerTransport",
    "Upgrade",
    "UpgradeOptions",
    "negotiate",
]

Origins: TypeAlias = Sequence[str | re.Pattern[str] | None]
"""Which origins may connect: exact ones, patterns of whole ones, None for clients without one."""

SelectSubprotocol: TypeAlias = Callable[[Request, Sequence[str]], str | None]
"""Gets the request and what the client offers; returns one of these, or None for none."""

# At level DEBUG the library logs whole headers, credentials among them.
_SILENT = logging.Logger("trioglock.handshake")  # noqa: LOG001 - in no hierarchy, on purpose
_SILENT.disabled = True

# RFC 3986, section 3.2.2, and a port: nothing that a URL would read as something else.
_is_host = re.compile(r"([\w.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(:\d{0,5})?", re.ASCII).fullmatch

# The origin-form (RFC 9112, section 3.2.1), as far as a log or a header could be harmed by it.
_is_target = re.compile(r"/[\x21-\x7e]*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeOptions:
    """What a server agrees to.

    The fields are the keyword arguments of :func:`trioglock.serve` and mean the same.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    origins: Origins | None = None
    subprotocols: Sequence[str] | None = None
    select_subprotocol: SelectSubprotocol | None = None
    compression: Literal["deflate"] | None = "deflate"
    max_size: int | None = 2**20

    def __post_init__(self) -> None:
        if self.origins is not None:
            object.__setattr__(self, "origins", _check_origins(self.origins))
        object.__setattr__(self, "subprotocols", check_subprotocols(self.subprotocols))
        if not (self.select_subprotocol is None or callable(self.select_subprotocol)):
            raise InvalidOption(
                f"select_subprotocol is a function, not {self.select_subprotocol!r}"
            )
        if inspect.iscoroutinefunction(self.select_subprotocol):
            raise InvalidOption("select_subprotocol is a plain function: it is not awaited")
        if self.compression not in ("deflate", None):
            raise InvalidOption(f"compression is 'deflate' or None, not {self.compression!r}")
        check_whole("max_size", self.max_size, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """An opening handshake that both sides can agree to; nothing has been answered yet.

    Args:
        call: the request, and what came behind it.
        handshake: what is agreed.
        answer: the bytes of the 101.
        deflate: the compression, if any.
        max_size: the most bytes of one message.
    """

    call: Call
    handshake: Handshake
    answer: bytes
    deflate: Deflate | None
    max_size: int | None


class ServerTransport(ABC):
    """Turns streams of clients into links."""

    compresses: bool = True
    """Whether permessage-deflate can be agreed on."""

    @abstractmethod
    async def upgrade(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        """Answer with 101 and make a link of the stream.

        Args:
            stream: of the client; the link owns it from then on.
            upgrade: what was agreed.
            nursery: for tasks that the link may need; they must end with it and never raise.

        Raises:
            LinkBroken: the client has gone.
        """


def negotiate(call: Call, options: UpgradeOptions) -> Upgrade:
    """What to agree on with a client (RFC 6455, section 4.2.2).

    Args:
        call: the request.
        options: what the server agrees to.

    Raises:
        Refusal: nothing can be agreed on.
        Exception: whatever ``select_subprotocol`` raises.
    """
    request = call.request
    protocol = ServerProtocol(
        origins=cast("Sequence[Origin | re.Pattern[str] | None] | None", options.origins),
        extensions=enable_server_permessage_deflate(None) if options.compression else None,
        subprotocols=[Subprotocol(name) for name in options.subprotocols or ()] or None,
        select_subprotocol=_selector(options.select_subprotocol, request),
        max_size=None,
        logger=_SILENT,
    )
    response = protocol.accept(call.parsed)
    error = protocol.handshake_exc
    if error is not None and not isinstance(error, LibraryInvalidHandshake):
        raise error
    if error is not None:
        raise Refusal(_plain(response), f"{response.status_code} {_why(error)}")
    deflate = Deflate(protocol.extensions[0]) if protocol.extensions else None
    handshake = Handshake(
        url=f"{'wss' if request.secure else 'ws'}://{_host(request)}{_target(request)}",
        subprotocol=protocol.subprotocol,
        request_headers=request.headers,
        response_headers=Headers(response.headers.raw_items()),
        peer=request.peer,
        extensions=tuple(extension.name for extension in protocol.extensions),
    )
    return Upgrade(
        call=call,
        handshake=handshake,
        answer=response.serialize(),
        deflate=deflate,
        max_size=options.max_size,
    )


def _why(error: LibraryInvalidHandshake) -> str:
    """What the library says, for the log; among subprotocols it may quote a token."""
    text = str(error)
    return text.partition(":")[0] if "Sec-WebSocket-Protocol" in text else f"{text:.200}"


def _selector(
    select: SelectSubprotocol | None, request: Request
) -> Callable[[ServerProtocol, Sequence[Subprotocol]], Subprotocol | None] | None:
    """What the library calls to choose a subprotocol."""
    if select is None:
        return None

    def checked(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        chosen = select(request, tuple(offered))
        if chosen is None or chosen in offered:
            return cast("Subprotocol | None", chosen)
        names = redact_subprotocols(f"{list(offered)!r} or None, not {chosen!r}")
        raise BadHookResult(f"select_subprotocol returns one of {names}")

    return checked


def _host(request: Request) -> str:
    """The one Host header (RFC 9112, section 3.2)."""
    hosts = request.headers.get_all("Host")
    if len(hosts) != 1 or not _is_host(hosts[0]):
        raise _refuse_400(f"invalid Host header: {hosts!r:.200}")
    return hosts[0]


def _target(request: Request) -> str:
    if not _is_target(request.target):
        raise _refuse_400(f"invalid target: {redact_query(request.target)!r:.200}")
    return request.target


def _refuse_400(why: str) -> Refusal:
    return Refusal(Response(400, f"{why}\n"), f"400 {why}")


def _plain(response: LibraryResponse) -> Response:
    """A refusal of the library's in our words."""
    kept = ("allow", "content-type", "date", "upgrade")
    headers = [pair for pair in response.headers.raw_items() if pair[0].lower() in kept]
    return Response(response.status_code, bytes(response.body), headers)


def _check_origins(origins: Origins) -> Origins:
    if isinstance(origins, str | re.Pattern):
        raise InvalidOption(f"origins is a list of origins, not {origins!r}")
    try:
        checked = tuple(origins)
    except TypeError:
        raise InvalidOption(f"origins is a list of origins, not {origins!r}") from None
    for origin in checked:
        if not (origin is None or isinstance(origin, str | re.Pattern)):
            raise InvalidOption(f"an origin is a str, a compiled pattern or None, not {origin!r}")
        if isinstance(origin, str) and not re.fullmatch(r"[^/\s]+://[^/\s]+|null", origin):
            raise InvalidOption(f"{origin!r} is no origin: write it as 'https://example.org'")
    return checked
