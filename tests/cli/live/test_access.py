"""Who may publish, watch and open the page; what pages on the internet must not do."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.cases import case_of
from tests.cli.serving import HOST, open_hub
from tests.server.helpers import Answer, plain_request, request
from trioglock import Headers, Request
from trioglock.cli.live import AccessRules, check_token, is_loopback
from trioglock.errors import InvalidOption

TOKEN = "open-sesame"
EVIL = "https://evil.example"
BEARER = f"Bearer {TOKEN}"


async def status_of(data: bytes, host: str = "127.0.0.1", **rules: Any) -> int:
    """The status of the response to a request."""
    return (await answer_to(data, host, **rules)).status


async def answer_to(data: bytes, host: str = "127.0.0.1", **rules: Any) -> Answer:
    async with open_hub(host, **rules) as server:
        client = await server.site.raw()
        await client.send(data)
        head = await client.head()
        await client.stream.aclose()
        return Answer(head)


def handshake(kind: str, **headers: str | None) -> bytes:
    """The opening handshake of a publisher ("publish") or of a page ("live")."""
    given: dict[str, str | None] = {"Host": HOST, **headers}
    return request("/", Sec_WebSocket_Protocol=f"trioglock.{kind}", **given)


FROM_A_PAGE: dict[str, tuple[dict[str, str | None], int]] = {
    "a program": ({}, 101),
    "a page of this server": ({"Origin": f"http://{HOST}"}, 101),
    "a page of this server, by another name": (
        {"Host": "localhost:8020", "Origin": "http://localhost:8020"},
        101,
    ),
    "a final dot and upper case": (
        {"Host": "LOCALHOST.:8020", "Origin": "http://localhost.:8020"},
        101,
    ),
    "another form of an address": ({"Host": "[0:0::1]:8020", "Origin": "http://[::1]:8020"}, 101),
    "a default port": ({"Host": "localhost:80", "Origin": "http://localhost"}, 101),
    "IPv6": ({"Host": "[::1]:8020", "Origin": "http://[::1]:8020"}, 101),
    "a name below localhost": ({"Host": "app.localhost:8020"}, 101),
    "a foreign page": ({"Origin": EVIL}, 403),
    "a page of another port": ({"Origin": "http://127.0.0.1:3000"}, 403),
    "a page of another name for this machine": ({"Origin": "http://localhost:8020"}, 403),
    "a page without an origin, such as a file": ({"Origin": "null"}, 403),
    "an empty origin": ({"Origin": ""}, 403),
    "two origins": ({"Origin": f"http://{HOST}\r\nOrigin: {EVIL}"}, 403),
    "an origin with a path": ({"Origin": f"http://{HOST}/x"}, 403),
    "an extension": ({"Origin": f"chrome-extension://{HOST}"}, 403),
    "rebinding": ({"Host": "evil.example:8020", "Origin": "http://evil.example:8020"}, 421),
    "rebinding, without an origin": ({"Host": "evil.example"}, 421),
    "rebinding that looks like an address": ({"Host": "127.0.0.1.evil.example"}, 421),
    "rebinding that looks like localhost": ({"Host": "localhost.evil.example"}, 421),
    "another address": ({"Host": "192.168.1.5:8020"}, 421),
    "a host that breaks out of a policy": ({"Host": "x;script-src *.localhost"}, 421),
    "two hosts": ({"Host": f"{HOST}\r\nHost: evil.example"}, 421),
}


@pytest.mark.parametrize("host", ["Fa\u00df.Test", "xn--fa-hia.test.", "XN--FA-HIA.test"])
def test_fault_11_the_hosts_of_the_page_are_normalized(host: str) -> None:
    """They are compared with the form in which browsers send them."""
    rules = AccessRules("127.0.0.1", page_hosts=[host])
    asked = Request(target="/", headers=Headers({"Host": "xn--fa-hia.test:8020"}))
    assert rules.refuse_page(asked) is None
    with pytest.raises(InvalidOption, match="is not a valid host name"):
        AccessRules("127.0.0.1", page_hosts=["live.example.org/x"])


async def test_without_a_token() -> None:
    """Only local programs and the server's own page are accepted, under a local name."""
    for kind, (name, (headers, status)) in product(("publish", "live"), FROM_A_PAGE.items()):
        with case_of(kind, name):
            assert await status_of(handshake(kind, **headers)) == status


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_behind_a_proxy_a_token_is_needed(header: str) -> None:
    """Behind a proxy, every client has a local address."""
    headers = {header: "10.0.0.1"}
    assert await status_of(handshake("publish", **headers)) == 403
    with_token = handshake("publish", Authorization=BEARER, **headers)
    assert await status_of(with_token, token=TOKEN) == 101


WITH_A_TOKEN: dict[str, tuple[dict[str, str | None], int]] = {
    "the token": ({"Authorization": BEARER}, 101),
    "by a public name": ({"Authorization": BEARER, "Host": "live.example.org"}, 101),
    "in small letters": ({"Authorization": f"bearer {TOKEN}"}, 101),
    "from a page of this server": ({"Authorization": BEARER, "Origin": f"http://{HOST}"}, 101),
    "none": ({}, 401),
    "a wrong one": ({"Authorization": "Bearer open-sesamE"}, 401),
    "a part of it": ({"Authorization": "Bearer open"}, 401),
    "an empty one": ({"Authorization": "Bearer "}, 401),
    "another scheme": ({"Authorization": f"Basic {TOKEN}"}, 401),
    "two": ({"Authorization": f"{BEARER}\r\nAuthorization: {BEARER}"}, 401),
    "no ASCII": ({"Authorization": "Bearer \xe9"}, 401),
    "from a foreign page": ({"Authorization": BEARER, "Origin": EVIL}, 403),
    "rebinding has no token": ({"Host": "evil.example", "Origin": "http://evil.example"}, 401),
}


async def test_with_a_token() -> None:
    """With the token, all clients except pages from other origins may publish."""
    for host, (name, (headers, status)) in product(("127.0.0.1", "0.0.0.0"), WITH_A_TOKEN.items()):
        with case_of(host, name):
            assert await status_of(handshake("publish", **headers), host, token=TOKEN) == status


async def test_without_a_token_on_a_public_address() -> None:
    """A server that others can reach refuses publishers."""
    for host in ("0.0.0.0", "::", "192.168.1.5", "live.example.org", ""):
        answer = await answer_to(handshake("publish", Host=f"{host or 'x'}:8020"), host)
        assert answer.status == 403


async def test_a_subprotocol_cannot_be_smuggled_in() -> None:
    """In a second header, or after another name: it is refused, or not selected."""
    headers: dict[str, str | None] = {"Host": HOST, "Origin": EVIL}
    among = request("/", Sec_WebSocket_Protocol="chat, trioglock.publish", **headers)
    assert await status_of(among) == 403
    for first in ("chat", "trioglock.publish"):
        second = {"chat": "trioglock.publish", "trioglock.publish": "chat"}[first]
        twice = f"{first}\r\nSec-WebSocket-Protocol: {second}"
        answer = await answer_to(request("/", Sec_WebSocket_Protocol=twice, **headers))
        assert answer.status in (101, 403)
        assert "sec-websocket-protocol" not in answer.headers


SHOP = "https://shop.example"

# The address that the server listens on, the origins that it allows, an origin, and the status.
ORIGINS: dict[str, tuple[str, tuple[str, ...], str | None, int]] = {
    "a program": ("127.0.0.1", (), None, 101),
    "a program, with a list": ("0.0.0.0", (SHOP,), None, 101),
    "a page of this server": ("127.0.0.1", (), f"http://{HOST}", 101),
    "a page of another port": ("127.0.0.1", (), "http://localhost:3000", 101),
    "a page below localhost": ("localhost", (), "https://app.localhost", 101),
    "IPv6": ("::1", (), "http://[::1]:3000", 101),
    "a foreign page": ("127.0.0.1", (), EVIL, 403),
    "rebinding": ("127.0.0.1", (), "http://live.example.org:8020", 403),
    "an address of the network": ("127.0.0.1", (), "http://192.168.1.5:8020", 403),
    "a name like localhost": ("127.0.0.1", (), "http://localhost.evil.example", 403),
    "an address in a name": ("127.0.0.1", (), "http://127.0.0.1.evil.example", 403),
    "a user like an address": ("127.0.0.1", (), "http://evil.example@127.0.0.1", 403),
    "a sandbox": ("127.0.0.1", (), "null", 403),
    "an extension": ("127.0.0.1", (), "chrome-extension://localhost", 403),
    "an empty one": ("127.0.0.1", (), "", 403),
    "no URL": ("127.0.0.1", (), "http://[", 403),
    "two": ("127.0.0.1", (SHOP,), f"{SHOP}\r\nOrigin: {EVIL}", 403),
    "allowed": ("127.0.0.1", (SHOP,), SHOP, 101),
    "allowed, local": ("127.0.0.1", (SHOP,), "http://localhost:3000", 101),
    "another one": ("127.0.0.1", (SHOP,), EVIL, 403),
    "a sandbox, allowed": ("127.0.0.1", ("null",), "null", 101),
    "all": ("127.0.0.1", ("*",), EVIL, 101),
    "the network": ("0.0.0.0", (), EVIL, 101),
    "the network, allowed": ("0.0.0.0", (SHOP, "https://b.example"), "https://b.example", 101),
    "the network, another one": ("0.0.0.0", (SHOP,), EVIL, 403),
    "the network, a page of its machine": ("0.0.0.0", (SHOP,), "http://localhost:3000", 403),
}


async def test_fault_44_pages_of_other_origins() -> None:
    """On a loopback address, only allowed pages and those of this machine may subscribe."""
    for name, (host, origins, origin, status) in ORIGINS.items():
        with case_of(name):
            given = request("/orders", Host="live.example.org:8020", Origin=origin)
            assert await status_of(given, host, origins=origins) == status


async def test_fault_44_a_refused_page_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A browser does not show the response: the log names the option."""
    async with open_hub() as server:
        for origin in (EVIL, EVIL, *(f"http://{number}.example" for number in range(50))):
            client = await server.site.raw()
            await client.send(request("/", Origin=origin))
            await client.head()
            await client.stream.aclose()
    texts = [record.getMessage() for record in caplog.records if record.name == "trioglock.serve"]
    assert (
        texts[0]
        == f"refused a connection from a page of {EVIL}; to allow this origin, pass --origin"
    )
    assert len(texts) == len(set(texts)) == 20


async def test_the_page_may_connect_without_being_listed() -> None:
    """With a list of origins, the server's own page is allowed as well."""
    headers: dict[str, str | None] = {"Host": "192.168.1.5:80", "Origin": "http://192.168.1.5"}
    for data in (request("/news", **headers), handshake("live", **headers)):
        assert await status_of(data, "0.0.0.0", page=True, origins=(SHOP,)) == 101


async def test_an_unknown_subprotocol_is_not_selected() -> None:
    """The connection is accepted without one."""
    answer = await answer_to(request(Sec_WebSocket_Protocol="chat", Host=HOST))
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers


PAGES: dict[str, tuple[str, dict[str, object], str, int]] = {
    "this machine": ("127.0.0.1", {}, HOST, 200),
    "its name": ("localhost", {}, "localhost:8020", 200),
    "rebinding": ("127.0.0.1", {}, "evil.example", 421),
    "switched off": ("127.0.0.1", {"page": False}, HOST, 426),
    "the network": ("0.0.0.0", {}, "192.168.1.5:8020", 426),
    "the network, switched on": ("0.0.0.0", {"page": True}, "192.168.1.5:8020", 200),
    "the network, rebinding": ("0.0.0.0", {"page": True}, "evil.example:8020", 421),
    "a name": ("live.internal", {"page": True}, "live.internal:8020", 200),
    "a proxy": ("127.0.0.1", {"page_hosts": ("live.example.org",)}, "live.example.org", 200),
}


@pytest.mark.parametrize(("host", "rules", "asked", "status"), PAGES.values(), ids=list(PAGES))
async def test_the_page(host: str, rules: dict[str, object], asked: str, status: int) -> None:
    """Where there is a page, and under which names."""
    data = plain_request("/").replace(b"Host: memory.test", f"Host: {asked}".encode())
    assert await status_of(data, host, **rules) == status


async def test_the_policy_of_the_page() -> None:
    """It allows its own script, style and server, and no frame. No other path has a page."""
    here = plain_request("/").replace(b"memory.test", HOST.encode())
    answer = await answer_to(here)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"connect-src 'self' ws://{HOST} wss://{HOST}" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert await status_of(here.replace(b"GET / ", b"HEAD / ")) == 200
    assert await status_of(here.replace(b"GET / ", b"POST / ")) == 405
    assert await status_of(here.replace(b"GET / ", b"GET /news ")) == 426


def test_check_token() -> None:
    """A token must fit into a header; the error does not contain it."""
    assert check_token(None) is None
    assert check_token(TOKEN) == TOKEN
    for bad in ("", "with space", "line\nbreak", "gr\xfc\xdfe"):
        with pytest.raises(InvalidOption, match="visible ASCII") as caught:
            check_token(bad)
        assert not bad or bad not in str(caught.value)


def test_is_loopback() -> None:
    """Addresses and names; a name that only starts like one is not local."""
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "a.localhost"):
        assert is_loopback(host)
    for host in ("", "0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "notlocalhost"):
        assert not is_loopback(host)
    assert not AccessRules("0.0.0.0").allows_publishing
    assert not AccessRules("127.0.0.1").is_token("")
    assert not AccessRules("127.0.0.1").is_token(None)
