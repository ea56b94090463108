"""HTTP as far as a server's opening handshake needs it: what was asked, and plain answers."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from ._redact import redact_repr, shorten
from .headers import Headers, HeadersLike

__all__ = ["Request", "Response"]

# What says where an answer ends, and that nothing follows it: ours to set (RFC 9112, section 6).
_RESERVED = ("connection", "content-length", "transfer-encoding")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Request:
    """What a client asked for, before anything is decided (RFC 9112, section 3).

    Args:
        target: path and query, as they were sent, such as ``"/chat?room=7"``.
        headers: as received.
        method: ``"GET"`` for a WebSocket.
        peer: the client's address, such as ``"127.0.0.1:50812"``; "" where it has none.
        secure: whether it came through TLS.
    """

    target: str
    headers: Headers
    method: str = "GET"
    peer: str = ""
    secure: bool = False

    def __repr__(self) -> str:
        return redact_repr(self)

    @property
    def path(self) -> str:
        """The target without its query; percent-encoding is left as it is."""
        path = self._url.partition("?")[0]
        # Two slashes at the front are a path as well (RFC 9112, section 3.2.1), and no host.
        if path.startswith("/") or "://" not in path:
            return path
        return "/" + path.partition("://")[2].partition("/")[2]

    @property
    def query(self) -> str:
        """What stands behind the question mark, for ``urllib.parse.parse_qs``; "" if nothing."""
        return self._url.partition("?")[2]

    @property
    def _url(self) -> str:
        return self.target.partition("#")[0]


class Response:
    """A plain HTTP answer, instead of a WebSocket. The connection ends behind it.

    Args:
        status: the code, 200 to 599 (RFC 9110, section 15).
        body: ``str`` is sent as UTF-8.
        headers: ``Content-Type`` is set to plain text, or to bytes, unless it is given.

    Raises:
        ValueError: such an answer cannot be sent.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int = 200, body: str | bytes = b"", headers: HeadersLike = ()
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(
                f"the status of an answer is a whole number of 200 to 599: {shorten(status)}"
            )
        if not isinstance(body, str | bytes):
            raise ValueError(f"the body of an answer is str or bytes, not {type(body).__name__}")
        checked = Headers(headers)
        for name in _RESERVED:
            if name in checked:
                raise ValueError(f"the header {name} is set by the server itself")
        if "content-type" not in checked and body:
            kind = "text/plain; charset=utf-8" if isinstance(body, str) else _BYTES
            checked = Headers([*checked.pairs(), ("Content-Type", kind)])
        self.status: int = int(status)
        self.body: bytes = body.encode() if isinstance(body, str) else body
        self.headers: Headers = checked

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"

    def to_bytes(self, *, head_only: bool = False) -> bytes:
        """What goes to the client; ``head_only`` answers HEAD (RFC 9110, section 9.3.2)."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = ""
        pairs = [*self.headers.pairs(), ("Connection", "close")]
        if self.status not in _BODILESS:
            pairs.append(("Content-Length", str(len(self.body))))
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in pairs)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if head_only or self.status in _BODILESS else head + self.body


_BYTES = "application/octet-stream"
_BODILESS = frozenset({204, 304})
