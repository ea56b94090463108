"""A server for Phoenix Channels, as applications use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.channels.helpers import serving_channels
from tests.server.helpers import frame
from tests.server.writes import counting_clients, counts_writes
from trioglock import serve
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    ConnectRequest,
    JoinRefused,
    Push,
)
from trioglock.channels.routes import ChannelRoutes
from trioglock.codecs import JSON, Msgpack
from trioglock.codecs.json import LIBRARIES
from trioglock.errors import ConnectionClosedError, HandshakeRefused, InvalidOption, UsageError
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub


@dataclass(frozen=True)
class User:
    """A user of the application."""

    id: int
    name: str
    rooms: frozenset[str]


USERS = {"secret": User(7, "al", frozenset({"room:1"}))}


class Room(Channel[User]):
    """A chat."""

    async def join(self, topic: str, payload: Any, user: User) -> tuple[Any, User]:
        if topic not in user.rooms:
            raise JoinRefused({"reason": "unauthorized"})
        return {"welcome": topic}, user

    def handle_in(self, event: str, payload: Any, state: User) -> Any:
        match event:
            case "shout":
                return Broadcast("shout", {"from": state.name, **payload}), state
            case "echo":
                return Answer("ok", payload), state


async def authenticate(request: ConnectRequest) -> User | None:
    return USERS.get(request.params["token"])


async def test_a_chat_with_authentication_broadcasts_and_a_forced_disconnect() -> None:
    """The example of the documentation, with the client of this package."""
    async with (
        serving_channels(Room, connect=authenticate, id=lambda user: f"user:{user.id}") as site,
        site.phoenix(params={"token": "secret"}) as client,
    ):
        room = await client.join("room:1")
        reply = await room.push("echo", {"a": 1})
        assert (reply.status, reply.response) == ("ok", {"a": 1})
        await site.channels.broadcast("room:1", "shout", {"text": "hi"})
        assert await room.receive() == ("shout", {"text": "hi"})
        with pytest.raises(phoenix.JoinRefused) as refused:
            await client.join("room:2")
        assert refused.value.response == {"reason": "unauthorized"}
        await site.channels.disconnect("user:7")
        await site.channels.disconnect("user:8")
        with pytest.raises(HandshakeRefused, match="403"):
            async with site.dial(
                "ws://memory.test/socket/websocket?vsn=2.0.0&token=wrong", reconnect=False
            ):
                pass


async def test_disconnect_without_ids_is_an_error() -> None:
    async with serving_channels(Room) as site:
        with pytest.raises(UsageError, match=r"^connections have no ids: .* id=lambda user"):
            await site.channels.disconnect("user:7")


async def test_a_broadcast_from_a_hook_reaches_all_clients_including_the_sender() -> None:
    async with (
        serving_channels(Room, connect=lambda _: USERS["secret"]) as site,
        site.dial() as first,
        site.dial() as second,
    ):
        await first.join()
        await second.join(ref="2")
        await first.send("1", "3", "room:1", "shout", {"m": "hi"})
        expected = [None, None, "room:1", "shout", {"from": "al", "m": "hi"}]
        for client in (first, second):
            assert await client.receive() == expected


class Greedy(Channel[None]):
    """It cannot be created for a join."""

    def __init__(self, database: Any) -> None:
        self.database = database


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        ({}, "routes must be a dict"),
        (Room, "routes must be a dict"),
        ({"*room": Room}, r"a final '\*'"),
        ({"": Room}, r"a final '\*'"),
        ({"phoenix": Room}, "heartbeats"),
        ({"room:*": Room()}, "must map to a Channel class"),
        ({"room:*": Greedy}, "without arguments"),
        ({"room:*": Room, "room:1": Room}, "never used"),
        ({"room:*": Room, "room:1:*": Room}, "never used"),
    ],
)
def test_invalid_routes_are_refused_at_once(routes: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        Channels(routes, hub=Hub())


def test_invalid_options_are_refused_at_once() -> None:
    async def identify(user: Any) -> str:
        return ""

    routes = {"room:*": Room}
    for options in (
        {"hub": None},
        {"hub": Hub(), "connect": 1},
        {"hub": Hub(), "id": "user"},
        {"hub": Hub(), "id": identify},
        {"hub": Hub(), "max_topics": 0},
        {"hub": Hub(), "codec": JSON},
        {"hub": Hub(), "codec": "msgspec"},
        {"hub": Hub(), "codec": Msgpack()},
        {"hub": Hub(), "codec": JSON(dict)},
    ):
        with pytest.raises(InvalidOption):
            Channels(routes, **options)


@counts_writes
async def test_replies_to_pushes_that_arrive_together_leave_in_one_write() -> None:
    class Echo(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> tuple[Any, None]:
            return Answer("ok", payload), None

    hub = Hub()
    channels = Channels({"room:*": Echo}, hub=hub)
    path = "/socket/websocket?vsn=2.0.0"
    async with (
        hub,
        serve(channels.socket, "127.0.0.1", 0) as server,
        counting_clients(server, 1, path) as [client],
    ):
        await client.send(frame(0x81, b'["1","1","room:1","phx_join",{}]'))
        await client.texts(1)
        client.writes()
        pushes = [f'["1","{ref}","room:1","echo",{{"ref":{ref}}}]' for ref in range(2, 22)]
        await client.send(b"".join(frame(0x81, push.encode()) for push in pushes))
        replies = await client.texts(20)
        assert client.writes() == 1
    assert [json.loads(reply)[1] for reply in replies] == [str(ref) for ref in range(2, 22)]


@pytest.mark.parametrize("library", LIBRARIES)
async def test_every_json_library_sends_the_same_frames(library: Any) -> None:
    class Echo(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> tuple[Any, None]:
            return (Answer("ok", payload), Push("pushed", payload)), None

    payload: dict[str, Any] = {"text": 'caf\u00e9 " \\ \n', "list": [1, 2.5, None, True, {}]}
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    codec: JSON[Any] = JSON(library=library)
    async with serving_channels(Echo, codec=codec) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "echo", payload)
        reply = f'["1","2","room:1","phx_reply",{{"response":{text},"status":"ok"}}]'
        assert await raw.raw() == reply
        assert await raw.raw() == f'["1",null,"room:1","pushed",{text}]'
        await site.channels.broadcast("room:1", "shout", payload)
        assert await raw.raw() == f'[null,null,"room:1","shout",{text}]'
        await raw.connection.send("[1e400]")
        with pytest.raises(ConnectionClosedError) as closed:
            await raw.raw()
    assert closed.value.code == 1011


def test_the_first_matching_route_counts() -> None:
    class Lobby(Channel[None]):
        pass

    routes: dict[str, type[Channel[Any]]] = {"room:lobby": Lobby, "room:*": Room, "lobby": Lobby}
    assert repr(Channels(routes, hub=Hub())) == "<Channels room:lobby, room:*, lobby, 0 topics>"
    find = ChannelRoutes(routes).find
    assert find("room:lobby") is Lobby
    assert find("room:lobby2") is Room
    assert find("room:") is Room
    assert find("room") is None
    assert find("lobby") is Lobby


@pytest.mark.parametrize("topic", ["phoenix", ""])
async def test_some_topics_cannot_be_joined_whatever_the_routes(topic: str) -> None:
    async with (
        serving_channels({"*": Room}, connect=lambda _: USERS["secret"]) as site,
        site.dial() as raw,
    ):
        reply = await raw.ask("1", "1", topic, "phx_join", {})
        response = {"reason": "unmatched topic"}
        assert reply == [None, "1", topic, "phx_reply", {"response": response, "status": "error"}]
        await raw.alive()
