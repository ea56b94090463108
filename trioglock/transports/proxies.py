"""HTTP and SOCKS proxies (RFC 9110, section 9.3.6; RFC 1928)."""

from __future__ import annotations

from typing import Literal

import trio
from websockets.exceptions import InvalidProxy
from websockets.http11 import USER_AGENT, Response
from websockets.proxy import Proxy, get_proxy, parse_proxy, prepare_connect_request
from websockets.streams import StreamReader

from ..errors import InvalidOption, ProxyFailed
from .addresses import WebSocketURI, without_user_info
from .tcp import closed_on_failure, open_tcp, start_tls

__all__ = ["find_proxy", "open_through_proxy"]


def find_proxy(setting: str | Literal[True] | None, uri: WebSocketURI) -> Proxy | None:
    """The proxy to use: the one given, the environment's for ``True``, or none.

    Raises:
        InvalidOption: it is not the address of a proxy.
    """
    address = get_proxy(uri) if setting is True else setting
    if address is None:
        return None
    try:
        return parse_proxy(address)
    except (InvalidProxy, ValueError) as error:
        problem = getattr(error, "msg", error)
        raise InvalidOption(f"proxy {without_user_info(address)!r}: {problem}") from None


async def open_through_proxy(proxy: Proxy, uri: WebSocketURI) -> trio.abc.Stream:
    """A stream to the server's host and port that runs through the proxy.

    Raises:
        ConnectFailed: the proxy cannot be reached.
        ProxyFailed: it refuses, or does not answer as a proxy does.
        InvalidOption: a SOCKS proxy without ``python-socks`` installed.
    """
    if proxy.scheme.startswith("socks"):
        return await _open_through_socks(proxy, uri)
    stream = await open_tcp(proxy.host, proxy.port)
    if proxy.scheme == "https":
        stream = await start_tls(stream, None, proxy.host)
    async with closed_on_failure(stream):
        try:
            await stream.send_all(prepare_connect_request(proxy, uri, USER_AGENT))
            status = await _read_status(stream)
        except trio.BrokenResourceError as error:
            raise ProxyFailed("the HTTP proxy hung up") from error
        if not 200 <= status < 300:
            raise ProxyFailed(f"the HTTP proxy refused to connect: status {status}")
    return stream


async def _read_status(stream: trio.abc.Stream) -> int:
    reader = StreamReader()
    parser = Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof, proxy=True)
    try:
        next(parser)
        while True:
            # One byte at a time: what follows the response belongs to the server behind.
            data = await stream.receive_some(1)
            if data:
                reader.feed_data(data)
            else:
                reader.feed_eof()
            next(parser)
    except StopIteration as done:
        response: Response = done.value
        return response.status_code
    except (EOFError, ValueError, LookupError, NotImplementedError) as error:
        raise ProxyFailed("the HTTP proxy's answer is not HTTP") from error


async def _open_through_socks(proxy: Proxy, uri: WebSocketURI) -> trio.abc.Stream:
    try:
        from python_socks import ProxyType  # noqa: PLC0415 - an extra: pip install trioglock[socks]
        from python_socks.async_.trio import Proxy as SocksProxy  # noqa: PLC0415
    except ImportError:
        raise InvalidOption(
            "a SOCKS proxy needs the extra: pip install 'trioglock[socks]'"
        ) from None
    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    # The forms with a last letter (socks5h, socks4a) let the proxy resolve the name.
    remote_names = proxy.scheme in {"socks5h", "socks4a"}
    dialer = SocksProxy(kind, proxy.host, proxy.port, proxy.username, proxy.password, remote_names)
    try:
        sock = await dialer.connect(uri.host, uri.port)
    except Exception as error:
        raise ProxyFailed(f"the SOCKS proxy did not connect us: {error}") from error
    return trio.SocketStream(sock)
