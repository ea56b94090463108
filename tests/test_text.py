"""Subclasses of ``str`` are sent as their characters, wherever text comes in."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal, get_args

import pytest
import trio
from trio.testing import MockClock

from tests.server.helpers import MakeTransport, serving
from tests.server.helpers import on_both as on_both_servers
from tests.texts import Kind, Level, Loud
from tests.transports import servers
from trioglock import (
    Close,
    Connection,
    Headers,
    MessageHeartbeat,
    PreparedMessage,
    Reply,
    Request,
    Response,
    Socket,
    connect,
)
from trioglock.asgi import WebSocketApp
from trioglock.codecs import JSON, Codec, Msgpack
from trioglock.protocols import gossip, phoenix
from trioglock.pubsub import Hub, HubSocket, Message
from trioglock.routing import EventSocket, Router
from trioglock.testing import MockGossipServer, MockPhoenixServer, MockServer, MockTopic

TEXTS = [Kind.NEWS, Kind.UMLAUT, Loud("news"), Loud("\u00fcber")]
each_text = pytest.mark.parametrize("text", TEXTS, ids=["enum", "enum, UTF-8", "str", "str, UTF-8"])


def plain(text: str) -> str:
    return "".join(text)


@on_both_servers
@each_text
async def test_fault_06_messages(text: str, transport: MakeTransport) -> None:
    """Sent by both sides, prepared, in a row, and in a Close frame."""

    class Echo(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            if frame == "close":
                return Close(4000, text), state
            return Reply(frame, text, PreparedMessage(text)), state

    expected = plain(text)
    async with serving(Echo, transport=transport()) as site:
        async with site.dial() as conn:
            await conn.send(text)
            assert [await conn.receive() for _ in range(3)] == [expected] * 3
            conn.send_nowait(text)
            assert [await conn.receive() for _ in range(3)] == [expected] * 3
            assert site.server.broadcast(text) == 1
            received = await conn.receive()
            assert received == expected
            assert type(received) is str
            await conn.send("close")
            await conn.wait_closed()
            assert (conn.close_code, conn.close_reason) == (4000, expected)
        async with site.dial() as conn:
            await conn.aclose(4000, text)
            assert f"{conn.close_reason}" == expected


@servers.on_both
@pytest.mark.parametrize("make", [lambda name: Kind[name.upper()], Loud], ids=["enum", "str"])
async def test_fault_06_the_opening_handshake(make: Any, transport: servers.MakeTransport) -> None:
    """The URL, headers, subprotocols and credentials."""
    requests: list[servers.Request] = []
    async with servers.serving(servers.upgrading(requests)) as port:
        url = f"ws://{Kind.NEWS.value}:secret@127.0.0.1:{port}/\u00fc?x=1"
        async with connect(
            Loud(url),
            subprotocols=[make("news"), make("other")],
            additional_headers={make("noun"): make("secret")},
            origin=make("news"),
            user_agent_header=make("other"),
            name=make("noun"),
            transport=transport(),
        ) as conn:
            assert conn.name == "noun"
            assert f"{conn.url}" == f"ws://127.0.0.1:{port}/\u00fc?x=1"
    [request] = requests
    assert request.target == "/%C3%BC?x=1"
    assert request.headers["Sec-WebSocket-Protocol"].replace(" ", "") == "news,other"
    assert request.headers["noun"] == "secret"
    assert request.headers["Origin"] == "news"
    assert request.headers["User-Agent"] == "other"
    assert base64.b64decode(request.headers["Authorization"].split()[1]) == b"news:secret"


async def test_fault_06_the_handshake_of_a_server() -> None:
    """Subprotocols, origins and plain responses."""
    response = Response(404, Loud("body"), [(Kind.NOUN, Kind.SECRET)])
    assert b"noun: secret\r\n" in response.to_bytes()
    assert response.to_bytes().endswith(b"\r\n\r\nbody")
    assert f"{Headers([(Kind.NOUN, Loud('x'))])['NOUN']}" == "x"
    for options in (
        {"subprotocols": [Kind.OTHER, Kind.NEWS]},
        {"select_subprotocol": lambda _request, _offered: Kind.NEWS},
    ):
        origins = [Loud("https://example.org")]
        async with (
            serving(Socket, origins=origins, **options) as site,
            site.dial(subprotocols=["news"], origin="https://example.org") as conn,
        ):
            assert conn.subprotocol == "news"


async def test_fault_06_heartbeats(autojump_clock: MockClock) -> None:
    """The message of a heartbeat."""
    beat = MessageHeartbeat(message=lambda: Kind.NEWS, is_answer=lambda frame: frame == "other")
    async with (
        MockServer(memory=True) as server,
        connect(server.url, heartbeat=beat, stream=server.open_stream),
    ):
        peer = await server.accept()
        assert await peer.receive() == "news"


async def test_fault_06_messages_of_an_asgi_server(autojump_clock: MockClock) -> None:
    """ASGI servers get plain text."""
    sent: list[Any] = []

    async def handler(conn: Connection[None]) -> None:
        await conn.send(Kind.NEWS)
        await conn.aclose(4000, Kind.OTHER)

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        if not sent:
            return {"type": "websocket.connect"}
        return await trio.sleep_forever()

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(event)

    scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": ["news"]}
    await WebSocketApp(handler, subprotocols=[Kind.NEWS])(scope, receive, send)
    assert [f"{value}" for event in sent for value in event.values()] == [
        *("websocket.accept", "news"),
        *("websocket.send", "news"),
        *("websocket.close", "4000", "other"),
    ]


@each_text
async def test_fault_06_a_hub(text: str, autojump_clock: MockClock) -> None:
    """Messages, channels, patterns, listeners and names; redis-server has its own test."""
    heard: list[Message] = []

    class Own(HubSocket):
        def channel_of(self, request: Request) -> str:
            return text

    async with Hub(name=Kind.NEWS) as hub, serving(hub.socket_of(Own)) as site, site.dial() as conn:
        hub.on(text)(heard.append)
        with hub.subscribe(text) as subscription:
            await conn.ping()
            await hub.publish(text, channel=text)
            message = await subscription.__anext__()
            assert f"{message.channel}" == plain(text) == message.data
            assert type(message.data) is str
            assert await conn.receive() == plain(text)
        assert f"{hub.name}" == "news"
    assert heard == [message]


CODECS = [
    *(JSON(library=name) for name in get_args(Literal["msgspec", "orjson", "json"])),
    JSON(dict),
    Msgpack(),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@each_text
def test_fault_06_codecs(text: str, codec: Codec) -> None:
    """Values and keys at any depth."""
    expected = {plain(text): [plain(text), None]}
    assert codec.decode(codec.encode({text: [text, None]})) == expected


async def test_fault_06_events(autojump_clock: MockClock) -> None:
    """Names of events and nouns in routers and requests."""
    router = Router(Kind.NOUN)
    router.on(Kind.NEWS)(lambda event, state: (event["event"], state))
    assert [*dict(router.patterns())] == ["noun/news"]
    socket: EventSocket[Any] = EventSocket(router)
    async with (
        MockServer(memory=True) as server,
        connect(server.url, socket, stream=server.open_stream) as conn,
        trio.open_nursery() as nursery,
    ):
        peer = await server.accept()
        nursery.start_soon(socket.request, Kind.OTHER, Loud("x"))
        request = json.loads(await peer.receive())
        assert (request["event"], request["payload"]) == ("other", "x")
        await peer.send(json.dumps(request))
        await peer.send(json.dumps({"event": "noun/news"}))
        assert await conn.receive() == "noun/news"


async def test_fault_06_phoenix(autojump_clock: MockClock) -> None:
    """The URL, params, the token, topics, events and payloads."""
    seen: list[Any] = []

    def authorize(params: Any, token: str | None) -> bool:
        seen.append((params, token))
        return True

    async with (
        MockPhoenixServer({"news": MockTopic}, authorize=authorize, memory=True) as server,
        phoenix.connect(
            Loud(server.url),
            params={
                Kind.NEWS: Kind.OTHER,
                Loud("a"): {Kind.NOUN: [Loud("b")], Loud("c"): Level.ONE},
            },
            auth_token=Kind.SECRET,
            stream=server.open_stream,
        ) as socket,
    ):
        assert seen == [({"news": "other", "a[noun][]": "b", "a[c]": "1"}, "secret")]
        channel = await socket.join(Kind.NEWS)
        assert f"{channel.topic}" == "news"
        reply = await channel.push(Loud("echo"), {Kind.NEWS: Kind.OTHER})
        assert reply.response == {"news": "other"}


async def test_fault_06_gossip(autojump_clock: MockClock) -> None:
    """Credentials, channels, names and messages."""

    class Game(gossip.ChannelsCallbacks):
        user_agent = Loud("game")
        channels = (Kind.NEWS,)

        def players(self) -> list[str]:
            return [Loud("Anna")]

    async with (
        MockGossipServer(memory=True) as server,
        gossip.connect(
            Loud(server.url),
            client_id=Loud("id"),
            client_secret=Loud("secret"),
            channels=Game(),
            stream=server.open_stream,
        ) as client,
    ):
        await client.subscribe(Kind.OTHER)
        assert [f"{name}" for name in client.channels] == ["news", "other"]
        await client.sign_in(Loud("Bert"))
        assert [f"{name}" for name in client.players] == ["Bert"]
        await client.broadcast(Kind.NEWS, Loud("Bert"), Loud("hello"))
