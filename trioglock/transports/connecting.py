"""From a URL to an open byte stream: directly or through a proxy, plain or encrypted.

This module supports HTTP (RFC 9110, section 9.3.6) and SOCKS (RFC 1928) proxies. Each kind of
failure raises its own error.
"""

from __future__ import annotations

import inspect
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from websockets.headers import build_authorization_basic

from .._hints import network_hint, tls_hint
from .._scope import leaves
from ..errors import ConnectError, ConnectFailed, InvalidOption, ProxyFailed, TLSFailed
from ..options import DialOptions, StreamSource
from .http1 import STREAM_ERRORS, NotHTTP, read_status
from .proxies import Proxy, find_proxy, parse_proxy
from .tls import is_tls_failure, wrap_tls
from .urls import WebSocketURL, server_name

__all__ = ["closed_on_failure", "describe_failure", "open_stream"]

MEMORY_HOST = "memory.test"
"""The host in the URLs of in-memory servers; a name that no resolver knows (RFC 6761)."""


async def open_stream(url: WebSocketURL, options: DialOptions) -> trio.abc.Stream:
    """Open a stream to the server, encrypted if the URL is ``wss://``.

    Raises:
        ConnectFailed: the server or the proxy cannot be reached.
        ProxyFailed: the proxy refuses, or does not respond like a proxy.
        TLSFailed: the TLS handshake failed, and the cause was not the network.
        InvalidOption: the proxy cannot be used.
        Exception: raised by the user's ``stream`` function, if not an OSError.
    """
    stream = await _open_plain(url, options)
    if not url.secure:
        return stream
    name = server_name(options.server_hostname or url.host)
    return await _start_tls(stream, options.ssl_context, name)


async def _open_plain(url: WebSocketURL, options: DialOptions) -> trio.abc.Stream:
    if options.stream is not None:
        return await _open_given(options.stream)
    proxy = find_proxy(url) if options.proxy is True else options.proxy
    if isinstance(proxy, str):
        proxy = parse_proxy(proxy)
    if proxy is not None:
        return await _open_through_proxy(proxy, url, options)
    if url.host == MEMORY_HOST:
        raise InvalidOption(
            "an in-memory server has no network address: pass stream=server.open_stream"
        )
    return await _open_tcp(url.host, url.port)


async def _open_given(source: StreamSource) -> trio.abc.Stream:
    if isinstance(source, trio.abc.Stream):
        return source
    try:
        opening = source()
        stream = await opening if inspect.isawaitable(opening) else None
    except ConnectError:
        raise
    except OSError as error:
        raise ConnectFailed(f"the stream cannot be opened: {error}") from error
    if stream is None:
        raise InvalidOption(
            "the function passed as stream must be async and return a trio stream"
            f"{', not None' if inspect.isawaitable(opening) else ': it is not async'}"
        )
    return stream


@asynccontextmanager
async def closed_on_failure(stream: trio.abc.Stream) -> AsyncIterator[None]:
    """Close ``stream`` if the block fails or is cancelled, so that no socket leaks."""
    try:
        yield
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _open_tcp(host: str, port: int) -> trio.abc.Stream:
    """Connect to the first address that accepts the connection (RFC 8305, done by trio)."""
    try:
        family = _address_family(host)
        if family is None:
            return await trio.open_tcp_stream(host, port)
        return await _open_address(family, host, port)
    except OSError as error:
        text = f"cannot connect to {host}:{port}: {describe_failure(error)}"
        raise ConnectFailed(text) from _failures(error)[0]


def _address_family(host: str) -> socket.AddressFamily | None:
    """Return the family of an IP address; None for a name, and for an address with a zone."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return family
    return None


async def _open_address(family: socket.AddressFamily, host: str, port: int) -> trio.SocketStream:
    """Connect to one address, without the resolver and tasks needed for several addresses."""
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


def describe_failure(error: OSError) -> str:
    """Return why ``trio.open_tcp_stream`` could not connect to the addresses of a host."""
    return ", ".join(dict.fromkeys(map(_describe, _failures(error))))


def _failures(error: OSError) -> list[OSError]:
    """Return the system's error for each address; trio's own message omits them."""
    errors = [leaf for leaf in leaves(error.__cause__ or error) if isinstance(leaf, OSError)]
    return [one for one in errors if one.errno] or [error]


def _describe(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or not error.errno:
        text = error.strerror or str(error)
    else:
        text = os.strerror(error.errno)  # trio's strerror begins with the address
    return text + network_hint(error)


async def _start_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext | None, hostname: str
) -> trio.abc.Stream:
    """Encrypt an open stream and do the TLS handshake; a failure closes the stream."""
    async with closed_on_failure(stream):
        try:
            encrypted = wrap_tls(
                stream, context or ssl.create_default_context(), server_hostname=hostname
            )
            await encrypted.do_handshake()
        except (*STREAM_ERRORS, ValueError) as error:
            cause = error.__cause__ or error
            text = f"TLS handshake with {hostname}: {cause}{tls_hint(cause)}"
            if is_tls_failure(cause):
                raise TLSFailed(text) from cause
            if isinstance(cause, ssl.SSLEOFError):
                text = f"TLS handshake with {hostname}: the server closed the connection"
            raise ConnectFailed(text) from cause
        return encrypted


# Proxies.


async def _open_through_proxy(
    proxy: Proxy, url: WebSocketURL, options: DialOptions
) -> trio.abc.Stream:
    """Open a stream through the proxy to the server's host and port."""
    if proxy.scheme.startswith("socks"):
        return await _open_through_socks(proxy, url)
    stream = await _open_tcp(proxy.host, proxy.port)
    if proxy.scheme == "https":
        stream = await _start_tls(stream, None, server_name(proxy.host))
    async with closed_on_failure(stream):
        request = _connect_request(proxy, url, options.user_agent_header)
        status = await _request_tunnel(stream, request, options.max_header_size)
        if not 200 <= status < 300:
            raise ProxyFailed(f"the HTTP proxy refused to connect: status {status}")
        return stream


def _connect_request(proxy: Proxy, url: WebSocketURL, user_agent: str | None) -> bytes:
    # Both the target and the Host header name the port (RFC 9112, sections 3.2 and 3.2.3).
    target = url.host_and_port
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user_agent is not None:
        lines.append(f"User-Agent: {user_agent}")
    if proxy.user_info is not None:
        lines.append(f"Proxy-Authorization: {build_authorization_basic(*proxy.user_info)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _request_tunnel(stream: trio.abc.Stream, request: bytes, max_header_size: int) -> int:
    """Send a CONNECT request; return the status of the response."""
    try:
        await stream.send_all(request)
        return await read_status(stream, max_header_size)
    except (EOFError, *STREAM_ERRORS) as error:
        cause = error.__cause__ or error
        if is_tls_failure(cause):  # TLS 1.3 may reject a client certificate only now
            raise TLSFailed(f"TLS with the HTTP proxy failed: {cause}") from cause
        raise ProxyFailed("the HTTP proxy closed the connection") from cause
    except NotHTTP as error:
        raise ProxyFailed(f"the HTTP proxy's response cannot be read: {error}") from None


async def _open_through_socks(proxy: Proxy, url: WebSocketURL) -> trio.abc.Stream:
    try:
        from python_socks import (  # noqa: PLC0415 - an extra: pip install trioglock[socks]
            ProxyConnectionError,
            ProxyType,
        )
        from python_socks.async_.trio import Proxy as SocksProxy  # noqa: PLC0415
    except ImportError:
        raise InvalidOption(
            f"{proxy.source}: a SOCKS proxy requires an extra: pip install 'trioglock[socks]'; "
            "proxy=None connects directly"
        ) from None
    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    # With socks5h and socks4a the proxy resolves the name.
    remote_names = proxy.scheme in {"socks5h", "socks4a"}
    user, password = proxy.user_info or (None, None)
    client = SocksProxy(kind, proxy.host, proxy.port, user, password, remote_names)
    try:
        # open_timeout limits the time.
        sock = await client.connect(url.host, url.port, timeout=math.inf)
    except ProxyConnectionError as error:
        cause = error.__cause__ or error
        text = f"cannot connect to the proxy {proxy.host}:{proxy.port}: {cause}"
        raise ConnectFailed(text) from cause
    except socket.gaierror as error:
        raise ConnectFailed(f"cannot resolve {url.host}: {error}") from error
    except Exception as error:
        raise ProxyFailed(f"the SOCKS proxy refused to connect: {error}") from error
    return trio.SocketStream(sock)
