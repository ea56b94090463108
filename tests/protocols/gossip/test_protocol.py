"""Every fact of the protocol that concerns a client, in memory and over both real transports."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import trio

from tests.protocols.gossip.helpers import Recorder, open_client
from trioglock import InvalidOption
from trioglock.protocols import gossip
from trioglock.testing import MockGossipGame, MockGossipServer


@pytest.fixture
async def server() -> AsyncIterator[MockGossipServer]:
    game = MockGossipGame(
        name="ExVenture",
        players=["Eric"],
        channels=["gossip"],
        user_agent="ExVenture 0.27",
        details={
            "display_name": "ExVenture MUD",
            "description": "A server",
            "homepage_url": "https://example.org/",
            "connections": [{"type": "telnet", "host": "example.org", "port": 5555}],
        },
    )
    with trio.fail_after(10):
        async with MockGossipServer(memory=True, heartbeat_interval=None) as server:
            server.games["ExVenture"] = game
            yield server


# channels


async def test_authenticate_is_first_and_complete(server: MockGossipServer) -> None:
    """The credentials, the flags, the channels, the version and the user agent, before all else."""
    async with open_client(server) as client:
        first = server.received[0]
        assert first["event"] == "authenticate"
        assert first["payload"] == {
            "client_id": "id",
            "client_secret": "secret",
            "supports": ["channels", "players", "tells", "games", "achievements"],
            "channels": ["gossip"],
            "version": "2.3.0",
            "user_agent": "Recorder 1.0",
        }
        assert client.status is gossip.ClientStatus.ONLINE
        assert "secret" not in repr(client)


async def test_flags_are_opted_into_by_callbacks(server: MockGossipServer) -> None:
    """Without an object there is no flag, and no status is asked for."""
    async with open_client(server, flags=("tells", "system")) as client:
        assert server.received[0]["payload"]["supports"] == ["channels", "tells"]
        await client.subscribe("testing")
        assert [e["event"] for e in server.received] == ["authenticate", "channels/subscribe"]


async def test_the_answer_tells_the_version(server: MockGossipServer, recorder: Recorder) -> None:
    """System.authenticated gets it."""
    async with open_client(server, recorder):
        assert (await recorder.expect("authenticated"))[1] == "2.3.0"


async def test_bad_credentials_are_final(server: MockGossipServer) -> None:
    """AuthenticationFailed, with what the server said, and no second attempt."""
    with pytest.raises(gossip.AuthenticationFailed, match="invalid credentials"):
        async with open_client(server, client_secret="wrong"):
            raise AssertionError("it was let in")
    assert len(server.server.peers) == 1


async def test_an_answer_that_is_none_is_malformed(server: MockGossipServer) -> None:
    """It lets nobody in; the real one does, and a second one changes nothing."""
    server.ignore("authenticate")

    async def answer() -> None:
        await server.expect("authenticate")
        peer = server.server.peers[0]
        await peer.send('{"event": "authenticate", "status": "perhaps"}')
        await peer.send(*['{"event": "authenticate", "status": "success"}'] * 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_client(server, flags=()) as client:
            assert client.status is gossip.ClientStatus.ONLINE
            assert client.invalid == 1


async def test_4000_while_authenticating_is_final(server: MockGossipServer) -> None:
    """Also where the server says nothing before."""
    server.ignore("authenticate")

    async def hang_up() -> None:
        await server.expect("authenticate")
        await server.server.peers[0].close(4000, "no")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        with pytest.raises(gossip.AuthenticationFailed, match="4000"):
            async with open_client(server):
                raise AssertionError("it was let in")


async def test_heartbeats_are_answered_with_the_players(server: MockGossipServer) -> None:
    """Those who signed in through the client."""
    async with open_client(server) as client:
        await client.sign_in("Bob")
        await client.sign_in("Ann")
        await client.sign_out("Bob")
        await server.heartbeat()
        beat = await server.expect("heartbeat")
        assert beat["payload"] == {"players": ["Ann"]}
        assert client.players == ("Ann",)


async def test_a_game_may_tell_its_players_itself(server: MockGossipServer) -> None:
    """Core.players is asked at each heartbeat."""

    class Own(Recorder):
        def players(self) -> list[str]:
            return ["Cid", "Dee"]

    async with open_client(server, Own()):
        await server.heartbeat()
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Cid", "Dee"]}


async def test_channels_are_subscribed_to_and_left(server: MockGossipServer) -> None:
    """With a ref, which is a UUID; the call returns when the server has confirmed."""
    async with open_client(server) as client:
        await client.subscribe("testing")
        event = await server.expect("channels/subscribe")
        assert event["payload"] == {"channel": "testing"}
        assert uuid.UUID(event["ref"]).version == 4
        assert list(client.channels) == ["gossip", "testing"]
        assert server.online()[0].channels == ["gossip", "testing"]
        await client.unsubscribe("gossip")
        event = await server.expect("channels/unsubscribe")
        assert event["payload"] == {"channel": "gossip"}
        assert client.channels == ("testing",)
        assert server.online()[0].channels == ["testing"]


async def test_a_channel_may_be_refused(server: MockGossipServer) -> None:
    """SubscribeFailed with the server's words; it is not asked for again."""
    async with open_client(server) as client:
        server.fail("channels/subscribe", "Could not subscribe to 'secret'")
        with pytest.raises(gossip.RequestFailed, match="Could not subscribe to 'secret'"):
            await client.subscribe("secret")
        assert client.channels == ("gossip",)


@pytest.mark.parametrize("name", ["ab", "a" * 16, "a b", "a1b", "", "grün", "a\n", None, 3])
async def test_channel_names_are_checked(name: Any, server: MockGossipServer) -> None:
    """3 to 15 of letters, _ and -: everything else is refused before it is sent."""
    async with open_client(server, flags=()) as client:
        for call in (client.subscribe, client.unsubscribe):
            with pytest.raises(InvalidOption, match="3 to 15 letters"):
                await call(name)
        assert len(server.received) == 1
        await client.subscribe("a_B-c")


async def test_messages_go_to_subscribed_channels_only(server: MockGossipServer) -> None:
    """channels/send with its three fields; NotSubscribed for any other channel."""
    async with open_client(server) as client:
        await client.broadcast("gossip", "Bob", "Hello!")
        event = await server.expect("channels/send")
        assert event["payload"] == {"channel": "gossip", "name": "Bob", "message": "Hello!"}
        with pytest.raises(gossip.NotSubscribed, match="'testing'"):
            await client.broadcast("testing", "Bob", "Hello?")


async def test_broadcasts_reach_the_callback(server: MockGossipServer, recorder: Recorder) -> None:
    """As a Message with channel, game, name and text."""
    async with open_client(server, recorder):
        await server.broadcast("gossip", "ExVenture", "Eric", "Hello, ☕!")
        _, message = await recorder.expect("message")
        assert message == gossip.ChannelMessage(
            channel="gossip", game="ExVenture", name="Eric", message="Hello, ☕!"
        )


# players


async def test_sign_ins_go_out(server: MockGossipServer) -> None:
    """players/sign-in and players/sign-out with the name; nothing for what is known already."""
    async with open_client(server) as client:
        await client.sign_in("Bob")
        await client.sign_in("Bob")
        await client.sign_out("Bob")
        await client.sign_out("Bob")
        assert (await server.expect("players/sign-in"))["payload"] == {"name": "Bob"}
        assert (await server.expect("players/sign-out"))["payload"] == {"name": "Bob"}
        await client.subscribe("testing")
        signs = [e for e in server.received if e["event"].startswith("players/sign")]
        assert len(signs) == 2


async def test_sign_ins_come_in(server: MockGossipServer, recorder: Recorder) -> None:
    """The callbacks hear of them, and who() is up to date."""
    async with open_client(server, recorder) as client:
        await recorder.expect("players", "ExVenture", ("Eric",))
        await server.sign_in("ExVenture", "Zoe")
        await recorder.expect("signed in", "ExVenture", "Zoe")
        await server.sign_in("Other", "Kim")
        await recorder.expect("signed in", "Other", "Kim")
        assert client.who() == {"ExVenture": ("Eric", "Zoe"), "Other": ("Kim",)}
        await server.sign_out("ExVenture", "Eric")
        await recorder.expect("signed out", "ExVenture", "Eric")
        assert client.who() == {"ExVenture": ("Zoe",), "Other": ("Kim",)}


async def test_the_players_are_asked_for_after_authentication(
    server: MockGossipServer, recorder: Recorder
) -> None:
    """players/status with a ref and no payload; one answer for each game."""
    server.games["Other"] = MockGossipGame(name="Other", players=["Kim"])
    async with open_client(server, recorder) as client:
        event = await server.expect("players/status")
        assert uuid.UUID(event["ref"]).version == 4
        assert not event.get("payload")
        await recorder.expect("players", "ExVenture", ("Eric",))
        await recorder.expect("players", "Other", ("Kim",))
        assert client.who() == {"ExVenture": ("Eric",), "Other": ("Kim",)}


async def test_the_players_of_one_game(server: MockGossipServer) -> None:
    """fetch_players waits for the answer; UnknownGame for none."""
    async with open_client(server) as client:
        assert await client.fetch_players("ExVenture") == ("Eric",)
        with pytest.raises(gossip.RequestFailed, match="unknown game"):
            await client.fetch_players("Atlantis")
        asked = [e["payload"] for e in server.received if e.get("payload", {}).get("game")]
        assert asked == [{"game": "ExVenture"}, {"game": "Atlantis"}]


# tells


async def test_tells_go_out(server: MockGossipServer) -> None:
    """tells/send with exactly its five fields, the time in UTC with Z and no fraction."""
    east = timezone(timedelta(hours=2))
    async with open_client(server) as client:
        await client.sign_in("Bob")
        await client.tell(
            "Bob", "ExVenture", "Eric", "psst", sent_at=datetime(2018, 7, 17, 14, 0, 1, 999, east)
        )
        event = await server.expect("tells/send")
        assert uuid.UUID(event["ref"]).version == 4
        assert event["payload"] == {
            "from_name": "Bob",
            "to_game": "ExVenture",
            "to_name": "Eric",
            "sent_at": "2018-07-17T12:00:01Z",
            "message": "psst",
        }
        await client.tell("Bob", "ExVenture", "Eric", "again")
        sent_at = (await server.expect("tells/send"))["payload"]["sent_at"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", sent_at)
        ago = datetime.now(UTC) - datetime.fromisoformat(sent_at)
        assert timedelta(0) <= ago < timedelta(minutes=1)


async def test_tells_fail_in_four_ways(server: MockGossipServer) -> None:
    """Each has its own class, and all are TellFailed with the server's words."""
    server.games["Deaf"] = MockGossipGame(name="Deaf", players=["Kim"], supports=["channels"])
    async with open_client(server) as client:
        with pytest.raises(gossip.RequestFailed, match="game offline"):
            await client.tell("Bob", "Atlantis", "Eric", "psst")
        with pytest.raises(gossip.RequestFailed, match="sending player offline"):
            await client.tell("Bob", "ExVenture", "Eric", "psst")
        await client.sign_in("Bob")
        with pytest.raises(gossip.RequestFailed, match="receiving player offline"):
            await client.tell("Bob", "ExVenture", "Nobody", "psst")
        with pytest.raises(gossip.RequestFailed, match="not supported") as caught:
            await client.tell("Bob", "Deaf", "Kim", "psst")
        assert isinstance(caught.value, gossip.RequestFailed)
        assert (caught.value.event, caught.value.reason) == ("tells/send", "not supported")
        server.fail("tells/send", "invalid payload")
        with pytest.raises(gossip.RequestFailed, match="invalid payload"):
            await client.tell("Bob", "ExVenture", "Eric", "psst")


async def test_tells_come_in(server: MockGossipServer, recorder: Recorder) -> None:
    """As a Tell with its five fields."""
    async with open_client(server, recorder):
        await server.tell("ExVenture", "Eric", "Bob", "hello", "2018-07-17T13:12:28Z")
        _, tell = await recorder.expect("tell")
        assert tell == gossip.Tell(
            from_game="ExVenture",
            from_name="Eric",
            to_name="Bob",
            sent_at="2018-07-17T13:12:28Z",
            message="hello",
        )


# games


async def test_games_come_and_go(server: MockGossipServer, recorder: Recorder) -> None:
    """The callbacks hear of them, games() is up to date, and players go with their game."""
    async with open_client(server, recorder) as client:
        await recorder.expect("game")
        await server.add_game(MockGossipGame(name="New"))
        await recorder.expect("game connected", "New")
        assert sorted(client.games()) == ["ExVenture", "New"]
        await server.remove_game("ExVenture")
        await recorder.expect("game disconnected", "ExVenture")
        assert sorted(client.games()) == ["New"]
        assert "ExVenture" not in client.who()


EXVENTURE = gossip.Game(
    game="ExVenture",
    display_name="ExVenture MUD",
    description="A server",
    homepage_url="https://example.org/",
    user_agent="ExVenture 0.27",
    connections=({"type": "telnet", "host": "example.org", "port": 5555},),
    supports=("channels", "players", "tells", "games", "achievements"),
    channels=("gossip",),
    players_online_count=1,
)


async def test_games_are_asked_for_after_authentication(
    server: MockGossipServer, recorder: Recorder
) -> None:
    """games/status with a ref and no payload; everything that a game tells is kept."""
    async with open_client(server, recorder) as client:
        event = await server.expect("games/status")
        assert uuid.UUID(event["ref"]).version == 4
        assert not event.get("payload")
        await recorder.expect("game", EXVENTURE)
        assert client.games() == {"ExVenture": EXVENTURE}


async def test_one_game_is_fetched(server: MockGossipServer) -> None:
    """fetch_game waits for its answer; a failure is UnknownGame."""
    async with open_client(server) as client:
        assert await client.fetch_game("ExVenture") == EXVENTURE
        with pytest.raises(gossip.RequestFailed, match="unknown game"):
            await client.fetch_game("Atlantis")


# achievements


async def test_achievements_live_their_lives(server: MockGossipServer, recorder: Recorder) -> None:
    """Created with a key of the server's, changed, removed; each with a ref."""
    async with open_client(server, recorder) as client:
        await recorder.expect("achievements", ())
        new = gossip.Achievement(title="First!", points=10, description="Be the first")
        created = await client.create_achievement(new)
        assert created.key
        assert created.title == "First!"
        event = await server.expect("achievements/create")
        assert uuid.UUID(event["ref"]).version == 4
        assert event["payload"] == {
            "title": "First!",
            "description": "Be the first",
            "points": 10,
            "display": True,
            "partial_progress": False,
            "total_progress": None,
        }
        changed = gossip.Achievement(key=created.key, title="Second!", points=5)
        assert await client.update_achievement(changed) == changed
        assert await client.sync_achievements() == (changed,)
        await client.delete_achievement(created.key)
        assert await client.sync_achievements() == ()


async def test_achievements_come_in_batches(server: MockGossipServer, recorder: Recorder) -> None:
    """The answer to a sync is complete when all batches have come."""
    server.achievements = {
        str(n): {"key": str(n), "title": f"No {n}", "points": n} for n in range(25)
    }
    async with open_client(server, recorder) as client:
        have = await client.sync_achievements()
        assert [one.key for one in have] == [str(n) for n in range(25)]
        assert (await recorder.expect("achievements"))[1] == have


async def test_achievements_are_refused(server: MockGossipServer) -> None:
    """RequestFailed tells what was wrong with which field."""
    async with open_client(server) as client:
        with pytest.raises(gossip.RequestFailed, match=r"title: \[\"can't be blank\"\]") as caught:
            await client.create_achievement(gossip.Achievement(title=""))
        assert caught.value.errors == {"title": ["can't be blank"]}
        missing = gossip.Achievement(key="no such", title="x")
        for call in (
            lambda: client.update_achievement(missing),
            lambda: client.delete_achievement("no such"),
        ):
            with pytest.raises(gossip.RequestFailed, match="not found"):
                await call()


# failures


async def test_an_unknown_event_changes_nothing(
    server: MockGossipServer, recorder: Recorder
) -> None:
    """The server's failure without event or ref reaches System.refused."""
    async with open_client(server, recorder) as client:
        await server.send_text('{"status": "failure", "error": "unknown"}')
        await recorder.expect("refused", "", "unknown")
        await server.send_text('{"status": "failure", "error": "unauthenticated"}')
        await recorder.expect("refused", "", "unauthenticated")
        await client.subscribe("testing")
        assert client.invalid == 0


async def test_the_rate_limit_is_told(server: MockGossipServer, recorder: Recorder) -> None:
    """Without a ref by System.refused, with one by RateLimited."""
    async with open_client(server, recorder) as client:
        await server.send_text('{"status": "failure", "error": "rate limit exceeded"}')
        await recorder.expect("refused", "", "rate limit exceeded")
        server.fail("channels/subscribe", "rate limit exceeded")
        with pytest.raises(gossip.RequestFailed):
            await client.subscribe("testing")


async def test_too_much_is_not_the_end(server: MockGossipServer, recorder: Recorder) -> None:
    """After "goodbye" and a close with 4000 it connects again: the credentials were right."""
    async with open_client(server, recorder):
        await recorder.expect("authenticated")
        await server.send_text('{"status": "failure", "error": "rate limit exceeded, goodbye"}')
        await server.close(4000)
        assert (await recorder.expect("disconnected"))[1].code == 4000
        await recorder.expect("authenticated")


async def test_too_much_before_authentication_is_not_the_end(
    server: MockGossipServer, recorder: Recorder
) -> None:
    """The same close code, and the credentials were never looked at."""
    server.ignore("authenticate")

    async def hang_up() -> None:
        await server.expect("authenticate")
        [peer] = server.server.peers
        await peer.send('{"status": "failure", "error": "rate limit exceeded, goodbye"}')
        await peer.close(4000, "goodbye")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        async with open_client(server, recorder) as client:
            assert client.status is gossip.ClientStatus.ONLINE
            await recorder.expect("refused", "", "rate limit exceeded, goodbye")
            assert len(server.server.peers) == 2


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4001])
async def test_a_close_is_followed_by_another_link(
    code: int, server: MockGossipServer, recorder: Recorder
) -> None:
    """4001 after missed heartbeats, and every other one."""
    async with open_client(server, recorder):
        await recorder.expect("authenticated")
        await server.close(code)
        assert (await recorder.expect("disconnected"))[1].code == code
        await recorder.expect("authenticated")


async def test_everything_again_after_a_loss(server: MockGossipServer, recorder: Recorder) -> None:
    """Credentials, the channels of now, the lists, and the players at the next heartbeat."""
    async with open_client(server, recorder) as client:
        await recorder.expect("authenticated")
        await client.subscribe("testing")
        await client.unsubscribe("gossip")
        await client.sign_in("Bob")
        await server.expect("players/sign-in")
        await server.abort()
        await recorder.expect("disconnected")
        server.games["New"] = MockGossipGame(name="New", players=["Kim"])
        await recorder.expect("authenticated")
        await server.expect("authenticate")
        again = await server.expect("authenticate")
        assert again["payload"]["channels"] == ["testing"]
        await recorder.expect("players", "New", ("Kim",))
        await server.heartbeat()
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Bob"]}
        await client.tell("Bob", "New", "Kim", "I am back")


async def test_leaving_closes_with_1000(server: MockGossipServer) -> None:
    """And leaves nothing behind at the server."""
    async with open_client(server):
        peer = server.server.peers[0]
    while peer.closed is None:
        await trio.sleep(0.01)
    assert peer.closed.code == 1000
