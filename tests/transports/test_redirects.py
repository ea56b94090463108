"""Redirects: which are followed, how many, and what another origin does not get."""

from __future__ import annotations

import base64

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.transports.servers import (
    URL,
    MakeTransport,
    Request,
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


@on_both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_status_is_followed(transport: MakeTransport, status: int) -> None:
    """All redirect statuses are followed; the connection has the final URL."""
    site = Site(status=status)
    with no_leak():
        async with serving(site) as port:
            url = f"ws://127.0.0.1:{port}"
            async with connect(url + "/", transport=transport(), proxy=None) as conn:
                assert conn.handshake is not None
                assert conn.handshake.url == url + "/there"
    assert site.targets == ["/", "/there"]
    # Whatever the status, it stays a handshake.
    assert all(request.line.startswith("GET ") for request in site.requests)
    assert "Sec-WebSocket-Key" in site.requests[1].headers


@on_both
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
    ],
)
async def test_every_form_of_location(transport: MakeTransport, location: str, target: str) -> None:
    """Relative and absolute addresses are followed, ``http`` meaning ``ws``, fragments dropped."""
    site = Site()
    async with serving(site) as port:
        site.location = location.format(port=port)
        async with connect(f"ws://127.0.0.1:{port}/", transport=transport(), proxy=None):
            pass
    assert site.targets == ["/", target]


@on_both
async def test_https_means_wss(transport: MakeTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from ``ws`` to ``https`` is followed with TLS."""
    safe, plain = Site(), Site()
    with authority().cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        async with serving(safe, server_context()) as safe_port, serving(plain) as port:
            plain.location = f"https://127.0.0.1:{safe_port}/there"
            async with connect(
                f"ws://127.0.0.1:{port}/", transport=transport(), proxy=None
            ) as conn:
                assert conn.handshake is not None
                assert conn.handshake.url == f"wss://127.0.0.1:{safe_port}/there"
    assert (plain.targets, safe.targets) == (["/"], ["/there"])


@on_both
async def test_wss_is_never_given_up(transport: MakeTransport) -> None:
    """A redirect from ``wss`` to ``ws`` or ``http`` is refused; the error has the status."""
    plain, safe = Site(), Site()
    with no_leak():
        async with serving(plain) as port, serving(safe, server_context()) as safe_port:
            for scheme in ("ws", "http"):
                safe.location = f"{scheme}://127.0.0.1:{port}/there"
                error = await failure(
                    f"wss://127.0.0.1:{safe_port}/",
                    transport=transport(),
                    ssl_context=client_context(),
                )
                assert isinstance(error, RedirectFailed)
                assert error.status == 302
                assert "encryption" in str(error)
    assert plain.requests == []


@on_both
async def test_scenario_38_max_redirects(transport: MakeTransport) -> None:
    """A loop ends after ``max_redirects``, by default ten, with the last response in the error."""
    site = Site("/")
    with no_leak():
        async with serving(site) as port:
            url = f"ws://127.0.0.1:{port}/"
            error = await failure(url, transport=transport())
            assert isinstance(error, RedirectFailed)
            assert error.headers["Location"] == "/"
            assert "10" in str(error)
            assert len(site.requests) == 11
            error = await failure(url, transport=transport(), max_redirects=2)
            assert isinstance(error, RedirectFailed)
    assert len(site.requests) == 11 + 3


@on_both
async def test_no_redirects(transport: MakeTransport) -> None:
    """With ``max_redirects=0`` a redirect is a refusal like any other."""
    site = Site()
    async with serving(site) as port:
        error = await failure(f"ws://127.0.0.1:{port}/", transport=transport(), max_redirects=0)
    assert type(error) is HandshakeRefused
    assert (error.status, error.headers["Location"]) == (302, "/there")
    assert site.targets == ["/"]


@on_both
async def test_scenario_38_another_origin_learns_nothing(transport: MakeTransport) -> None:
    """Credentials of headers and URL, and a Host given by hand, stay with the first origin."""
    other, first = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        first.location = f"http://127.0.0.1:{other_port}/there"
        for headers in (SECRETS, {"X-Harmless": "yes"}):
            async with connect(
                f"ws://user:password@127.0.0.1:{port}/",
                transport=transport(),
                additional_headers=headers,
                proxy=None,
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
        assert request.headers["Host"] == f"127.0.0.1:{other_port}"


@on_both
async def test_a_hand_made_host_stays_behind(transport: MakeTransport) -> None:
    """A Host header given by hand is not for another origin."""
    other, first = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        first.location = f"ws://127.0.0.1:{other_port}/there"
        async with connect(
            f"ws://127.0.0.1:{port}/",
            transport=transport(),
            additional_headers={"Host": "virtual.example"},
            proxy=None,
        ):
            pass
    assert other.requests[0].headers.get_all("Host") == [f"127.0.0.1:{other_port}"]


@on_both
@pytest.mark.parametrize("location", ["/there", "ws://127.0.0.1:{port}/there"])
async def test_the_same_origin_keeps_credentials(transport: MakeTransport, location: str) -> None:
    """Within one origin all headers and the URL's user are sent again, however it is written."""
    site = Site()
    async with serving(site) as port:
        site.location = location.format(port=port)
        url = f"ws://user:password@127.0.0.1:{port}/"
        async with connect(url, transport=transport(), additional_headers=SECRETS, proxy=None):
            pass
        async with connect(url, transport=transport(), proxy=None):
            pass
    again = site.requests[1].headers
    assert {name: again[name] for name in SECRETS} == SECRETS
    assert site.requests[3].headers["Authorization"] == BASIC


@on_both
async def test_credentials_do_not_come_back(transport: MakeTransport) -> None:
    """Credentials withheld from another origin are not sent after a redirect back either."""
    first, other = Site(), Site()
    async with serving(other) as other_port, serving(first) as port:
        first.location = f"ws://127.0.0.1:{other_port}/"
        other.location = f"ws://127.0.0.1:{port}/there"
        async with connect(
            f"ws://user:password@127.0.0.1:{port}/",
            transport=transport(),
            additional_headers=SECRETS,
            proxy=None,
        ):
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


@on_both
@pytest.mark.parametrize("location", BAD_LOCATIONS)
async def test_a_bad_location(
    transport: MakeTransport, location: str, autojump_clock: MockClock
) -> None:
    """A redirect to an unusable URL is a RedirectFailed."""

    async def dial() -> trio.abc.Stream:
        near, far = memory_stream_pair()
        nursery.start_soon(play, answering(redirect(location)), far)
        return near

    async with trio.open_nursery() as nursery:
        error = await failure(URL, transport=transport(), stream=dial, max_redirects=1)
    assert isinstance(error, RedirectFailed)
    assert not isinstance(error, InvalidURL)
    assert error.status == 302


@on_both
async def test_a_redirect_without_location(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """A redirect without Location is a plain refusal."""
    error, _ = await connect_error(answering(response("302 Found", "Content-Length: 0")), transport)
    assert type(error) is HandshakeRefused


@on_both
async def test_secrets_of_a_location_are_not_shown(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The text of a failed redirect does not contain user information."""
    error, _ = await connect_error(answering(redirect("ws://user:secret@127.0.0.1:0/")), transport)
    assert isinstance(error, RedirectFailed)
    assert "secret" not in str(error)


@on_both
async def test_a_given_stream_cannot_follow(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """An open stream reaches one server only: the redirect is refused, the stream closed."""
    error, _ = await connect_error(answering(redirect("/there")), transport)
    assert isinstance(error, RedirectFailed)
    assert "stream" in str(error)


@on_both
async def test_a_function_can_follow(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """A function opens another stream for the redirected attempt."""
    site = Site()

    async def dial() -> trio.abc.Stream:
        near, far = memory_stream_pair()
        nursery.start_soon(play, site, far)
        return near

    async with (
        trio.open_nursery() as nursery,
        connect(URL, transport=transport(), stream=dial) as conn,
    ):
        assert conn.handshake is not None
        assert conn.handshake.url == URL + "there"
    assert site.targets == ["/", "/there"]


@on_both
async def test_open_timeout_covers_all_redirects(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """``open_timeout`` limits all redirects together."""

    async def script(stream: trio.abc.Stream) -> None:
        await trio.sleep(3)
        await answering(redirect("/"))(stream)

    async def dial() -> trio.abc.Stream:
        near, far = memory_stream_pair()
        nursery.start_soon(play, script, far)
        return near

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        error = await failure(URL, transport=transport(), stream=dial)
        nursery.cancel_scope.cancel()
    assert isinstance(error, TimeoutError)
    assert trio.current_time() - start == pytest.approx(10)
