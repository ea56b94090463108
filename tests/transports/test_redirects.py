"""Redirects: which are followed, how many, and what another origin does not get."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.transports.servers import (
    URL,
    MakeTransport,
    Request,
    Script,
    answering,
    authority,
    client_context,
    close,
    connect_error,
    failure,
    no_leak,
    on_both,
    play,
    read_request,
    response,
    server_context,
    serving,
    upgrade,
)
from trioglock import HandshakeRefused, InvalidURL, RedirectFailed, connect

SECRETS = {
    "Authorization": "Bearer token",
    "Cookie": "id=1",
    "X-Api-Key": "key",
    "X-Auth-Token": "token",
    "X-Harmless": "yes",
}
BASIC = "Basic " + base64.b64encode(b"user:password").decode()


def redirect(location: str, status: int = 302) -> bytes:
    return response(f"{status} Over There", f"Location: {location}", "Content-Length: 0")


class Site:
    """A server whose ``/`` redirects to ``location``, and that upgrades everything else."""

    def __init__(self, location: str = "/there", status: int = 302) -> None:
        self.location = location
        self.status = status
        self.requests: list[Request] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        self.requests.append(await read_request(stream))
        if self.requests[-1].target == "/":
            await stream.send_all(redirect(self.location, self.status))
        else:
            await stream.send_all(upgrade(self.requests[-1]))
            await close(stream)

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]


@asynccontextmanager
async def opening(script: Script) -> AsyncIterator[Callable[[], Awaitable[trio.abc.Stream]]]:
    """A function that opens streams to a script in memory."""

    async def open_stream() -> trio.abc.Stream:
        near, far = memory_stream_pair()
        nursery.start_soon(play, script, far)
        return near

    async with trio.open_nursery() as nursery:
        yield open_stream
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_status_is_followed(status: int) -> None:
    """All redirect statuses are followed; the connection has the final URL."""
    site = Site(status=status)
    with no_leak():
        async with serving(site) as port:
            url = f"ws://127.0.0.1:{port}"
            async with connect(url + "/") as conn:
                assert conn.handshake is not None
                assert conn.handshake.url == url + "/there"
    assert site.targets == ["/", "/there"]
    # Whatever the status, it stays a handshake.
    assert all(request.line.startswith("GET ") for request in site.requests)
    assert "Sec-WebSocket-Key" in site.requests[1].headers


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("there", "/there"),
        ("/a/b?c=d", "/a/b?c=d"),
        ("?q=1", "/?q=1"),
        ("//127.0.0.1:{port}/there", "/there"),
        ("ws://127.0.0.1:{port}/there", "/there"),
        ("http://127.0.0.1:{port}/there", "/there"),
        ("HTTP://127.0.0.1:{port}/there", "/there"),
        ("/there#part", "/there"),
        ("WS://127.0.0.1:0{port}/there", "/there"),
    ],
)
async def test_every_form_of_location(location: str, target: str) -> None:
    """Relative and absolute addresses are followed, ``http`` meaning ``ws``, fragments dropped."""
    site = Site()
    async with serving(site) as port:
        site.location = location.format(port=port)
        async with connect(f"ws://127.0.0.1:{port}/"):
            pass
    assert site.targets == ["/", target]


LOCATIONS = [
    ("/a%20b/\u00fc?q=\u20ac", "/a%20b/%C3%BC?q=%E2%82%AC"),
    ("\u00fc", "/%C3%BC"),
    ("/%C3%BC?q=%2F", "/%C3%BC?q=%2F"),
]


@pytest.mark.parametrize(("location", "target"), LOCATIONS)
async def test_fault_07_a_location_is_encoded_once(location: str, target: str) -> None:
    """Also a Location of raw UTF-8."""
    site = Site(location.encode().decode("latin-1"))
    async with serving(site) as port, connect(f"ws://127.0.0.1:{port}/"):
        pass
    assert site.targets == ["/", target]


async def test_fault_07_a_location_that_is_not_utf_8() -> None:
    """Its bytes are percent-encoded as they are."""
    site = Site("/\xfc")  # sent as latin-1
    async with serving(site) as port, connect(f"ws://127.0.0.1:{port}/"):
        pass
    assert site.targets == ["/", "/%FC"]


async def test_https_means_wss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from ``ws`` to ``https`` is followed with TLS."""
    safe, plain = Site(), Site()
    with authority().cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        async with serving(safe, server_context()) as safe_port, serving(plain) as port:
            plain.location = f"https://127.0.0.1:{safe_port}/there"
            async with connect(f"ws://127.0.0.1:{port}/") as conn:
                assert conn.handshake is not None
                assert conn.handshake.url == f"wss://127.0.0.1:{safe_port}/there"
    assert (plain.targets, safe.targets) == (["/"], ["/there"])


async def test_wss_is_never_given_up() -> None:
    """A redirect from ``wss`` to ``ws`` or ``http`` is refused; the error has the status."""
    plain, safe = Site(), Site()
    with no_leak():
        async with serving(plain) as port, serving(safe, server_context()) as safe_port:
            for scheme in ("ws", "http"):
                safe.location = f"{scheme}://127.0.0.1:{port}/there"
                error = await failure(f"wss://127.0.0.1:{safe_port}/", ssl_context=client_context())
                assert isinstance(error, RedirectFailed)
                assert error.status == 302
                assert "encryption" in str(error)
    assert plain.requests == []


async def test_scenario_38_max_redirects() -> None:
    """A loop ends after ``max_redirects``, by default ten, with the last response in the error."""
    site = Site("/")
    with no_leak():
        async with serving(site) as port:
            url = f"ws://127.0.0.1:{port}/"
            error = await failure(url)
            assert isinstance(error, RedirectFailed)
            assert error.headers["Location"] == "/"
            assert "10" in str(error)
            assert len(site.requests) == 11
            error = await failure(url, max_redirects=2)
            assert isinstance(error, RedirectFailed)
    assert len(site.requests) == 11 + 3


async def test_no_redirects() -> None:
    """With ``max_redirects=0`` a redirect is a refusal like any other."""
    site = Site()
    async with serving(site) as port:
        error = await failure(f"ws://127.0.0.1:{port}/", max_redirects=0)
    assert type(error) is HandshakeRefused
    assert (error.status, error.headers["Location"]) == (302, "/there")
    assert site.targets == ["/"]


@on_both
async def test_scenario_38_another_origin_learns_nothing(transport: MakeTransport) -> None:
    """Credentials of headers and URL, and a Host given by hand, stay with the first origin."""
    other, first = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        first.location = f"http://127.0.0.1:{other_port}/there"
        for headers in ({**SECRETS, "Host": "virtual.example"}, {"X-Harmless": "yes"}):
            async with connect(
                f"ws://user:password@127.0.0.1:{port}/",
                transport=transport(),
                additional_headers=headers,
            ):
                pass
    assert first.requests[0].headers["Authorization"] == "Bearer token"
    assert first.requests[0].headers["Cookie"] == "id=1"
    assert first.requests[1].headers["Authorization"] == BASIC
    assert len(other.requests) == 2
    for request in other.requests:
        assert "Authorization" not in request.headers
        assert "Cookie" not in request.headers
        assert "X-Api-Key" not in request.headers
        assert "X-Auth-Token" not in request.headers
        assert request.headers["X-Harmless"] == "yes"
        assert request.headers.get_all("Host") == [f"127.0.0.1:{other_port}"]


@on_both
@pytest.mark.parametrize(
    ("offered", "sent"),
    [
        (["chat", "access_token", "abc-secret"], "chat, access_token"),
        (["phoenix", "base64url.bearer.phx.c2VjcmV0"], "phoenix"),
        (["base64url.bearer.authorization.k8s.io.c2VjcmV0"], None),
        (["eyJhbGciOiJIUzI1NiJ9.e30.c2VjcmV0", "graphql-transport-ws"], "graphql-transport-ws"),
    ],
)
async def test_fault_46_another_origin_gets_no_token(
    offered: list[str], sent: str | None, transport: MakeTransport
) -> None:
    """Tokens among the subprotocols stay with the first origin, as other credentials do."""
    name = "Sec-WebSocket-Protocol"
    other, first = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        for location in ("/there", f"ws://127.0.0.1:{other_port}/there"):
            first.location = location
            url = f"ws://127.0.0.1:{port}/"
            async with connect(url, subprotocols=offered, transport=transport()):
                pass
    assert [request.headers[name] for request in first.requests] == [", ".join(offered)] * 3
    assert other.requests[0].headers.get(name) == sent


@pytest.mark.parametrize(
    "location", ["/there", "ws://127.0.0.1:{port}/there", "HTTP://127.0.0.%31:0{port}/there"]
)
async def test_fault_11_the_same_origin_keeps_credentials(location: str) -> None:
    """Within one origin all headers and the URL's user are sent again, however it is written."""
    site = Site()
    async with serving(site) as port:
        site.location = location.format(port=port)
        url = f"ws://user:password@127.0.0.1:{port}/"
        async with connect(url, additional_headers=SECRETS):
            pass
        async with connect(url):
            pass
    again = site.requests[1].headers
    assert {name: again[name] for name in SECRETS} == SECRETS
    assert site.requests[3].headers["Authorization"] == BASIC


async def test_credentials_do_not_come_back() -> None:
    """Credentials withheld from another origin are not sent after a redirect back either."""
    first, other = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        first.location = f"ws://127.0.0.1:{other_port}/"
        other.location = f"ws://127.0.0.1:{port}/there"
        async with connect(f"ws://user:password@127.0.0.1:{port}/", additional_headers=SECRETS):
            pass
    assert first.targets == ["/", "/there"]
    assert "Authorization" not in first.requests[1].headers
    assert "Cookie" not in first.requests[1].headers


BAD_LOCATIONS = [
    "ftp://127.0.0.1/",
    "mailto:someone@example.org",
    "ws://",
    "ws://127.0.0.1:99999/",
    "ws://127.0.0.1:eighty/",
    "http://[half/",
    "ws://user@127.0.0.1/",
    "/a b",
    "",
]


@pytest.mark.parametrize("location", BAD_LOCATIONS)
async def test_a_bad_location(location: str, autojump_clock: MockClock) -> None:
    """A redirect to an unusable URL is a RedirectFailed."""
    async with opening(answering(redirect(location))) as open_stream:
        error = await failure(URL, stream=open_stream, max_redirects=1)
    assert isinstance(error, RedirectFailed)
    assert not isinstance(error, InvalidURL)
    assert error.status == 302


async def test_a_redirect_without_location(autojump_clock: MockClock) -> None:
    """A redirect without Location is a plain refusal."""
    error, _ = await connect_error(answering(response("302 Found", "Content-Length: 0")))
    assert type(error) is HandshakeRefused


@pytest.mark.parametrize(
    ("location", "text"), [("ws://user:secret@127.0.0.1:0/", "port"), ("/there", "stream")]
)
async def test_a_redirect_that_cannot_be_followed(
    location: str, text: str, autojump_clock: MockClock
) -> None:
    """A given stream reaches one server only. The error does not show user information."""
    error, _ = await connect_error(answering(redirect(location)))
    assert isinstance(error, RedirectFailed)
    assert text in str(error)
    assert "secret" not in str(error)


@on_both
async def test_a_function_can_follow(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """A function opens another stream for the redirected attempt."""
    site = Site()
    async with (
        opening(site) as open_stream,
        connect(URL, transport=transport(), stream=open_stream) as conn,
    ):
        assert conn.handshake is not None
        assert conn.handshake.url == URL + "there"
    assert site.targets == ["/", "/there"]


async def test_open_timeout_covers_all_redirects(autojump_clock: MockClock) -> None:
    """``open_timeout`` limits all redirects together."""

    async def script(stream: trio.abc.Stream) -> None:
        await trio.sleep(3)
        await answering(redirect("/"))(stream)

    start = trio.current_time()
    async with opening(script) as open_stream:
        error = await failure(URL, stream=open_stream)
    assert isinstance(error, TimeoutError)
    assert trio.current_time() - start == pytest.approx(10)
