"""What Phoenix 1.8 was seen to do on the wire, text and binary, and what this server does."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from trioglock import InvalidOption, MemoryListener, Request, connect, serve
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    ConnectRequest,
    Credentials,
    JoinRefused,
    Push,
    Stop,
)
from trioglock.codecs import JSON
from trioglock.errors import ConnectionClosedError, HandshakeRefused
from trioglock.headers import Headers
from trioglock.pubsub import Hub


class Facts(Channel[None]):
    """A room that does everything."""

    intercept = ("intercepted",)
    ended: list[Any]

    def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, None]:
        if topic == "room:forbidden":
            raise JoinRefused({"reason": "unauthorized"})
        if topic == "room:x":
            raise RuntimeError("no")
        if payload.get("hello"):
            self.cast("hello")
        return {"welcome": topic}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        match event:
            case "echo" | "binary":
                return Answer("ok", payload), state
            case "bare":
                return Answer("ok"), state
            case "fail":
                return Answer("error", payload), state
            case "shout" | "intercepted" | "shout_binary":
                return Broadcast(event, payload), state
            case "back":
                return Push("binary_pushed", payload), state
            case "stop":
                return Stop("enough"), state
        raise LookupError(event)

    def handle_cast(self, message: Any, state: None) -> Any:
        return Push(message, {"topic": self.topic}), state


class Slow(Channel[None]):
    """Its join takes a second."""

    async def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, None]:
        await trio.sleep(0.05)
        return {}, None


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[RawPhoenix]:
    routes = {"room:*": Facts, "slow:*": Slow}
    async with serving_channels(routes, **options) as site, site.dial() as raw:
        yield raw


def reply(join_ref: Any, ref: Any, topic: str, status: str, response: str) -> str:
    refs = ",".join("null" if one is None else f'"{one}"' for one in (join_ref, ref))
    return f'[{refs},"{topic}","phx_reply",{{"response":{response},"status":"{status}"}}]'


# One topic.


async def test_a_join_is_answered_with_its_refs_before_the_first_push() -> None:
    async with client() as raw:
        await raw.send("4", "4", "room:1", "phx_join", {"hello": True})
        assert await raw.raw() == reply("4", "4", "room:1", "ok", '{"welcome":"room:1"}')
        assert await raw.raw() == '["4",null,"room:1","hello",{"topic":"room:1"}]'


async def test_a_refused_join_is_answered_with_the_response_of_the_hook() -> None:
    async with client() as raw:
        await raw.send("7", "7", "room:forbidden", "phx_join", {})
        expected = reply("7", "7", "room:forbidden", "error", '{"reason":"unauthorized"}')
        assert await raw.raw() == expected
        await raw.alive()


async def test_a_join_that_raises_is_answered_with_join_crashed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client() as raw:
        await raw.send("15", "15", "room:x", "phx_join", {})
        expected = reply("15", "15", "room:x", "error", '{"reason":"join crashed"}')
        assert await raw.raw() == expected
        await raw.alive()
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= 40] == [
        True
    ]
    assert "Facts.join" in caplog.text


async def test_a_topic_without_a_route_is_unmatched_and_the_join_ref_is_null() -> None:
    async with client() as raw:
        await raw.send("11", "11", "nope:1", "phx_join", {})
        expected = reply(None, "11", "nope:1", "error", '{"reason":"unmatched topic"}')
        assert await raw.raw() == expected


async def test_a_push_is_answered_once_with_its_ref() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.send("4", "17", "room:1", "echo", {"a": 1})
        assert await raw.raw() == reply("4", "17", "room:1", "ok", '{"a":1}')
        await raw.send("4", "18", "room:1", "bare", {})
        assert await raw.raw() == reply("4", "18", "room:1", "ok", "{}")
        await raw.send("4", "19", "room:1", "fail", {"b": 2})
        assert await raw.raw() == reply("4", "19", "room:1", "error", '{"b":2}')
        await raw.alive()


async def test_a_broadcast_has_no_refs_and_reaches_its_sender() -> None:
    async with client() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "shout", {"m": "hi"})
        assert await raw.raw() == '[null,null,"room:1","shout",{"m":"hi"}]'
        await raw.alive()


async def test_an_intercepted_broadcast_is_a_push_with_the_join_ref() -> None:
    async with client() as raw:
        await raw.join("room:5", "52")
        await raw.send("52", "53", "room:5", "intercepted", {})
        assert await raw.raw() == '["52",null,"room:5","intercepted",{}]'
        await raw.alive()


async def test_a_heartbeat_is_answered_on_the_topic_phoenix() -> None:
    async with client() as raw:
        await raw.send(None, "30", "phoenix", "heartbeat", {})
        assert await raw.raw() == reply(None, "30", "phoenix", "ok", "{}")


@pytest.mark.parametrize("event", ["boom", "unknown event"])
async def test_a_crash_is_an_error_of_this_topic_only_and_the_client_may_rejoin(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.join("room:2", "5")
        await raw.send("4", "6", "room:1", event, {})
        assert await raw.raw() == '["4","4","room:1","phx_error",{"reason":"channel_crash"}]'
        await raw.send("5", "7", "room:2", "bare", {})
        assert await raw.raw() == reply("5", "7", "room:2", "ok", "{}")
        await raw.join("room:1", "8")
        await raw.send("8", "9", "room:1", "bare", {})
        assert await raw.raw() == reply("8", "9", "room:1", "ok", "{}")
    failures = [record for record in caplog.records if record.levelno >= 40]
    assert len(failures) == 1
    assert "Facts.handle_in" in failures[0].getMessage()


async def test_a_stop_closes_the_topic_without_a_reply() -> None:
    async with client() as raw:
        await raw.join("room:1", "34")
        await raw.send("34", "35", "room:1", "stop", {})
        assert await raw.raw() == '["34","34","room:1","phx_close",{}]'
        await raw.send("34", "36", "room:1", "echo", {})
        expected = reply(None, "36", "room:1", "error", '{"reason":"unmatched topic"}')
        assert await raw.raw() == expected


async def test_a_leave_is_answered_and_then_the_topic_is_closed() -> None:
    async with client() as raw:
        await raw.join("room:4", "48")
        await raw.send("48", "49", "room:4", "phx_leave", {})
        assert await raw.raw() == reply("48", "49", "room:4", "ok", "{}")
        assert await raw.raw() == '["48","48","room:4","phx_close",{}]'
        await raw.send("48", "50", "room:4", "phx_leave", {})  # it has crossed the close
        assert await raw.raw() == reply("48", "50", "room:4", "ok", "{}")
        await raw.alive()


async def test_a_push_without_a_join_is_unmatched() -> None:
    async with client() as raw:
        await raw.send("2", "3", "room:e", "echo", {})
        expected = reply(None, "3", "room:e", "error", '{"reason":"unmatched topic"}')
        assert await raw.raw() == expected


async def test_a_second_join_is_answered_before_the_first_one_is_closed() -> None:
    async with client() as raw:
        await raw.join("room:e", "1")
        await raw.send("2", "2", "room:e", "phx_join", {"hello": True})
        assert await raw.raw() == reply("2", "2", "room:e", "ok", '{"welcome":"room:e"}')
        assert await raw.raw() == '["1","1","room:e","phx_close",{}]'
        assert await raw.raw() == '["2",null,"room:e","hello",{"topic":"room:e"}]'
        await raw.send("2", "3", "room:e", "bare", {})
        assert await raw.raw() == reply("2", "3", "room:e", "ok", "{}")


async def test_a_topic_more_than_the_limit_is_refused() -> None:
    async with client() as raw:
        for number in range(1, 101):
            await raw.join(f"room:{number}", str(number))
        await raw.send("101", "101", "room:m", "phx_join", {})
        expected = '{"reason":"too many channels joined"}'
        assert await raw.raw() == reply("101", "101", "room:m", "error", expected)
        await raw.join("room:1", "102")  # a second join replaces the first one
        assert await raw.raw() == '["1","1","room:1","phx_close",{}]'
        await raw.send("2", "103", "room:2", "phx_leave", {})
        await raw.raw()
        await raw.raw()
        await raw.join("room:m", "104")


async def test_a_push_with_a_stale_join_ref_is_dropped_silently() -> None:
    async with client() as raw:
        await raw.join("room:1", "1")
        await raw.join("room:1", "2")
        await raw.raw()
        await raw.send("1", "3", "room:1", "bare", {})
        await raw.send("1", "4", "room:1", "phx_leave", {})
        await raw.alive()
        await raw.send("2", "5", "room:1", "bare", {})
        assert await raw.raw() == reply("2", "5", "room:1", "ok", "{}")


async def test_a_push_without_a_join_ref_belongs_to_the_current_join() -> None:
    """As in Phoenix 1.8.12; earlier versions of 1.8 drop it."""
    async with client() as raw:
        await raw.join("room:1", "1")
        await raw.send(None, "3", "room:1", "bare", {})
        assert await raw.raw() == reply("1", "3", "room:1", "ok", "{}")
        await raw.send(None, "4", "room:1", "phx_leave", {})
        assert await raw.raw() == reply("1", "4", "room:1", "ok", "{}")
        assert await raw.raw() == '["1","1","room:1","phx_close",{}]'


async def test_refs_may_be_null_or_numbers() -> None:
    async with client() as raw:
        assert await raw.ask(None, 1, "room:1", "phx_join", {}) == [
            None,
            1,
            "room:1",
            "phx_reply",
            {"response": {"welcome": "room:1"}, "status": "ok"},
        ]
        await raw.send(None, None, "room:1", "bare", {})
        assert await raw.raw() == reply(None, None, "room:1", "ok", "{}")


# Binary messages.


async def test_a_binary_push_gets_a_binary_reply() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        payload = bytes([1, 2, 254, 0])
        push = bytes.fromhex("0001020606") + b"425room:1binary" + payload
        await raw.connection.send(push)
        assert await raw.raw() == bytes.fromhex("0101020602") + b"425room:1ok" + payload


async def test_a_binary_push_of_the_server_has_no_ref() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.connection.send(bytes([0, 1, 1, 6, 4]) + b"45room:1back\xaa\xbb")
        assert await raw.raw() == bytes.fromhex("0001060d") + b"4room:1binary_pushed\xaa\xbb"


async def test_a_binary_broadcast_has_a_topic_and_an_event() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.connection.send(bytes([0, 1, 1, 6, 12]) + b"45room:1shout_binary\xcc")
        assert await raw.raw() == bytes.fromhex("02060c") + b"room:1shout_binary\xcc"


async def test_an_empty_binary_payload_is_legal() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.connection.send(bytes([0, 1, 1, 6, 4]) + b"45room:1echo")
        assert await raw.raw() == bytes([1, 1, 1, 6, 2]) + b"45room:1ok"


async def test_an_intercepted_binary_broadcast_is_a_binary_push() -> None:
    async with client() as raw:
        await raw.join("room:1", "4")
        await raw.connection.send(bytes([0, 1, 1, 6, 11]) + b"45room:1intercepted\xcc")
        assert await raw.raw() == bytes([0, 1, 6, 11]) + b"4room:1intercepted\xcc"


async def test_a_binary_push_on_a_topic_that_is_not_joined_gets_an_error_in_json() -> None:
    async with client() as raw:
        await raw.connection.send(bytes([0, 1, 1, 6, 4]) + b"45room:1echo\x00")
        expected = reply(None, "5", "room:1", "error", '{"reason":"unmatched topic"}')
        assert await raw.raw() == expected


# The connection.


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        "{}",
        '["1","1","room:1","phx_join"]',
        '["1","1",null,"phx_join",{}]',
        '["1",1.5,"room:1","phx_join",{}]',
        '["1",true,"room:1","phx_join",{}]',
        '["1","1","room:1",{},{}]',
        b"",
        b"\x00",
        b"\x01\x01\x01\x01\x01aaaa",
        b"\x02\x01\x01ab",
        b"\x00\x01\x01\x06\x04" + b"45room",
        b"\x00\x00\x00\x00\x01\xff",
    ],
)
async def test_a_malformed_message_closes_with_1011(frame: str | bytes) -> None:
    async with client() as raw:
        await raw.join()
        await raw.connection.send(frame)
        with pytest.raises(ConnectionClosedError):
            await raw.raw()
        assert raw.connection.close_code == 1011


async def test_items_after_the_fifth_are_ignored() -> None:
    async with client() as raw:
        await raw.send(None, "1", "phoenix", "heartbeat", {}, "more")
        assert await raw.raw() == reply(None, "1", "phoenix", "ok", "{}")


async def test_an_oversized_message_closes_with_1009() -> None:
    async with client(serve_options={"max_size": 1000}) as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "echo", "x" * 1000)
        with pytest.raises(ConnectionClosedError):
            await raw.raw()
        assert raw.connection.close_code == 1009


async def test_a_disconnect_by_id_closes_with_1001() -> None:
    async with (
        serving_channels(
            Facts, connect=lambda request: request.params["user"], id=lambda user: f"user:{user}"
        ) as site,
        dial(site, "&user=1") as first,
        dial(site, "&user=1") as second,
        dial(site, "&user=2") as other,
    ):
        await first.join()
        await other.join()
        await site.channels.disconnect("user:1")
        for raw in (first, second):
            assert [frame async for frame in raw.connection] == []
            assert raw.connection.close_code == 1001
        await other.alive()


async def test_a_server_that_restarts_closes_with_1012_and_no_message_before() -> None:
    async with serving_channels(Facts) as site, site.dial() as raw:
        await raw.join()
        site.server.close(1012)
        with pytest.raises(ConnectionClosedError):
            await raw.raw()
        assert raw.connection.close_code == 1012


async def test_a_slow_join_delays_only_its_own_topic() -> None:
    """Unlike Phoenix, where a slow join blocks the whole socket."""
    async with client() as raw:
        await raw.join("room:1", "1")
        await raw.send("2", "2", "slow:1", "phx_join", {})
        await raw.send(None, "3", "phoenix", "heartbeat", {})
        await raw.send("1", "4", "room:1", "bare", {})
        await raw.send("2", "5", "slow:1", "phx_leave", {})
        refs = [(await raw.receive())[1] for _ in range(4)]
        assert refs == ["3", "4", "2", "5"]


async def test_a_websocket_ping_is_answered() -> None:
    async with client() as raw:
        assert await raw.connection.ping() >= 0


# The handshake.


@asynccontextmanager
async def dial(site: ChannelsSite, query: str = "", **options: Any) -> AsyncIterator[RawPhoenix]:
    url = f"ws://memory.test/socket/websocket?vsn=2.0.0{query}"
    async with site.dial(url, **options) as raw:
        yield raw


async def refusal(site: ChannelsSite, url: str, **options: Any) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(f"ws://memory.test{url}", stream=site.listener.open_stream, **options):
            pass
    return refused.value


async def test_a_client_that_is_not_authenticated_gets_403_with_an_empty_body() -> None:
    seen = []

    def authenticate(request: ConnectRequest) -> str | None:
        seen.append(dict(request.params))
        return "al" if request.params.get("token") == "good" else None

    async with serving_channels(Facts, connect=authenticate) as site:
        error = await refusal(site, "/socket/websocket?vsn=2.0.0&token=bad")
        assert (error.status, error.body) == (403, b"")
        async with dial(site, "&token=good") as raw:
            await raw.alive()
    assert seen == [{"token": "bad"}, {"token": "good"}]


@pytest.mark.parametrize("query", ["", "?vsn=1.0.0", "?vsn=", "?vsn=2.1.0", "?vsn=2.0.0x"])
async def test_another_version_of_the_protocol_gets_403_with_an_empty_body(query: str) -> None:
    """Also a missing version, for which Phoenix uses a format that is older."""
    async with serving_channels(Facts) as site:
        error = await refusal(site, f"/socket/websocket{query}")
        assert (error.status, error.body) == (403, b"")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("/socket/websocket", "refused with 403: the vsn parameter is missing"),
        ("/socket/websocket?vsn=1.0.0", "refused with 403: vsn must be 2.0.0, not '1.0.0'"),
        ("/socket/websocket?vsn=2.0.0", "refused with 403: connect has returned no user"),
        (
            "/socket/websocket?vsn=2.0.0&expired=1",
            "refused with 403: the credentials have expired",
        ),
        ("/socket", "refused with 404: the path does not end with /websocket"),
    ],
)
async def test_the_log_says_why_a_client_was_refused(
    url: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    def authenticate(request: ConnectRequest) -> Credentials | None:
        return Credentials("al", 1) if "expired" in request.params else None

    caplog.set_level(logging.INFO, "trioglock.channels")
    async with serving_channels(Facts, connect=authenticate) as site:
        await refusal(site, url)
    (message,) = [one.getMessage() for one in caplog.records if one.name == "trioglock.channels"]
    assert message.endswith(f": {line}")


async def test_another_origin_gets_403() -> None:
    options = {"origins": ["https://example.org"]}
    async with serving_channels(Facts, serve_options=options) as site:
        url = "/socket/websocket?vsn=2.0.0"
        error = await refusal(site, url, origin="https://evil.example")
        assert error.status == 403
        async with dial(site, origin="https://example.org") as raw:
            await raw.alive()


@pytest.mark.parametrize("path", ["/", "/socket", "/socket/longpoll", "/socket/websocket/x"])
async def test_another_path_gets_404(path: str) -> None:
    async with serving_channels(Facts) as site:
        assert (await refusal(site, f"{path}?vsn=2.0.0")).status == 404


async def test_without_a_token_no_subprotocol_is_negotiated() -> None:
    async with client() as raw:
        assert raw.connection.subprotocol is None


async def test_a_token_in_a_subprotocol_reaches_connect_and_phoenix_is_selected() -> None:
    tokens = []

    def authenticate(request: ConnectRequest) -> str:
        tokens.append(request.token)
        assert token not in repr(request)
        assert encoded not in repr(request)
        return "al"

    token = "secret>>>???"
    encoded = base64.b64encode(token.encode()).decode().rstrip("=").replace("/", "_")
    async with serving_channels(Facts, connect=authenticate) as site:
        names = ["phoenix", f"base64url.bearer.phx.{encoded}"]
        async with dial(site, subprotocols=names) as raw:
            assert raw.connection.subprotocol == "phoenix"
        async with dial(site, subprotocols=["phoenix", "base64url.bearer.phx.!"]) as raw:
            assert raw.connection.subprotocol == "phoenix"
        async with site.phoenix(auth_token="another"):
            pass
    assert tokens == [token, None, "another"]


async def test_connect_gets_the_certificate_and_the_address_of_the_client() -> None:
    requests: list[ConnectRequest] = []
    channels = Channels({"room:*": Facts}, hub=Hub(), connect=requests.append)
    certificate: dict[str, Any] = {"subject": ((("commonName", "al"),),)}
    request = Request(
        target="/socket/websocket?vsn=2.0.0&a=1&a=2&b=",
        headers=Headers({"X-Name": "value"}),
        peer="192.0.2.1:5000",
        secure=True,
        peer_certificate=certificate,
        peer_certificate_der=b"der",
    )
    target: Any = channels.socket
    assert (await target._admit(request)).status == 403  # append() returns None
    [received] = requests
    assert (received.path, received.params) == ("/socket/websocket", {"a": "2", "b": ""})
    assert (received.headers, received.token) == (request.headers, None)
    assert (received.peer, received.secure) == ("192.0.2.1:5000", True)
    assert received.peer_certificate == certificate
    assert received.peer_certificate_der == b"der"
    assert received.data is request.data


async def test_a_server_for_channels_has_no_codec() -> None:
    channels = Channels({"room:*": Facts}, hub=Hub())
    with pytest.raises(InvalidOption, match="pass it to the Channels object"):
        serve(channels.socket, listeners=[MemoryListener()], codec=JSON())
    with pytest.raises(InvalidOption, match=r"as in hub\.socket"):
        serve(channels, listeners=[MemoryListener()])  # type: ignore[arg-type]


async def test_the_options_of_the_server_choose_the_subprotocol_if_they_say_so() -> None:
    async with serving_channels(Facts, serve_options={"subprotocols": ["mine"]}) as site:
        async with dial(site, subprotocols=["phoenix", "mine"]) as raw:
            assert raw.connection.subprotocol == "mine"
        error = await refusal(site, "/socket/websocket?vsn=2.0.0", subprotocols=["phoenix"])
        assert error.status == 400


async def test_an_id_that_is_no_text_gets_500(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_channels(Facts, id=lambda user: 7) as site:
        assert (await refusal(site, "/socket/websocket?vsn=2.0.0")).status == 500
    assert "id must return a str or None, not int" in caplog.text


async def test_an_exception_in_connect_gets_500(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(request: ConnectRequest) -> str:
        raise RuntimeError("the database is down")

    async with serving_channels(Facts, connect=authenticate) as site:
        assert (await refusal(site, "/socket/websocket?vsn=2.0.0")).status == 500
    assert "the database is down" in caplog.text
