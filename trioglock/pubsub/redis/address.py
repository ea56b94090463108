"""Addresses of Redis servers, parsed from URLs in the format of redis-py.

redis-py has no URLs for Sentinel and Cluster. Other libraries for Python, such as RedisVL and
Prefect, use ``redis+sentinel://`` and ``redis+cluster://``.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import trio

from ..._hints import describe_value
from ..._redact import HIDDEN, redact_query, without_secrets
from ..._text import as_text
from ...errors import InvalidOption
from ...transports.connecting import closed_on_failure
from ...transports.urls import parse_authority, server_name, split_url

__all__ = [
    "ClusterAddress",
    "RedisAddress",
    "SentinelAddress",
    "check_sharded",
    "import_redis",
    "normalize_redis_url",
    "parse_address",
    "parse_redis_url",
]

SENTINEL_PORT = 26379

_is_database = re.compile(r"(?:/[0-9]*/?)?").fullmatch
_match_master = re.compile(r"/([^/]+)(/[0-9]*)?/?").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """The address and credentials of a server; ``path`` is the path of a Unix socket."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """The sentinels that know the address of a master, and the name of the master.

    ``master`` has the credentials for the master, but not its host and port.
    """

    sentinels: tuple[RedisAddress, ...]
    name: str
    master: RedisAddress

    def __str__(self) -> str:
        """The name and the sentinels, without credentials."""
        return f"{self.name} (Sentinel at {', '.join(map(str, self.sentinels))})"

    def hide_credentials(self, text: str) -> str:
        """As in :class:`RedisAddress`."""
        return self.sentinels[0].hide_credentials(self.master.hide_credentials(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """Some nodes of a cluster, with the credentials for all of them."""

    nodes: tuple[RedisAddress, ...]

    def __str__(self) -> str:
        """The nodes, without credentials."""
        return f"the cluster of {', '.join(map(str, self.nodes))}"

    def hide_credentials(self, text: str) -> str:
        """As in :class:`RedisAddress`."""
        return self.nodes[0].hide_credentials(text)


def import_redis() -> tuple[Any, Any]:
    """Return the ``redis`` and ``hiredis`` modules."""
    try:
        import hiredis  # noqa: PLC0415 - an extra: pip install trioglock[redis]
        import redis  # noqa: PLC0415
    except ImportError:
        raise InvalidOption("Redis requires an extra: pip install 'trioglock[redis]'") from None
    return redis, hiredis


def parse_redis_url(
    url: object, ssl_context: ssl.SSLContext | None = None
) -> RedisAddress | SentinelAddress | ClusterAddress:
    """Parse the URL of a Redis server, of sentinels, or of nodes of a cluster.

    Args:
        url: as in :class:`RedisBroker`.
        ssl_context: for TLS; by default the system's certificates are trusted.

    Raises:
        InvalidOption: ``url`` is not such a URL, or the extra is not installed.
    """
    if isinstance(url, str):
        scheme, _, rest = as_text(url).partition("://")
        scheme, _, kind = scheme.lower().partition("+")
        if kind == "sentinel" and scheme in ("redis", "rediss"):
            return _parse_sentinel_url(scheme, rest, ssl_context)
        if kind == "cluster" and scheme in ("redis", "rediss"):
            return _parse_cluster_url(scheme, rest, ssl_context)
    return parse_address(url, ssl_context)


def check_sharded(
    sharded: object, address: RedisAddress | SentinelAddress | ClusterAddress
) -> None:
    """Raise InvalidOption if ``sharded`` is invalid for a server."""
    if not isinstance(sharded, bool):
        raise InvalidOption(f"sharded must be a bool, not {describe_value(sharded)}")
    if sharded and not isinstance(address, ClusterAddress):
        raise InvalidOption(
            "sharded=True requires a Redis Cluster: use a URL that begins with redis+cluster:// or "
            "rediss+cluster://"
        )


def _parse_sentinel_url(
    scheme: str, rest: str, ssl_context: ssl.SSLContext | None
) -> SentinelAddress:
    # In a malformed URL, the end of the password cannot be found, so the errors quote nothing.
    parts = split_url(f"{scheme}://{rest}")
    user_info, at, hosts = (parts.authority or "").rpartition("@")
    match = _match_master(parts.path)
    if match is None:
        raise InvalidOption(
            "the path of a Redis Sentinel URL is the name of the master, and optionally the number "
            "of a database: redis+sentinel://host:26379/mymaster/0"
        )
    options = dict(parse_qsl(parts.query or "", keep_blank_values=True))
    username, password = (
        options.pop("sentinel_username", None),
        options.pop("sentinel_password", None),
    )
    if username and password is None:
        raise InvalidOption("sentinel_username requires sentinel_password")
    url = f"{scheme}://{user_info}{at}localhost{match[2] or ''}?{urlencode(options)}"
    master = parse_address(url, ssl_context)
    sentinels = tuple(
        RedisAddress(
            host=host,
            port=port,
            ssl_context=master.ssl_context,
            username=username or None,
            password=password,
        )
        for host, port in _parse_hosts(hosts, SENTINEL_PORT)
    )
    return SentinelAddress(sentinels=sentinels, name=unquote(match[1]), master=master)


def _parse_cluster_url(
    scheme: str, rest: str, ssl_context: ssl.SSLContext | None
) -> ClusterAddress:
    parts = split_url(f"{scheme}://{rest}")
    user_info, at, hosts = (parts.authority or "").rpartition("@")
    if parts.path not in ("", "/", "/0"):
        raise InvalidOption("a Redis Cluster has no databases: its URL has no path")
    node = parse_address(f"{scheme}://{user_info}{at}localhost?{parts.query or ''}", ssl_context)
    if node.db:
        raise InvalidOption("a Redis Cluster has no databases: its URL has no db")
    found = _parse_hosts(hosts, node.port)
    return ClusterAddress(nodes=tuple(replace(node, host=host, port=port) for host, port in found))


def _parse_hosts(hosts: str, default_port: int) -> list[tuple[str, int]]:
    found = []
    for text in hosts.split(","):
        try:
            _, _, host, port = parse_authority(text or "localhost")
        except ValueError as error:
            raise InvalidOption(f"a Redis URL needs valid hosts and ports: {error}") from None
        found.append((host, port or default_port))
    return found


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
        parts.setdefault("password", "")  # for a user without a password
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
        # Without a scheme, the password may be anywhere in the URL, so quote nothing.
        found = f"not {scheme}://" if slashes and scheme.isalnum() else "which this URL does not"
        raise InvalidOption(
            "a Redis URL begins with redis://, redis+sentinel:// or redis+cluster://, with rediss "
            f"for TLS, or unix://, {found}"
        )
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
