"""HTTP and SOCKS proxies (RFC 9110, section 9.3.6; RFC 1928)."""

from __future__ import annotations

import math
import socket
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

import trio
from websockets.exceptions import InvalidProxy
from websockets.headers import build_authorization_basic, build_host
from websockets.proxy import Proxy, get_proxy, parse_proxy

from .._redact import redact_query, without_secrets
from ..errors import ConnectFailed, InvalidOption, ProxyFailed
from .addresses import WebSocketURI, check_host, problem_of
from .http_responses import BROKEN, NotHTTP, read_head
from .tcp import closed_on_failure, open_tcp, start_tls

__all__ = ["check_proxy", "find_proxy", "open_through_proxy"]

_SOCKS_PORT = 1080


def check_proxy(setting: str | Literal[True] | None) -> None:
    """Check the address of a proxy, where one is given.

    Args:
        setting: the option ``proxy`` as it was given.

    Raises:
        InvalidOption: it is none.
    """
    if isinstance(setting, str):
        _parse(setting)


def find_proxy(setting: str | Literal[True] | None, uri: WebSocketURI) -> Proxy | None:
    """The proxy to use: the one given, the environment's for ``True``, or none.

    Raises:
        InvalidOption: it is not the address of a proxy.
    """
    address = get_proxy(uri) if setting is True else setting
    return None if address is None else _parse(address)


def _parse(address: str) -> Proxy:
    try:
        if problem_of(address) is not None:
            raise ValueError
        proxy = parse_proxy(address)
        check_host(proxy.host)
    except (InvalidProxy, ValueError):
        # In our own words: the library's quote the address, and so the password.
        shown = redact_query(without_secrets(address))
        raise InvalidOption(
            f"proxy {shown!r} is not scheme://user:password@host:port, "
            "user and password being optional, with the scheme "
            "http, https, socks5, socks5h, socks4 or socks4a"
        ) from None
    if _is_socks(proxy) and urlsplit(address).port is None:
        return replace(proxy, port=_SOCKS_PORT)
    return proxy


def _is_socks(proxy: Proxy) -> bool:
    return proxy.scheme.startswith("socks")


async def open_through_proxy(
    proxy: Proxy, uri: WebSocketURI, user_agent: str | None
) -> trio.abc.Stream:
    """A stream to the server's host and port that runs through the proxy.

    Raises:
        ConnectFailed: the proxy cannot be reached.
        TLSFailed: it can, but not by TLS.
        ProxyFailed: it refuses, or does not answer as a proxy does.
        InvalidOption: a SOCKS proxy without ``python-socks`` installed.
    """
    if _is_socks(proxy):
        return await _open_through_socks(proxy, uri)
    stream = await open_tcp(proxy.host, proxy.port)
    if proxy.scheme == "https":
        stream = await start_tls(stream, None, proxy.host)
    async with closed_on_failure(stream):
        status = await _ask(stream, _connect_request(proxy, uri, user_agent))
        if not 200 <= status < 300:
            raise ProxyFailed(f"the HTTP proxy refused to connect: status {status}")
        return stream


def _connect_request(proxy: Proxy, uri: WebSocketURI, user_agent: str | None) -> bytes:
    # Both always name the port (RFC 9112, sections 3.2 and 3.2.3).
    target = build_host(uri.host, uri.port, uri.secure, always_include_port=True)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user_agent is not None:
        lines.append(f"User-Agent: {user_agent}")
    if proxy.user_info is not None:
        lines.append(f"Proxy-Authorization: {build_authorization_basic(*proxy.user_info)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _ask(stream: trio.abc.Stream, request: bytes) -> int:
    """Send a request; the status of the answer."""
    try:
        await stream.send_all(request)
        # One byte at a time: what follows the head belongs to the server behind.
        answer = await read_head(stream, 1)
    except (EOFError, *BROKEN) as error:
        raise ProxyFailed("the HTTP proxy hung up") from (error.__cause__ or error)
    except NotHTTP as error:
        raise ProxyFailed(f"the HTTP proxy's answer is not HTTP: {error}") from None
    return answer.response.status_code


async def _open_through_socks(proxy: Proxy, uri: WebSocketURI) -> trio.abc.Stream:
    try:
        from python_socks import (  # noqa: PLC0415 - an extra: pip install trioglock[socks]
            ProxyConnectionError,
            ProxyType,
        )
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
        # The time is open_timeout's to limit.
        sock = await dialer.connect(uri.host, uri.port, timeout=math.inf)
    except ProxyConnectionError as error:
        cause = error.__cause__ or error
        text = f"cannot connect to the proxy {proxy.host}:{proxy.port}: {cause}"
        raise ConnectFailed(text) from cause
    except socket.gaierror as error:
        raise ConnectFailed(f"cannot resolve {uri.host}: {error}") from error
    except Exception as error:
        raise ProxyFailed(f"the SOCKS proxy did not connect us: {error}") from error
    return trio.SocketStream(sock)
