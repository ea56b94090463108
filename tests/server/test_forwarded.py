"""The headers of trusted proxies: ``Forwarded`` and ``X-Forwarded-*``."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from tests.cases import case_of
from tests.server.helpers import RawClient, logged, request, serving
from trioglock import Connection, InvalidOption, Request, Response, serve
from trioglock.headers import Headers
from trioglock.server.client_address import make_address
from trioglock.server.forwarded import ForwardedHeaders, check_proxies

PROXY = "10.1.2.3"
TRUSTED = "10.0.0.0/8"


def apply(trusted: Any, peer: str, *headers: tuple[str, str]) -> Request:
    """The request that the server handles, of a client with this address."""
    proxies = check_proxies(trusted)
    assert proxies is not None
    client = make_address(peer, 1234)
    received = Request(
        target="/", headers=Headers([("Host", "inside"), *headers]), peer=client.name
    )
    request, address = ForwardedHeaders(proxies).apply(received, client)
    assert request.peer == address.name
    return request


def x_for(value: str) -> tuple[str, str]:
    return "X-Forwarded-For", value


def forwarded(value: str) -> tuple[str, str]:
    return "Forwarded", value


NAMED = [
    (x_for("203.0.113.7"), "203.0.113.7"),
    (x_for("203.0.113.7:56"), "203.0.113.7:56"),
    (x_for("2001:DB8::7"), "[2001:db8::7]"),
    (x_for("[2001:db8::7]"), "[2001:db8::7]"),
    (x_for("[2001:db8::7]:56"), "[2001:db8::7]:56"),
    (x_for("::ffff:203.0.113.7"), "203.0.113.7"),
    (forwarded("for=203.0.113.7"), "203.0.113.7"),
    # RFC 7239, section 4.
    (forwarded('For="[2001:db8:cafe::17]:4711"'), "[2001:db8:cafe::17]:4711"),
    (forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60"),
    (forwarded('for="192.0.2.43:_abc"'), "192.0.2.43"),
    (forwarded('for="[2001:db8::7]:_a.b-c"'), "[2001:db8::7]"),
    # Empty pairs, and empty elements (RFC 9110, section 5.6.1.2).
    (forwarded("for=192.0.2.60;"), "192.0.2.60"),
    (forwarded(" ; ;for=192.0.2.60 ; ;proto=http"), "192.0.2.60"),
    (forwarded("for=192.0.2.60, ,"), "192.0.2.60"),
    (x_for("192.0.2.60,"), "192.0.2.60"),
    (x_for("192.0.2.60, ,"), "192.0.2.60"),
]


def test_a_trusted_proxy_names_the_client() -> None:
    proxies = (TRUSTED, ip_network(TRUSTED), ["::/0", TRUSTED], PROXY, 1)
    for trusted, (header, peer) in product(proxies, NAMED):
        with case_of(trusted, header):
            assert apply(trusted, PROXY, header).peer == peer


@pytest.mark.parametrize("header", [x_for("203.0.113.7"), forwarded("for=203.0.113.7;proto=https")])
def test_headers_from_other_clients_have_no_effect(header: tuple[str, str]) -> None:
    extra = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.test")]
    asked = apply(TRUSTED, "192.0.2.1", header, *extra)
    assert (asked.peer, asked.secure) == ("192.0.2.1:1234", False)
    assert asked.headers["Host"] == "inside"


FORGED = [
    "1.2.3.4",
    "10.9.9.9",
    "for=1.2.3.4",
    'for="',
    '"',
    ",,",
    'for=1.2.3.4;host="',
    "\\",
    "x" * 999,
]


def test_what_a_client_puts_before_the_entry_of_a_proxy_has_no_effect() -> None:
    """Two proxies append; everything before that may come from the client."""
    for trusted, forged in product((TRUSTED, 2), FORGED):
        with case_of(trusted, forged):
            for headers in (
                [x_for(f"{forged}, 203.0.113.7, 10.0.0.9")],
                [x_for(forged), x_for("203.0.113.7"), x_for("10.0.0.9")],
                [forwarded(f"{forged}, for=203.0.113.7, for=10.0.0.9")],
            ):
                assert apply(trusted, PROXY, *headers).peer == "203.0.113.7"


BROKEN = [
    "unknown",
    "_hidden",
    "_",
    "1.2.3",
    "1.2.3.4:_",
    "1.2.3.4:_\xe9",
    "1.2.3.4:99999",
    "[::1",
    "::1%lo",
    "\xb2.2.3.4",
]


def test_a_malformed_entry_leaves_the_last_address_that_a_trusted_proxy_has_named() -> None:
    for broken in BROKEN:
        with case_of(broken):
            assert apply(TRUSTED, PROXY, x_for(f"1.2.3.4, {broken}")).peer == f"{PROXY}:1234"
            assert apply(TRUSTED, PROXY, x_for(f"1.2.3.4, {broken}, 10.9.9.9")).peer == "10.9.9.9"
            assert apply(2, PROXY, forwarded(f'for="{broken}", for=10.9.9.9')).peer == "10.9.9.9"
            assert apply(1, PROXY, forwarded("secret=1")).peer == f"{PROXY}:1234"


def test_a_header_that_is_too_short_leaves_the_last_address_in_it() -> None:
    assert apply(3, PROXY).peer == f"{PROXY}:1234"
    assert apply(3, PROXY, x_for("203.0.113.7")).peer == "203.0.113.7"
    assert apply(TRUSTED, PROXY, x_for("10.0.0.1, 10.0.0.2")).peer == "10.0.0.1"


def test_both_kinds_of_headers_are_ambiguous(caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that appends to one of them forwards the other one as the client has sent it."""
    caplog.set_level("INFO")
    asked = apply(1, PROXY, x_for("203.0.113.7"), forwarded("for=1.2.3.4;proto=https"))
    assert (asked.peer, asked.secure) == (f"{PROXY}:1234", False)
    assert "neither is used" in logged(caplog)[0]


@pytest.mark.parametrize("empty", ["", ",", " , "])
def test_an_empty_header_counts_as_absent(empty: str) -> None:
    assert apply(1, PROXY, x_for("203.0.113.7"), forwarded(empty)).peer == "203.0.113.7"
    assert apply(1, PROXY, x_for(empty), forwarded("for=203.0.113.7")).peer == "203.0.113.7"


def test_an_element_of_many_empty_pairs_takes_little_time() -> None:
    """Backtracking would take longer than the universe has existed."""
    assert apply(1, PROXY, forwarded(" \t; \t" * 1000 + "!")).peer == f"{PROXY}:1234"


@pytest.mark.parametrize(
    ("headers", "secure", "host"),
    [
        ([("X-Forwarded-Proto", "https")], True, "inside"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Proto", "WSS")], True, "inside"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Proto", "https, http")], False, "inside"),
        ([x_for("1.1.1.1, 10.0.0.1"), ("X-Forwarded-Proto", "https, http")], True, "inside"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Proto", "gopher")], False, "inside"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Host", "example.org")], False, "example.org"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Host", "evil.test, example.org")], False, "example.org"),
        ([x_for("1.1.1.1"), ("X-Forwarded-Host", "a/b")], False, "inside"),
        ([forwarded('for=1.1.1.1;proto=https;host="a.test:8"')], True, "a.test:8"),
        ([forwarded("for=1.1.1.1;proto=https, for=10.0.0.1;proto=http")], True, "inside"),
    ],
)
def test_a_trusted_proxy_names_the_scheme_and_the_host(
    headers: list[tuple[str, str]], secure: bool, host: str
) -> None:
    asked = apply(TRUSTED, PROXY, *headers)
    assert (asked.secure, asked.headers["Host"]) == (secure, host)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"]),
            st.text('for=;,"\\1.:[]x \t', max_size=30),
        ),
        max_size=4,
    )
)
@example([("Forwarded", 'for="1.1.1.1')])
def test_any_header_gives_some_address(headers: list[tuple[str, str]]) -> None:
    assert apply(2, PROXY, *headers).peer


@pytest.mark.parametrize(
    "bad",
    [
        0,
        -1,
        True,
        1.5,
        "10.0.0.1/8",
        "somewhere",
        [],
        ["10.0.0.0/8", 3],
        b"10.0.0.0/8",
        "*",
        "::ffff:10.0.0.0/104",
    ],
)
def test_other_values_are_invalid(bad: Any) -> None:
    async def handler(conn: Connection) -> None: ...

    with pytest.raises(InvalidOption, match="forwarded must be"):
        serve(handler, port=0, forwarded=bad)


async def test_hooks_limits_and_logs_see_the_real_client(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """All in the same /64 network share a limit."""
    caplog.set_level("INFO")
    seen: list[Any] = []

    def look(asked: Request) -> Response | None:
        seen.append((asked.peer, asked.secure))
        return Response(403) if asked.path == "/refused" else None

    async def handler(conn: Connection) -> None:
        assert conn.handshake is not None
        seen.append((conn.handshake.peer, conn.handshake.url))
        await conn.wait_closed()

    async with serving(
        handler, forwarded=1, process_request=look, max_connections_per_address=1
    ) as site:

        async def status(peer: str) -> tuple[bytes, RawClient]:
            client = await site.raw()
            headers = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "example.org"}
            await client.send(request(X_Forwarded_For=peer, **headers))
            return (await client.head())[9:12], client

        first, one = await status("2001:db8::1")
        second, two = await status("2001:db8::2")
        third, three = await status("2001:db8:0:1::1")
        assert (first, second, third) == (b"101", b"429", b"101")
        for client in (one, two, three):
            await client.stream.aclose()
    assert seen[:2] == [("[2001:db8::1]", True), ("[2001:db8::1]", "wss://example.org/")]
    assert logged(caplog)[0].startswith("[2001:db8::2]: refused: 429 ")


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
async def test_a_proxy_on_a_unix_socket_is_trusted(tmp_path: Path) -> None:
    seen = []

    def look(asked: Request) -> Response:
        seen.append(asked.peer)
        return Response()

    path = os.fspath(tmp_path / "socket")
    with trio.fail_after(300):
        async with serve(
            lambda: None,  # type: ignore[arg-type]
            unix_path=path,
            forwarded=TRUSTED,
            process_request=look,
        ):
            client = RawClient(await trio.open_unix_socket(path))
            await client.send(request(X_Forwarded_For="203.0.113.7"))
            await client.everything()
    assert seen == ["203.0.113.7"]
