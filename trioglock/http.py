"""HTTP requests and plain responses in the opening handshake of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ._redact import redact_repr, shorten
from .headers import Headers, HeadersLike

__all__ = ["Request", "Response"]

# The headers that delimit a response (RFC 9112, section 6) are set by the server.
_RESERVED = ("connection", "content-length", "transfer-encoding")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Request:
    """A request from a client (RFC 9112, section 3).

    Args:
        target: the path and query as received, such as ``"/chat?room=7"``, without a preceding host
            (RFC 9112, section 3.2.2).
        headers: the headers as received.
        method: the request method; ``"GET"`` for a WebSocket.
        peer: the client's address, such as ``"127.0.0.1:50812"``; "" if unknown.
        secure: whether the request was received over TLS.
        peer_certificate: the peer's certificate as ``ssl.SSLSocket.getpeercert()`` returns it, {}
            if the context did not verify it; None without TLS, or if the client sent no
            certificate.
        peer_certificate_der: the same certificate in DER form (X.690), for example to compute a
            fingerprint.
        prefix: the part before the ``*`` in the pattern of the path under which the target is
            served, such as ``"/live/"``; "/" without such a pattern.
        data: values, such as the user, that ``process_request`` stores for hooks and handlers,
            which read them from ``conn.http_request.data``.
    """

    target: str
    headers: Headers
    method: str = "GET"
    peer: str = ""
    secure: bool = False
    peer_certificate: dict[str, Any] | None = field(default=None, repr=False, hash=False)
    peer_certificate_der: bytes | None = field(default=None, repr=False)
    prefix: str = field(default="/", repr=False)
    data: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return redact_repr(self)

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self._url.partition("?")[0]

    @property
    def subpath(self) -> str:
        """The rest of the path after ``prefix``, such as ``"news"``, still percent-encoded."""
        return self.path.removeprefix(self.prefix)

    @property
    def query(self) -> str:
        """The part after the question mark, for ``urllib.parse.parse_qs``; "" if absent."""
        return self._url.partition("?")[2]

    @property
    def _url(self) -> str:
        return self.target.partition("#")[0]


class Response:
    """A plain HTTP response instead of a WebSocket. The server closes the connection after it.

    Args:
        status: the status code, 200 to 599 (RFC 9110, section 15).
        body: bytes, or a ``str``, which is encoded as UTF-8.
        headers: ``Content-Type`` defaults to plain text for ``str`` and to binary data for bytes.

    Raises:
        ValueError: the response cannot be sent.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int = 200, body: str | bytes = b"", headers: HeadersLike = ()
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(
                f"status must be a whole number from 200 to 599, not {shorten(status)}"
            )
        if not isinstance(body, str | bytes):
            raise ValueError(f"body must be str or bytes, not {type(body).__name__}")
        checked = Headers(headers)
        for name in _RESERVED:
            if name in checked:
                raise ValueError(f"the header {name} is set by the server")
        if "content-type" not in checked and body:
            kind = "text/plain; charset=utf-8" if isinstance(body, str) else _BYTES
            checked = Headers([*checked.pairs(), ("Content-Type", kind)])
        self.status: int = int(status)
        self.body: bytes = body.encode() if isinstance(body, str) else body
        self.headers: Headers = checked

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"

    def to_bytes(self, *, head_only: bool = False) -> bytes:
        """Serialize the response.

        Args:
            head_only: whether to omit the body, for HEAD (RFC 9110, section 9.3.2).
        """
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = ""
        # RFC 9110, section 7.8.
        connection = "close, Upgrade" if "upgrade" in self.headers else "close"
        pairs = [*self.headers.pairs(), ("Connection", connection)]
        if self.status not in _BODILESS:
            pairs.append(("Content-Length", str(len(self.body))))
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in pairs)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if head_only or self.status in _BODILESS else head + self.body


_BYTES = "application/octet-stream"
_BODILESS = frozenset({204, 304})
