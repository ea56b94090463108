"""A server for Phoenix Channels, as applications use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.channels.helpers import serving_channels
from trioglock.channels import Answer, Broadcast, Channel, Channels, ConnectRequest, JoinRefused
from trioglock.channels.routes import ChannelRoutes
from trioglock.errors import HandshakeRefused, InvalidOption, UsageError
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
    ):
        with pytest.raises(InvalidOption):
            Channels(routes, **options)


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
