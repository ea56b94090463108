"""HTTP proxies: CONNECT, the source of the address, and failures."""

from __future__ import annotations

import base64
import ssl
from functools import partial
from typing import Any

import pytest
import trio

from tests.cases import case_of
from tests.transports.proxies import HTTPProxy, proxied
from tests.transports.servers import (
    MakeTransport,
    Script,
    Unconnected,
    answering,
    authority,
    client_context,
    failure,
    hold,
    no_leak,
    on_both,
    resolve_to,
    server_context,
    serving,
    upgrading,
)
from trioglock import ConnectFailed, InvalidOption, ProxyFailed, connect


@on_both
async def test_an_http_proxy(transport: MakeTransport) -> None:
    """CONNECT names host and port, and the proxy resolves the name."""
    url = "ws://user:password@feed.test:8080/path"
    with no_leak():
        async with (
            proxied(HTTPProxy) as (proxy, address, requests),
            connect(url, transport=transport(), proxy=f"http://{address}") as conn,
        ):
            assert conn.handshake is not None
    assert proxy.requests[0].line == "CONNECT feed.test:8080 HTTP/1.1"
    assert proxy.requests[0].headers["Host"] == "feed.test:8080"
    # The proxy does not get headers that are meant for the server.
    assert "Authorization" not in proxy.requests[0].headers
    assert "Proxy-Authorization" not in proxy.requests[0].headers
    assert requests[0].line == "GET /path HTTP/1.1"
    assert requests[0].headers["Host"] == "feed.test:8080"
    assert "Proxy-Authorization" not in requests[0].headers


async def test_fault_13_a_proxy_may_send_interim_responses() -> None:
    """The bytes after its response belong to the server."""
    status = b"100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK"
    async with (
        proxied(partial(HTTPProxy, status=status)) as (_, address, requests),
        connect("ws://feed.test/", proxy=f"http://{address}"),
    ):
        assert len(requests) == 1


async def test_fault_16_the_head_of_a_proxy_has_the_same_limit() -> None:
    """``max_header_size``."""
    status = b"200 OK\r\nX: " + b"x" * 20_000
    async with proxied(partial(HTTPProxy, status=status)) as (_, address, requests):
        async with connect("ws://feed.test/", proxy=f"http://{address}"):
            assert len(requests) == 1
        error = await failure("ws://feed.test/", proxy=f"http://{address}", max_header_size=1000)
    assert isinstance(error, ProxyFailed)
    assert "larger than 1000 bytes; increase max_header_size to allow more" in str(error)


@pytest.mark.parametrize("host", ["feed.test", "[::1]"])
async def test_scenario_38_connect_always_names_the_port(host: str) -> None:
    """Also a default port is in the target and in the Host header of CONNECT (RFC 9110, 7.2)."""
    async with (
        proxied(HTTPProxy) as (proxy, address, _),
        connect(f"ws://{host}/", proxy=f"http://{address}"),
    ):
        pass
    assert proxy.requests[0].target == f"{host}:80"
    assert proxy.requests[0].headers["Host"] == f"{host}:80"


@pytest.mark.parametrize("user_agent", ["Mine/1", None])
async def test_the_proxy_gets_the_same_user_agent(user_agent: str | None) -> None:
    """CONNECT carries the connection's user agent, or none, and no other library's name."""
    async with proxied(HTTPProxy) as (proxy, address, _):
        proxy_url = f"http://{address}"
        async with connect("ws://feed.test/", proxy=proxy_url, user_agent_header=user_agent):
            pass
    assert proxy.requests[0].headers.get("User-Agent") == user_agent


async def test_tls_through_a_proxy() -> None:
    """With ``wss`` the tunnel carries TLS for the server's name."""
    context = client_context()
    with no_leak():
        async with proxied(HTTPProxy, server_context=server_context("feed.test")) as running:
            proxy, address, requests = running
            async with connect("wss://feed.test/", ssl_context=context, proxy=f"http://{address}"):
                pass
    assert proxy.requests[0].target == "feed.test:443"
    assert requests[0].headers["Host"] == "feed.test"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_an_https_proxy(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the proxy may use TLS, and TLS to the server runs inside it."""
    context = server_context("feed.test") if scheme == "wss" else None
    with authority().cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        async with (
            proxied(HTTPProxy, server_context=context, proxy_context=server_context()) as running,
            connect(
                f"{scheme}://feed.test/",
                ssl_context=client_context() if scheme == "wss" else None,
                proxy=f"https://{running[1]}",
            ) as conn,
        ):
            assert conn.handshake is not None


async def test_basic_authentication() -> None:
    """User and password of the proxy's URL go to the proxy, and only there."""
    async with (
        proxied(HTTPProxy) as (proxy, address, requests),
        connect("ws://feed.test/", proxy=f"http://us%40er:pass@{address}"),
    ):
        pass
    expected = "Basic " + base64.b64encode(b"us@er:pass").decode()
    assert proxy.requests[0].headers["Proxy-Authorization"] == expected
    assert "Proxy-Authorization" not in requests[0].headers
    assert "Authorization" not in requests[0].headers


async def endless(stream: trio.abc.Stream) -> None:
    await answering(b"HTTP/1.1 200 OK\r\n")(stream)
    while True:
        await stream.send_all(b"X: y\r\n" * 100)


BAD_PROXIES: dict[str, Script] = {
    "refuses": answering(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 2\r\n\r\nno"),
    "cannot reach it": answering(b"HTTP/1.0 502 Bad Gateway\r\n\r\n"),
    "redirects": answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "garbage": answering(bytes(range(32, 127)) + b"\r\n\r\n"),
    "binary garbage": answering(bytes(range(256)) * 40),
    "endless headers": endless,
    "a long line": answering(b"HTTP/1.1 200 " + b"x" * 20_000),
    "a bad header": answering(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    "hangs up": answering(),
    "hangs up half-way": answering(b"HTTP/1.1 200 OK\r\n"),
}


@pytest.mark.parametrize("bad", BAD_PROXIES)
@pytest.mark.slow
async def test_a_bad_proxy(bad: str) -> None:
    """A proxy that refuses, responds with garbage or disconnects is ProxyFailed immediately."""
    with no_leak():
        async with serving(BAD_PROXIES[bad]) as port:
            proxy = f"http://user:secret@127.0.0.1:{port}"
            error = await failure("ws://feed.test/", proxy=proxy, open_timeout=300)
    assert type(error) is ProxyFailed
    assert "secret" not in str(error)
    if bad == "refuses":
        assert "407" in str(error)


async def test_an_https_proxy_must_be_trusted() -> None:
    """A proxy with an untrusted certificate is a TLSFailed with OpenSSL's text."""
    with no_leak():
        async with serving(hold, server_context()) as port:
            error = await failure("ws://feed.test/", proxy=f"https://127.0.0.1:{port}")
    assert isinstance(error.__cause__, ssl.SSLError)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h", "socks4"])
async def test_an_unreachable_proxy(scheme: str) -> None:
    """A proxy that does not listen is a ConnectFailed that names it."""
    async with serving(hold) as port:
        pass
    with no_leak():
        error = await failure("ws://10.0.0.7/", proxy=f"{scheme}://127.0.0.1:{port}")
    assert type(error) is ConnectFailed
    assert f"127.0.0.1:{port}" in str(error)


BAD_ADDRESSES: list[Any] = [
    "ftp://user:secret@127.0.0.1/",
    "127.0.0.1:8080",
    "http://",
    "http://127.0.0.1:99999",
    "http://127.0.0.1/path",
    "http://user:secret@127.0.0.1/?q",
    "http://secret@127.0.0.1",
    "http://user:secret@[half",
    "http://user:x/secret@127.0.0.1:8080",
    "http://us%ffer:secret@127.0.0.1",
    "user:secret@127.0.0.1:8080",
    "http://127.0.0.1:0",
    "http://a b",
    "http://a..b",
    "",
    False,
    8080,
]


def test_a_bad_proxy_address_raises_at_the_call() -> None:
    """An invalid proxy URL is an InvalidOption, without its secrets."""
    for proxy in BAD_ADDRESSES:
        with case_of(proxy):
            with pytest.raises(InvalidOption) as caught:
                connect("ws://feed.test/", proxy=proxy)
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [
        ("ws", "all_proxy"),
        ("wss", "ALL_PROXY"),
        ("ws", "http_proxy"),
        ("ws", "HTTPS_PROXY"),
        ("wss", "https_proxy"),
        ("wss", "HTTPS_PROXY"),
        ("ws", "ws_proxy"),
        ("wss", "wss_proxy"),
    ],
)
async def test_the_environment(scheme: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the usual variables name the proxy."""
    secure = scheme == "wss"
    context = server_context("feed.test") if secure else None
    async with proxied(HTTPProxy, server_context=context) as (proxy, address, _):
        monkeypatch.setenv(variable, f"http://{address}")
        trust = client_context() if secure else None
        async with connect(f"{scheme}://feed.test/", ssl_context=trust):
            pass
    assert proxy.requests[0].target == f"feed.test:{443 if secure else 80}"


async def test_http_proxy_is_not_for_wss(monkeypatch: pytest.MonkeyPatch) -> None:
    """``http_proxy`` alone does not concern encrypted connections."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with (
        serving(upgrading([]), server_context()) as port,
        connect(f"wss://127.0.0.1:{port}/", ssl_context=client_context()),
    ):
        pass


# An excluded URL, and entries of no_proxy. Those of the second list do not exclude it.
EXCLUSIONS: list[tuple[str, list[str], list[str]]] = [
    (
        "ws://10.1.2.3:8020/",
        [
            "10.0.0.0/8",
            "10.1.2.3",
            "10.1.2.3:8020",
            "a.test,10.1.0.0/16",
            "10.9.9.9/8",
            "*",
            "x, *",
        ],
        ["10.1.2.0/25:80", "10.1.2.3:80", "11.0.0.0/8", "3", "2.3", "::/0", "10.1.2.4"],
    ),
    (
        "ws://[2001:db8::5]/",
        ["2001:db8::/32", "[2001:DB8:0::5]", "2001:db8::5", "[2001:db8::5]:80", "[2001:db8::]/32"],
        ["[2001:db8::5]:443", "2001:db9::/32", "0.0.0.0/0"],
    ),
    (
        "wss://Feed.Example.test./",
        [
            "example.test",
            ".example.test",
            "*.example.test",
            "EXAMPLE.test.",
            "feed.example.test:443",
            "x example.test",
            "x,\texample.test ",
        ],
        ["ample.test", "feed.example.test:80", "a.feed.example.test", "example"],
    ),
    ("ws://fa\u00df.test/", ["fa\u00df.test", "xn--fa-hia.test"], ["fass.test"]),
    ("ws://[fe80::1%25lo]/", ["fe80::/10", "fe80::1"], ["fe80::1:0/112"]),
]


@pytest.mark.parametrize(("url", "excluding", "others"), EXCLUSIONS)
async def test_fault_12_no_proxy_as_curl_reads_it(
    url: str, excluding: list[str], others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Domains with their subdomains, addresses and networks, all of them perhaps with a port."""
    resolve_to("127.0.0.1")
    reached: list[tuple[str, int]] = []

    async def connect_to(address: tuple[str, int]) -> None:
        await trio.lowlevel.checkpoint()
        reached.append(address[:2])
        raise ConnectionRefusedError

    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:3128")
    trio.socket.set_custom_socket_factory(Unconnected(connect_to))
    for no_proxy in (*excluding, *others):
        monkeypatch.setenv("no_proxy", no_proxy)
        reached.clear()
        assert isinstance(await failure(url), ConnectFailed)
        direct = reached != [("192.0.2.1", 3128)]
        assert direct is (no_proxy in excluding), no_proxy


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "example.org,127.0.0.1", "127.0.0.1:{port}"])
async def test_no_proxy(exempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``no_proxy`` exempts hosts, hosts with a port, or all."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with serving(upgrading([])) as port:
        monkeypatch.setenv("no_proxy", exempt.format(port=port))
        async with connect(f"ws://127.0.0.1:{port}/"):
            pass


async def test_none_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``proxy=None`` connects directly, even if the environment names a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with serving(upgrading([])) as port, connect(f"ws://127.0.0.1:{port}/", proxy=None):
        pass


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"])
async def test_fault_12_a_proxy_without_a_scheme(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment ``host:port`` is an HTTP proxy, as for curl."""
    async with proxied(HTTPProxy) as (proxy, address, _):
        monkeypatch.setenv(variable, address)
        async with connect("ws://feed.test/"):
            pass
    assert proxy.requests[0].target == "feed.test:80"


UNREADABLE = [
    ("http_proxy", "ftp://user:secret@127.0.0.1/"),
    ("HTTPS_PROXY", "http://user:x/secret@127.0.0.1:1"),
    ("all_proxy", "http://te%3Anant:secret@127.0.0.1:1"),
    ("ws_proxy", "127.0.0.1:secret"),
    ("no_proxy", "feed.test, 10.0.0.0/99"),
    ("NO_PROXY", "[::1]x"),
]


@pytest.mark.parametrize(("variable", "value"), UNREADABLE)
async def test_fault_12_a_variable_that_cannot_be_read(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, with its name and without secrets, and ignored."""
    monkeypatch.setenv("socks_proxy", "")
    monkeypatch.setenv(variable, value)
    async with serving(upgrading([])) as port:
        for _ in range(2):
            async with connect(f"ws://127.0.0.1:{port}/"):
                pass
    [record] = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "trioglock.client")
    assert variable.lower() in record.getMessage().lower()
    assert "secret" not in record.getMessage()


async def test_fault_12_the_next_variable_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that cannot be read does not hide the others."""
    async with proxied(HTTPProxy) as (proxy, address, _):
        monkeypatch.setenv("http_proxy", "gopher://x")
        monkeypatch.setenv("all_proxy", f"http://{address}")
        async with connect("ws://feed.test/"):
            pass
    assert proxy.requests[0].target == "feed.test:80"
    assert "http_proxy" in caplog.text
