"""The address of a Redis server, parsed from a URL in the format of redis-py."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Any

import trio

from ..._redact import HIDDEN, redact_query, without_secrets
from ..._text import as_text
from ...errors import InvalidOption
from ...transports.connecting import closed_on_failure
from ...transports.urls import parse_authority, server_name, split_url

__all__ = ["RedisAddress", "import_redis", "parse_address"]

_is_database = re.compile(r"(?:/[0-9]*/?)?").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """The address of a server and the credentials for it; ``path`` is that of a Unix socket."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0  # matters for streams, not for channels

    def __str__(self) -> str:
        """The address without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def hide_credentials(self, text: str) -> str:
        """Remove the credentials from a text sent by the server, which may quote its input."""
        for secret in filter(None, (self.password, self.username)):
            text = text.replace(secret, HIDDEN)
        return text

    async def open_stream(self) -> trio.abc.Stream:
        """Connect; raise OSError or trio.BrokenResourceError if that fails."""
        if self.path is not None:
            return await trio.open_unix_socket(self.path)
        tcp = await trio.open_tcp_stream(self.host, self.port)
        if self.ssl_context is None:
            return tcp
        tls = trio.SSLStream(tcp, self.ssl_context, server_hostname=server_name(self.host))
        async with closed_on_failure(tls):
            await tls.do_handshake()
        return tls


def import_redis() -> tuple[Any, Any]:
    """Return the ``redis`` and ``hiredis`` modules."""
    try:
        import hiredis  # noqa: PLC0415 - an extra: pip install trioglock[redis]
        import redis  # noqa: PLC0415
    except ImportError:
        raise InvalidOption("Redis requires an extra: pip install 'trioglock[redis]'") from None
    return redis, hiredis


def parse_address(url: object, ssl_context: ssl.SSLContext | None = None) -> RedisAddress:
    """Parse the URL of a Redis server.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, or
            ``unix://[[user]:password@]/path[?db=n]``.
        ssl_context: for ``rediss://``; by default the system's certificates are trusted.

    Raises:
        InvalidOption: ``url`` is not such a URL, or the extra is not installed.
    """
    redis, _ = import_redis()
    normalized = normalize_redis_url(url)
    try:
        normalized.encode()
        parts: dict[str, Any] = redis.connection.parse_url(normalized)
    except ValueError:
        # redis-py's own message quotes the URL, including the password.
        shown = redact_query(without_secrets(normalized))
        raise InvalidOption(f"not a Redis URL: {shown!r}") from None
    parts.pop("connection_class", None)
    if normalized.startswith("unix") and not parts.get("path"):
        raise InvalidOption("a Redis URL with unix:// needs a path: unix:///run/redis.sock")
    known = set(RedisAddress.__dataclass_fields__) - {"ssl_context"}
    if unknown := sorted(set(parts) - known):
        raise InvalidOption(
            f"a Redis URL takes no parameter {unknown[0]!r} here; for TLS pass ssl_context"
        )
    if parts.get("db", 0) < 0:
        raise InvalidOption("the number of a Redis database is at least 0")
    if parts.get("username") is not None:
        parts.setdefault("password", "")  # of a user without one
    if normalized.startswith("rediss"):
        parts["ssl_context"] = ssl_context or ssl.create_default_context()
    return RedisAddress(**parts)


def normalize_redis_url(url: object) -> str:
    """Normalize the scheme, host and port of a URL; redis-py parses the rest.

    Raises:
        InvalidOption: one of them is invalid.
    """
    if not isinstance(url, str):
        raise InvalidOption(f"a Redis URL must be a str, not {type(url).__name__}")
    scheme, slashes, rest = as_text(url).partition("://")
    scheme = scheme.lower()
    if scheme not in ("redis", "rediss", "unix") or not slashes:
        # Without a scheme, a password may be anywhere: quote nothing.
        found = f"not {scheme}://" if slashes and scheme.isalnum() else "and this one does not"
        raise InvalidOption(f"a Redis URL begins with redis://, rediss:// or unix://, {found}")
    parts = split_url(f"{scheme}://{rest}")
    user_info, at, address = (parts.authority or "").rpartition("@")
    if scheme != "unix":
        if not address or address.startswith(":"):
            address = f"localhost{address}"
        try:
            _, _, host, port = parse_authority(address)
        except ValueError as error:
            # In a malformed URL the end of the password cannot be found.
            shown = redact_query(without_secrets(parts.join()))
            text = f"a Redis URL needs a valid host and port: {shown!r:.80}: {error}"
            raise InvalidOption(text) from None
        host = f"[{host.replace('%', '%25')}]" if ":" in host else host
        address = host if port is None else f"{host}:{port}"
        if not _is_database(parts.path):
            # redis-py would use database 0.
            raise InvalidOption("the path of a Redis URL is the number of a database, such as /1")
    return parts._replace(authority=f"{user_info}{at}{address}").join()
