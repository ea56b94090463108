"""The events of the protocol, as a client sends and receives them."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import trio

from tests.protocols.gossip.helpers import Recorder, Server, open_client
from trioglock import EncodeError, InvalidOption, TrioWebsocketTransport
from trioglock.protocols import gossip
from trioglock.protocols.gossip import Client
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
    with trio.fail_after(300):
        async with MockGossipServer(memory=True, heartbeat_interval=None) as server:
            server.games["ExVenture"] = game
            yield server


# channels


async def test_authenticate_is_first_and_complete(server: Server, client: Client) -> None:
    """Credentials, flags, channels, version and user agent, before any other event."""
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


async def test_callbacks_opt_into_flags(server: Server) -> None:
    """Without callbacks there is no flag and no status request."""
    async with open_client(server, flags=("tells", "system")) as client:
        assert server.received[0]["payload"]["supports"] == ["channels", "tells"]
        await client.subscribe("testing")
        assert [e["event"] for e in server.received] == ["authenticate", "channels/subscribe"]


async def test_the_version_of_the_server(recorder: Recorder, client: Client) -> None:
    """authenticated() gets it."""
    assert (await recorder.expect("authenticated"))[1] == "2.3.0"


async def test_wrong_credentials_are_final(server: Server) -> None:
    """AuthenticationFailed with the reason of the server, and no second attempt."""
    with pytest.raises(gossip.AuthenticationFailed, match="invalid credentials"):
        async with open_client(server, client_secret="wrong"):
            raise AssertionError("the block was entered")
    assert len(server.server.peers) == 1


async def test_a_malformed_answer_to_authenticate(server: Server) -> None:
    """It is counted; a valid answer authenticates, and a second one is ignored."""
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


async def test_4000_while_authenticating_is_final(server: Server) -> None:
    """Also without a failure before it."""
    server.ignore("authenticate")

    async def hang_up() -> None:
        await server.expect("authenticate")
        await server.server.peers[0].close(4000, "no")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        with pytest.raises(gossip.AuthenticationFailed, match="4000"):
            async with open_client(server):
                raise AssertionError("the block was entered")


async def test_heartbeats_are_answered_with_the_players(server: Server, client: Client) -> None:
    """With the players who are signed in."""
    await client.sign_in("Bob")
    await client.sign_in("Ann")
    await client.sign_out("Bob")
    await server.heartbeat()
    heartbeat = await server.expect("heartbeat")
    assert heartbeat["payload"] == {"players": ["Ann"]}
    assert client.players == ("Ann",)


async def test_the_callback_players(server: Server) -> None:
    """It replaces the list of signed-in players in heartbeats."""

    class Own(Recorder):
        def players(self) -> list[str]:
            return ["Cid", "Dee"]

    async with open_client(server, Own()):
        await server.heartbeat()
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Cid", "Dee"]}


async def test_subscribe_and_unsubscribe(server: Server, client: Client) -> None:
    """With a UUID as ref; the calls return after the confirmation."""
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


async def test_a_refused_channel(server: Server, client: Client) -> None:
    """RequestRefused with the reason of the server; the channel is forgotten."""
    server.fail("channels/subscribe", "Could not subscribe to 'secret'")
    with pytest.raises(gossip.RequestRefused, match="Could not subscribe to 'secret'"):
        await client.subscribe("secret")
    assert client.channels == ("gossip",)


@pytest.mark.parametrize("name", ["ab", "a" * 16, "a b", "a1b", "", "grün", "a\n", None, 3])
async def test_channel_names_are_checked(name: Any, server: Server) -> None:
    """Invalid names raise InvalidOption before anything is sent."""
    async with open_client(server, flags=()) as client:
        for call in (client.subscribe, client.unsubscribe):
            with pytest.raises(InvalidOption, match="3 to 15 letters"):
                await call(name)
        assert len(server.received) == 1
        await client.subscribe("a_B-c")


async def test_messages_go_to_subscribed_channels_only(server: Server, client: Client) -> None:
    """channels/send has three fields; other channels raise NotSubscribed."""
    await client.broadcast("gossip", "Bob", "Hello!")
    event = await server.expect("channels/send")
    assert event["payload"] == {"channel": "gossip", "name": "Bob", "message": "Hello!"}
    with pytest.raises(gossip.NotSubscribed, match="'testing'"):
        await client.broadcast("testing", "Bob", "Hello?")


async def test_broadcasts_reach_the_callback(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """As a ChannelMessage."""
    await server.broadcast("gossip", "ExVenture", "Eric", "Hello, ☕!")
    _, message = await recorder.expect("message")
    assert message == gossip.ChannelMessage(
        channel="gossip", game="ExVenture", name="Eric", message="Hello, ☕!"
    )


# players


@pytest.mark.parametrize("sender", [{}, {"game": None, "name": None}, {"game": "A"}])
async def test_fault_61_a_broadcast_without_a_sender(
    sender: dict[str, Any], server: Server, recorder: Recorder, client: Client
) -> None:
    """The network, or a peer, may leave out who sent it."""
    await server.send("channels/broadcast", {"channel": "gossip", "message": "hi", **sender})
    _, message = await recorder.expect("message")
    expected = gossip.ChannelMessage(
        channel="gossip", game=sender.get("game"), name=None, message="hi"
    )
    assert message == expected
    tell = {"to_name": "Bob", "message": "psst", "from_game": sender.get("game")}
    await server.send("tells/receive", tell)
    _, received = await recorder.expect("tell")
    assert (received.from_game, received.from_name) == (sender.get("game"), None)
    assert client.invalid == 0


async def test_fault_61_a_status_without_a_payload(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """It names no game, as when none is online: nothing changes, and it is not malformed."""
    await recorder.expect("players", "ExVenture")
    await trio.testing.wait_all_tasks_blocked()
    recorder.calls.clear()
    for event in ("players/status", "games/status"):
        fields: dict[str, Any]
        for fields in ({}, {"payload": None}, {"payload": {}}, {"status": "success"}):
            await server.peers[0].send_message({"event": event, "ref": "r", **fields})
    await client.subscribe("testing")
    assert (recorder.calls, client.invalid) == ([], 0)
    assert client.who() == {"ExVenture": ("Eric",)}


async def test_fault_61_who_is_sorted_and_has_no_empty_games(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """A game whose last player has signed out is not listed; names and games are sorted."""
    for game, name in (("Zork", "Zoe"), ("Zork", "Al"), ("Adventure", "Kim")):
        await server.sign_in(game, name)
        await recorder.expect("signed in", game, name)
    players = {"Adventure": ("Kim",), "ExVenture": ("Eric",), "Zork": ("Al", "Zoe")}
    assert list(client.who().items()) == list(players.items())
    await server.sign_out("Adventure", "Kim")
    await recorder.expect("signed out", "Adventure", "Kim")
    assert list(client.who()) == ["ExVenture", "Zork"]


async def test_own_sign_ins(server: Server, client: Client) -> None:
    """players/sign-in and players/sign-out, once for each change."""
    await client.sign_in("Bob")
    await client.sign_in("Bob")
    await client.sign_out("Bob")
    await client.sign_out("Bob")
    assert (await server.expect("players/sign-in"))["payload"] == {"name": "Bob"}
    assert (await server.expect("players/sign-out"))["payload"] == {"name": "Bob"}
    await client.subscribe("testing")
    signs = [e for e in server.received if e["event"].startswith("players/sign")]
    assert len(signs) == 2


async def test_sign_ins_of_other_games(server: Server, recorder: Recorder, client: Client) -> None:
    """They reach the callbacks and update who()."""
    await recorder.expect("players", "ExVenture", ("Eric",))
    await server.sign_in("ExVenture", "Zoe")
    await recorder.expect("signed in", "ExVenture", "Zoe")
    await server.sign_in("Other", "Kim")
    await recorder.expect("signed in", "Other", "Kim")
    assert client.who() == {"ExVenture": ("Eric", "Zoe"), "Other": ("Kim",)}
    await server.sign_out("ExVenture", "Eric")
    await recorder.expect("signed out", "ExVenture", "Eric")
    assert client.who() == {"ExVenture": ("Zoe",), "Other": ("Kim",)}


async def test_the_players_are_requested_after_authentication(
    server: Server, recorder: Recorder
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


async def test_the_players_of_one_game(server: Server, client: Client) -> None:
    """fetch_players waits for the answer; an unknown game raises RequestRefused."""
    assert await client.fetch_players("ExVenture") == ("Eric",)
    with pytest.raises(gossip.RequestRefused, match="unknown game"):
        await client.fetch_players("Atlantis")
    asked = [e["payload"] for e in server.received if e.get("payload", {}).get("game")]
    assert asked == [{"game": "ExVenture"}, {"game": "Atlantis"}]


async def test_fault_60_the_status_of_all_games_on_request(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """fetch_players() and fetch_games() do not wait for the next interval, and drop no entry."""
    await recorder.expect("players", "ExVenture")
    server.games["New"] = MockGossipGame(name="New", players=["Kim"])
    assert not client.game_online("New")
    for _ in range(3):
        await client.fetch_players()
        await client.fetch_games()
    assert client.who() == {"ExVenture": ("Eric",)}
    await recorder.expect("players", "New", ("Kim",))
    await client.subscribe("testing")
    assert client.game_online("New")
    assert client.who() == {"ExVenture": ("Eric",), "New": ("Kim",)}
    async with open_client(server, flags=()) as other:
        with pytest.raises(gossip.NotSupported):
            await other.fetch_players()
        with pytest.raises(gossip.NotSupported):
            await other.fetch_games()


async def test_fault_60_any_event_can_be_sent(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """Unchanged; an answer is an ordinary event."""
    event = {"event": "weather/ask", "ref": "r", "more": [1], "payload": {"where": "here"}}
    await client.send(event)
    assert await server.expect("weather/ask") == event
    await recorder.expect("refused")  # the mock does not know it
    wrong: Any
    for wrong in ("text", {}, {"event": ""}, {"event": 3}, [event]):
        with pytest.raises(InvalidOption, match="an event must be a dict"):
            await client.send(wrong)
    with pytest.raises(EncodeError):
        await client.send({"event": "x", "payload": {1, 2}})
    await server.close(1000)
    await client.wait_offline()
    with pytest.raises(gossip.Offline):
        await client.send(event)


# tells


async def test_send_a_tell(server: Server) -> None:
    """tells/send has five fields; the time is in UTC with Z and no fraction."""
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


async def test_failed_tells(server: Server) -> None:
    """RequestRefused with the reason of the server."""
    server.games["Deaf"] = MockGossipGame(name="Deaf", players=["Kim"], supports=["channels"])
    async with open_client(server) as client:
        with pytest.raises(gossip.RequestRefused, match="game offline"):
            await client.tell("Bob", "Atlantis", "Eric", "psst")
        with pytest.raises(gossip.RequestRefused, match="sending player offline"):
            await client.tell("Bob", "ExVenture", "Eric", "psst")
        await client.sign_in("Bob")
        with pytest.raises(gossip.RequestRefused, match="receiving player offline"):
            await client.tell("Bob", "ExVenture", "Unknown", "psst")
        with pytest.raises(gossip.RequestRefused, match="not supported") as caught:
            await client.tell("Bob", "Deaf", "Kim", "psst")
        assert isinstance(caught.value, gossip.RequestRefused)
        assert (caught.value.event, caught.value.reason) == ("tells/send", "not supported")
        server.fail("tells/send", "invalid payload")
        with pytest.raises(gossip.RequestRefused, match="invalid payload"):
            await client.tell("Bob", "ExVenture", "Eric", "psst")


async def test_receive_a_tell(server: Server, recorder: Recorder, client: Client) -> None:
    """As a Tell with five fields."""
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


async def test_games_connect_and_disconnect(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """The callbacks are called, games() is updated, and players leave with their game."""
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


async def test_the_games_are_requested_after_authentication(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """games/status with a ref and no payload; all fields are kept."""
    event = await server.expect("games/status")
    assert uuid.UUID(event["ref"]).version == 4
    assert not event.get("payload")
    await recorder.expect("game", EXVENTURE)
    assert client.games() == {"ExVenture": EXVENTURE}


async def test_fetch_game(client: Client) -> None:
    """It waits for the answer; an unknown game raises RequestRefused."""
    assert await client.fetch_game("ExVenture") == EXVENTURE
    with pytest.raises(gossip.RequestRefused, match="unknown game"):
        await client.fetch_game("Atlantis")


# achievements


async def test_create_update_and_delete_achievements(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """The server assigns the key; each event has a ref."""
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


async def test_achievements_come_in_batches(server: Server, recorder: Recorder) -> None:
    """sync_achievements() returns after the last batch."""
    server.achievements = {
        str(n): {"key": str(n), "title": f"No {n}", "points": n} for n in range(25)
    }
    async with open_client(server, recorder) as client:
        have = await client.sync_achievements()
        assert [one.key for one in have] == [str(n) for n in range(25)]
        assert (await recorder.expect("achievements"))[1] == have


async def test_invalid_achievements(client: Client) -> None:
    """RequestRefused has the problems of each field."""
    with pytest.raises(gossip.RequestRefused, match=r"title: \[\"can't be blank\"\]") as caught:
        await client.create_achievement(gossip.Achievement(title=""))
    assert caught.value.errors == {"title": ["can't be blank"]}
    missing = gossip.Achievement(key="no such", title="x")
    for call in (
        lambda: client.update_achievement(missing),
        lambda: client.delete_achievement("no such"),
    ):
        with pytest.raises(gossip.RequestRefused, match="not found"):
            await call()


# failures


async def test_failures_without_an_event(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """They reach refused() and change nothing else."""
    await server.send_text('{"status": "failure", "error": "unknown"}')
    await recorder.expect("refused", "", "unknown")
    await server.send_text('{"status": "failure", "error": "unauthenticated"}')
    await recorder.expect("refused", "", "unauthenticated")
    await client.subscribe("testing")
    assert client.invalid == 0


async def test_the_rate_limit_of_the_server(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """It reaches refused(), or raises RequestRefused; the channel is kept for the next link."""
    await server.send_text('{"status": "failure", "error": "rate limit exceeded"}')
    await recorder.expect("refused", "", "rate limit exceeded")
    server.fail("channels/subscribe", "rate limit exceeded")
    with pytest.raises(gossip.RequestRefused):
        await client.subscribe("testing")
    assert "testing" in client.channels


async def test_reconnect_after_abuse_of_the_rate_limit(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """A close with 4000 is not final after a successful authentication."""
    await recorder.expect("authenticated")
    await server.send_text('{"status": "failure", "error": "rate limit exceeded, goodbye"}')
    await server.close(4000)
    assert (await recorder.expect("disconnected"))[1].code == 4000
    await recorder.expect("authenticated")


async def test_reconnect_after_abuse_before_authentication(
    server: Server, recorder: Recorder
) -> None:
    """The close code is the same as for wrong credentials."""
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
async def test_reconnect_after_a_close(
    code: int, server: Server, recorder: Recorder, client: Client
) -> None:
    """After every close code."""
    await recorder.expect("authenticated")
    await server.close(code)
    assert (await recorder.expect("disconnected"))[1].code == code
    await recorder.expect("authenticated")


async def test_the_state_is_restored_after_a_loss(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """Credentials, present channels, games and players, and own players at the next heartbeat."""
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


async def test_leaving_the_block_closes_with_1000(server: Server) -> None:
    """With a closing handshake."""
    async with open_client(server):
        peer = server.server.peers[0]
    while peer.closed is None:
        await trio.sleep(0.01)
    assert peer.closed.code == 1000


@pytest.mark.parametrize("transport", [None, TrioWebsocketTransport()], ids=["native", "trio"])
async def test_over_tcp(transport: TrioWebsocketTransport | None, recorder: Recorder) -> None:
    """Over both transports: a session with messages both ways, a loss and a new link."""
    with trio.fail_after(300):
        async with MockGossipServer() as server:
            options: dict[str, Any] = {"stream": None, "transport": transport}
            async with open_client(server, recorder, **options) as client:
                await client.subscribe("testing")
                await server.broadcast("testing", "ExVenture", "Eric", "Hello, ☕!")
                assert (await recorder.expect("message"))[1].message == "Hello, ☕!"
                await server.abort()
                await recorder.expect("disconnected")
                await recorder.expect("authenticated")
                await client.broadcast("testing", "Bob", "Back again")
                await server.expect("channels/send")
