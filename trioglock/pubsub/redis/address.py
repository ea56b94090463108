"""The address of a Redis server, from a URL as redis-py and others write it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

import trio

from ..._redact import HIDDEN, redact_query, without_secrets
from ...errors import InvalidOption

__all__ = ["Address", "extra", "parse_address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and who we are to it.

    Args:
        host: name or address.
        port: of TCP.
        path: of a Unix socket, instead of the two.
        ssl_context: for TLS; None for plain TCP.
        username: None for the default user.
        password: None for none.
        db: number of the database. Channels have none, but streams do.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0

    def __str__(self) -> str:
        """The address without user and password."""
        return self.path or f"{self.host}:{self.port}"

    def without_credentials(self, text: str) -> str:
        """A text of the server's, which may quote what it was sent."""
        for secret in filter(None, (self.password, self.username)):
            text = text.replace(secret, HIDDEN)
        return text

    async def open_stream(self) -> trio.abc.Stream:
        """Dial.

        Raises:
            OSError, trio.BrokenResourceError: in vain.
        """
        if self.path is not None:
            return await trio.open_unix_socket(self.path)
        tcp = await trio.open_tcp_stream(self.host, self.port)
        if self.ssl_context is None:
            return tcp
        secure = trio.SSLStream(tcp, self.ssl_context, server_hostname=self.host)
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure


def extra() -> tuple[Any, Any]:
    """The libraries of the extra: redis-py and hiredis.

    Raises:
        InvalidOption: they are not installed.
    """
    try:
        import hiredis  # noqa: PLC0415 - an extra: pip install trioglock[redis]
        import redis  # noqa: PLC0415
    except ImportError:
        raise InvalidOption("Redis needs the extra: pip install 'trioglock[redis]'") from None
    return redis, hiredis


def parse_address(url: object, ssl_context: ssl.SSLContext | None = None) -> Address:
    """The address that a URL names.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, or
            ``unix://[[user]:password@]/path[?db=n]``.
        ssl_context: for ``rediss://``; by default the system's certificates are trusted.

    Raises:
        InvalidOption: it names none, or the extra is not installed.
    """
    redis, _ = extra()
    if not isinstance(url, str):
        raise InvalidOption(f"a Redis URL is a str, not {type(url).__name__}")
    scheme, slashes, _ = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not slashes:
        # Of what is no URL nobody knows where the password is.
        found = f"not {scheme}://" if slashes and scheme.isalnum() else "and this one does not"
        raise InvalidOption(f"a Redis URL begins with redis://, rediss:// or unix://, {found}")
    try:
        url.encode()
        parts: dict[str, Any] = redis.connection.parse_url(url)
    except ValueError:
        # In our own words: the library's quote the address, and so the password.
        shown = redact_query(without_secrets(url))
        raise InvalidOption(f"not a Redis URL: {shown!r}") from None
    parts.pop("connection_class", None)
    if scheme == "unix" and not parts.get("path"):
        raise InvalidOption("a Redis URL with unix:// names a path: unix:///run/redis.sock")
    try:
        str(parts.get("host", "")).encode("idna")
    except UnicodeError:
        raise InvalidOption(f"a Redis URL names a host, not {parts['host']!r:.60}") from None
    known = set(Address.__dataclass_fields__) - {"ssl_context"}
    if unknown := sorted(set(parts) - known):
        raise InvalidOption(f"a Redis URL takes no {unknown[0]!r} here; for TLS give ssl_context")
    if scheme == "rediss":
        parts["ssl_context"] = ssl_context or ssl.create_default_context()
    return Address(**parts)
