"""URLs: which are accepted, and how they appear to resolver, server and in errors."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.transports.servers import (
    Deaf,
    MakeTransport,
    Request,
    answering,
    failure,
    no_leak,
    on_both,
    resolve_to,
    serving,
    upgrading,
)
from trioglock import ConnectFailed, InvalidURL, connect

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
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS.keys())
def test_a_bad_url_raises_at_the_call(url: str) -> None:
    """``connect`` itself rejects an invalid URL, before ``async with``."""
    with pytest.raises(InvalidURL):
        connect(url)


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


@on_both
async def test_international_names_are_encoded(transport: MakeTransport) -> None:
    """Names, paths and queries outside of ASCII are sent as IDNA and percent-encoded UTF-8."""
    resolver = resolve_to("127.0.0.1")
    requests: list[Request] = []
    async with serving(upgrading(requests)) as port:
        url = f"ws://b\u00fccher.example:{port}/caf\u00e9?q=\u20ac"
        async with connect(url, transport=transport()):
            pass
    assert resolver.asked == ["xn--bcher-kva.example"]
    assert requests[0].headers["Host"] == f"xn--bcher-kva.example:{port}"
    assert requests[0].target == "/caf%C3%A9?q=%E2%82%AC"


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
async def test_a_default_port_is_left_out(transport: MakeTransport) -> None:
    """The Host header has a port only if it is not the default of the scheme."""
    requests: list[Request] = []
    with trio.fail_after(10):
        for url in ("ws://example.test/", "ws://example.test:80/?", "ws://example.test:443/"):
            near, far = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upgrading(requests), far)
                async with connect(url, transport=transport(), stream=near):
                    pass
    assert [request.headers["Host"] for request in requests] == [
        "example.test",
        "example.test",
        "example.test:443",
    ]
    assert [request.target for request in requests] == ["/", "/", "/"]


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
