"""URLs: which are accepted, and how they appear to resolver, server and in errors."""

from __future__ import annotations

import base64
import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.cases import case_of
from tests.transports.servers import (
    Deaf,
    MakeTransport,
    Request,
    Unconnected,
    answering,
    client_context,
    failure,
    no_leak,
    on_both,
    resolve_to,
    server_context,
    serving,
    upgrading,
)
from trioglock import ConnectFailed, InvalidOption, InvalidURL, connect

BAD_URLS = {
    "empty": "",
    "no scheme": "example.org/feed",
    "http": "http://example.org/",
    "no host": "ws:///feed",
    "port only": "ws://:80/",
    "port not a number": "ws://example.org:eighty/",
    "port 0": "ws://example.org:0/",
    "port 65536": "ws://example.org:65536/",
    "negative port": "ws://example.org:-1/",
    "fragment": "ws://example.org/#top",
    "space in the host": "ws://exam ple.org/",
    "space in the path": "ws://example.org/a b",
    "space in the query": "ws://example.org/?q=a b",
    "space around": " ws://example.org/",
    "line break in the path": "ws://example.org/a\r\nEvil: 1",
    "NUL in the path": "ws://example.org/\0",
    "NUL in the host": "ws://exam\0ple.org/",
    "user without password": "ws://user@example.org/",
    "half a bracket": "ws://[::1/",
    "not an IPv6 address": "ws://[::zz]/",
    "empty label": "ws://a..b/",
    "label too long": f"ws://{'a' * 64}.org/",
    "name too long": f"ws://{'a.' * 127}org/",
    "only a dot": "ws://./",
    "a backslash before the host": "ws://example.org\\@evil.example/",
    "an encoded slash in the host": "ws://example.org%2F.evil.example/",
    "not UTF-8 in the host": "ws://%ff.example/",
    "a number in brackets": "ws://[1]/",
    "an IPv4 address in brackets": "ws://[127.0.0.1]/",
    "text behind the brackets": "ws://[::1]x/",
    "a zone with a slash": "ws://[fe80::1%25a%2Fb]/",
}


def test_a_bad_url_raises_at_the_call() -> None:
    """``connect`` itself rejects an invalid URL, before ``async with``."""
    for name, url in BAD_URLS.items():
        with case_of(name), pytest.raises(InvalidURL):
            connect(url)


@given(st.text("ws:/?#[]@%25aA.0189-_~\\| \u00fc\u200d\u2100\u3002\ud800", max_size=20))
def test_fault_11_any_text_is_a_url_or_an_invalid_url(text: str) -> None:
    """No other exception is raised, whatever the text."""
    for url in (text, f"ws://{text}"):
        with suppress(InvalidURL):
            connect(url)
        with suppress(InvalidOption):
            connect("ws://h.test/", proxy=url.replace("ws:", "http:"))


@pytest.mark.parametrize("url", [None, 1, ["ws://h/"]])
def test_a_url_is_text(url: Any) -> None:
    """Anything but a str is an InvalidURL."""
    with pytest.raises(InvalidURL):
        connect(url)


@on_both
async def test_user_info_becomes_basic_authentication(transport: MakeTransport) -> None:
    """User and password of the URL reach the server percent-decoded (RFC 7617)."""
    requests: list[Request] = []
    async with serving(upgrading(requests)) as port:
        url = f"ws://us%40er:p%3Ass@127.0.0.1:{port}/"
        async with connect(url, transport=transport()):
            pass
    expected = base64.b64encode(b"us@er:p:ss").decode()
    assert requests[0].headers["Authorization"] == f"Basic {expected}"
    assert requests[0].headers["Host"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("user_info", "problem"),
    [
        ("tenant%3Abo:pw-secret", "colon"),
        ("%00:pw-secret", "control character"),
        ("user:pw-secret%0A", "control character"),
        ("user%7f:pw-secret", "control character"),
    ],
)
def test_fault_08_user_info_that_basic_authentication_forbids(user_info: str, problem: str) -> None:
    """RFC 7617, section 2. ``connect`` itself rejects it, in the URL and in a proxy's."""
    with pytest.raises(InvalidURL, match=problem) as caught:
        connect(f"ws://{user_info}@h.test/")
    assert "secret" not in str(caught.value)
    for scheme in ("http", "https", *(["socks4"] if problem != "colon" else [])):
        with pytest.raises(InvalidOption, match=problem) as refused:
            connect("ws://h.test/", proxy=f"{scheme}://{user_info}@h.test/")
        assert "secret" not in str(refused.value)
    connect("ws://h.test/", proxy="socks5://tenant%3Abo:pw@h.test/")  # RFC 1929 allows it


@on_both
async def test_fault_07_only_characters_outside_of_ascii_are_encoded(
    transport: MakeTransport,
) -> None:
    """RFC 3987, section 3.1: what is encoded already stays as it is."""
    requests: list[Request] = []
    async with serving(upgrading(requests)) as port:
        for target in ("/a%20b/\u00fc?x=%2F\u20ac&y=%zz[]'|", "/a%20b/%C3%BC?q=%25"):
            async with connect(f"ws://127.0.0.1:{port}{target}", transport=transport()):
                pass
    assert [request.target for request in requests] == [
        "/a%20b/%C3%BC?x=%2F%E2%82%AC&y=%zz[]'|",
        "/a%20b/%C3%BC?q=%25",
    ]


NAMES = {
    # IDNA 2003 would map the first three to other names.
    "fa\u00df.test": "xn--fa-hia.test",
    "\u03b2\u03cc\u03bb\u03bf\u03c2.test": "xn--nxasmm1c.test",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3.test": "xn--10cl1a0b660p.test",
    "B\u00dccher.Example": "xn--bcher-kva.example",
    "b\u00fccher\u3002example": "xn--bcher-kva.example",
    "b%C3%BCcher.example": "xn--bcher-kva.example",
    "my_service.b\u00fccher.example": "my_service.xn--bcher-kva.example",
    "XN--FA-HIA.test": "xn--fa-hia.test",
    "My_Service.Test": "my_service.test",
    "ex%61mple.test": "example.test",
}


@on_both
@pytest.mark.parametrize(("written", "asked"), NAMES.items())
async def test_fault_10_names_follow_idna_2008(
    written: str, asked: str, transport: MakeTransport
) -> None:
    """Resolver and server get the name in the form of RFC 5891, and no other domain."""
    resolver = resolve_to("127.0.0.1")
    requests: list[Request] = []
    async with (
        serving(upgrading(requests)) as port,
        connect(f"ws://{written}:{port}/", transport=transport()),
    ):
        pass
    assert resolver.asked == [asked]
    assert requests[0].headers["Host"] == f"{asked}:{port}"


@pytest.mark.parametrize("name", ["\u2603.test", "a\u200db.test", "\u0301.test", "\u2100.test"])
def test_fault_10_a_name_that_idna_2008_forbids(name: str) -> None:
    """It is refused rather than mapped to another name; also in other options with hosts."""
    for url in (f"ws://{name}/", f"ws://{name}:80/x"):
        with pytest.raises(InvalidURL, match=r"IDNA 2008|malformed"):
            connect(url)
    with pytest.raises(InvalidOption):
        connect("ws://h.test/", proxy=f"http://{name}/")
    with pytest.raises(InvalidOption):
        connect("wss://h.test/", server_hostname=name)


HOSTS = {
    "upper case": ("EXAMPLE.test", "example.test", "example.test"),
    "a final dot": ("example.test.", "example.test.", "example.test."),
    "IPv6": ("[0:0::0:1]", "::1", "[::1]"),
    "IPv6 in upper case": ("[2001:DB8::A]", "2001:db8::a", "[2001:db8::a]"),
    "a zone": ("[fe80::1%25eth0]", "fe80::1%eth0", "[fe80::1]"),
    "a bare zone": ("[fe80::1%eth0]", "fe80::1%eth0", "[fe80::1]"),
    "an encoded zone": ("[fe80::1%25e%74h0]", "fe80::1%eth0", "[fe80::1]"),
}


@pytest.mark.parametrize(("written", "asked", "header"), HOSTS.values(), ids=list(HOSTS))
async def test_fault_11_a_host_is_normalized_once(written: str, asked: str, header: str) -> None:
    """For the resolver, for ``Host`` and for a proxy; ports are numbers (RFC 3986, 6874)."""
    resolver = resolve_to("127.0.0.1")
    trio.socket.set_custom_socket_factory(Unconnected())
    requests: list[Request] = []
    async with serving(upgrading(requests)) as port:
        for spelled in (f":{port}", f":000{port}"):
            async with connect(f"WS://{written}{spelled}/"):
                pass
    assert set(resolver.asked) <= {asked}
    assert [request.headers["Host"] for request in requests] == [f"{header}:{port}"] * 2


@on_both
@pytest.mark.parametrize("name", ["Example.TEST.", "fa\u00df.test", "FA%C3%9F.test."])
async def test_fault_11_the_name_for_tls(name: str, transport: MakeTransport) -> None:
    """SNI and the certificate have the name without a final dot (RFC 6066, section 3)."""
    resolve_to("127.0.0.1")
    plain = "example.test" if "x" in name else "xn--fa-hia.test"
    names: list[str] = []
    context = server_context(plain)
    context.sni_callback = lambda _, name, __: names.append(name)
    async with serving(upgrading([]), context) as port:
        for url, server_hostname in (
            (f"wss://{name}:{port}/", None),
            (f"wss://127.0.0.1:{port}/", name.replace("%C3%9F", "\u00df")),
        ):
            async with connect(
                url,
                ssl_context=client_context(),
                server_hostname=server_hostname,
                transport=transport(),
            ):
                pass
    assert names == [plain, plain]


@on_both
async def test_scenario_37_an_ipv6_literal_keeps_its_brackets(transport: MakeTransport) -> None:
    """``ws://[::1]:port/`` connects, and the Host header has the brackets."""
    requests: list[Request] = []
    async with (
        serving(upgrading(requests), host="::1") as port,
        connect(f"ws://[::1]:{port}/", transport=transport()) as conn,
    ):
        assert conn.handshake is not None
        assert conn.handshake.peer == f"[::1]:{port}"
    assert requests[0].headers["Host"] == f"[::1]:{port}"


@on_both
async def test_fault_11_a_default_port_is_left_out(transport: MakeTransport) -> None:
    """The Host header has a port only if it is not the default of the scheme."""
    requests: list[Request] = []
    with trio.fail_after(300):
        for url in (
            "ws://example.test/",
            "ws://example.test:/",
            "ws://example.test:080/?",
            "ws://example.test:443/",
        ):
            near, far = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upgrading(requests), far)
                async with connect(url, transport=transport(), stream=near):
                    pass
    assert [request.headers["Host"] for request in requests] == [
        "example.test",
        "example.test",
        "example.test",
        "example.test:443",
    ]
    assert [request.target for request in requests] == ["/", "/", "/", "/"]


async def test_scenario_37_a_refused_ipv6_address_falls_back() -> None:
    """If the first address of a name refuses, the next one is used."""
    resolve_to("::1", "127.0.0.1")
    with no_leak():
        async with serving(upgrading([])) as port:
            url = f"ws://localhost:{port}/"
            async with connect(url) as conn:
                assert conn.handshake is not None
                assert conn.handshake.peer == f"127.0.0.1:{port}"


async def test_scenario_37_a_silent_ipv6_address_falls_back(mock_clock: MockClock) -> None:
    """If the first address of a name never answers, the next one is used (RFC 8305)."""
    resolve_to("::1", "127.0.0.1")
    trio.socket.set_custom_socket_factory(Deaf(socket.AF_INET6))

    async def let_time_pass() -> None:
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(1)

    async with serving(upgrading([])) as port, trio.open_nursery() as nursery:
        nursery.start_soon(let_time_pass)
        async with connect(f"ws://localhost:{port}/") as conn:
            assert conn.handshake is not None
            assert conn.handshake.peer == f"127.0.0.1:{port}"


async def test_an_unknown_name_is_connect_failed() -> None:
    """A name that does not resolve is a ConnectFailed that contains it."""
    resolve_to()
    error = await failure("ws://nowhere.test/")
    assert isinstance(error, ConnectFailed)
    assert isinstance(error.__cause__, socket.gaierror)
    assert "nowhere.test:80" in str(error)


async def test_connect_failed_is_an_os_error() -> None:
    """A closed port is a ConnectFailed with the system's OSError as its cause."""
    async with serving(answering()) as port:
        pass
    with pytest.raises(OSError, match=str(port)) as caught:
        async with connect(f"ws://127.0.0.1:{port}/"):
            pass
    assert isinstance(caught.value, ConnectFailed)
    assert isinstance(caught.value.__cause__, OSError)
