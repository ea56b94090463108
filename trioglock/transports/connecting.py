"""From a URL to an open byte stream to the server: directly or by proxy, plain or encrypted."""

from __future__ import annotations

import trio

from ..errors import ConnectError, ConnectFailed
from ..options import DialOptions, StreamSource
from .addresses import WebSocketURI
from .proxies import find_proxy, open_through_proxy
from .tcp import open_tcp, start_tls

__all__ = ["open_stream"]


async def open_stream(uri: WebSocketURI, options: DialOptions) -> trio.abc.Stream:
    """A stream to the server, encrypted if the URL says ``wss``.

    Raises:
        ConnectFailed, ProxyFailed, TLSFailed: see there.
        InvalidOption: a proxy that cannot be used.
        Exception: what the user's ``stream`` function raises and is not an OSError.
    """
    stream = await _open_plain(uri, options)
    if not uri.secure:
        return stream
    hostname = options.server_hostname or uri.host
    return await start_tls(stream, options.ssl_context, hostname)


async def _open_plain(uri: WebSocketURI, options: DialOptions) -> trio.abc.Stream:
    source = options.stream
    if source is not None:
        return await _open_given(source)
    proxy = find_proxy(options.proxy, uri)
    if proxy is not None:
        return await open_through_proxy(proxy, uri, options.user_agent_header)
    return await open_tcp(uri.host, uri.port)


async def _open_given(source: StreamSource) -> trio.abc.Stream:
    if isinstance(source, trio.abc.Stream):
        return source
    try:
        return await source()
    except ConnectError:
        raise
    except OSError as error:
        raise ConnectFailed(f"the stream cannot be opened: {error}") from error
