"""SOCKS proxies, versions 4, 4a and 5."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import trio

from tests.transports.proxies import SOCKSProxy, proxied
from tests.transports.servers import (
    Script,
    client_context,
    failure,
    no_leak,
    resolve_to,
    server_context,
    serving,
)
from trioglock import ConnectFailed, InvalidOption, ProxyFailed, connect


@pytest.mark.parametrize(
    ("scheme", "host", "asked"),
    [
        ("socks5h", "feed.test", (5, "feed.test", 8080)),
        ("socks5", "localhost", (5, "127.0.0.1", 8080)),
        ("socks5", "10.0.0.7", (5, "10.0.0.7", 8080)),
        ("socks4a", "feed.test", (4, "feed.test", 8080)),
        ("socks4", "10.0.0.7", (4, "10.0.0.7", 8080)),
    ],
)
async def test_a_socks_proxy(scheme: str, host: str, asked: tuple[int, str, int]) -> None:
    """SOCKS 4 and 5 connect; the forms with a last letter let the proxy resolve the name."""
    with no_leak():
        async with (
            proxied(SOCKSProxy) as (proxy, address, _),
            connect(f"ws://{host}:8080/", proxy=f"{scheme}://{address}") as conn,
        ):
            assert conn.handshake is not None
    assert proxy.asked[0] == asked


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
async def test_fault_12_the_scheme_socks(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment it is SOCKS4, as for curl."""
    async with proxied(SOCKSProxy) as (proxy, address, _):
        monkeypatch.setenv(variable, f"socks://{address}/")
        async with connect("ws://10.0.0.7:8080/"):
            pass
    assert proxy.asked[0] == (4, "10.0.0.7", 8080)


async def test_socks_with_a_user() -> None:
    """User and password of the proxy's URL authenticate at SOCKS5; wrong ones are refused."""
    make_proxy = partial(SOCKSProxy, user=b"us@er:pass")
    async with proxied(make_proxy) as (proxy, address, _):
        async with connect("ws://feed.test/", proxy=f"socks5h://us%40er:pass@{address}"):
            pass
        error = await failure("ws://feed.test/", proxy=f"socks5h://us%40er:bad@{address}")
    assert type(error) is ProxyFailed
    assert proxy.users == [b"us@er:pass", b"us@er:bad"]


async def test_tls_through_socks() -> None:
    """TLS runs through a SOCKS proxy, for the server's name."""
    context = client_context()
    async with (
        proxied(SOCKSProxy, server_context=server_context("feed.test")) as (_, address, _),
        connect("wss://feed.test/", ssl_context=context, proxy=f"socks5h://{address}") as conn,
    ):
        assert conn.handshake is not None


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
@pytest.mark.parametrize("bad", ["refuses", "garbage", "hangs up"])
async def test_a_bad_socks_proxy(scheme: str, bad: str) -> None:
    """A SOCKS proxy that refuses, responds with garbage or disconnects is ProxyFailed."""

    async def garbage(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    scripts: dict[str, Script] = {
        "refuses": SOCKSProxy(1, refuse=True),
        "garbage": garbage,
        "hangs up": hang_up,
    }
    with no_leak():
        async with serving(scripts[bad]) as port:
            error = await failure("ws://feed.test/", proxy=f"{scheme}://127.0.0.1:{port}")
    assert type(error) is ProxyFailed


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks4a"])
async def test_the_default_port(scheme: str) -> None:
    """Without a port, a SOCKS proxy is looked for at 1080."""
    error = await failure("ws://10.0.0.7/", proxy=f"{scheme}://127.77.77.77")
    assert type(error) is ConnectFailed
    assert "127.77.77.77:1080" in str(error)


async def test_a_name_that_only_the_proxy_could_resolve() -> None:
    """With ``socks5`` the name is ours to resolve; that it cannot be is the network's fault."""
    resolve_to()
    with no_leak():
        async with serving(SOCKSProxy(1)) as port:
            error = await failure("ws://nowhere.test/", proxy=f"socks5://127.0.0.1:{port}")
    assert type(error) is ConnectFailed
    assert "nowhere.test" in str(error)


async def test_socks_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-socks the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    error = await failure("ws://feed.test/", proxy="socks5://127.0.0.1:9")
    assert isinstance(error, InvalidOption)
    assert "trioglock[socks]" in str(error)
