"""MockGossipServer answers any client as Grapevine does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.protocols.clock import MOCK_CLOCK, REAL_CLOCK
from tests.protocols.gossip.helpers import Recorder, open_client
from trioglock import Connection, ConnectionClosed, connect
from trioglock.protocols import gossip
from trioglock.testing import MockGossipGame, MockGossipServer

pytestmark = MOCK_CLOCK


async def ask(conn: Connection[None], event: Any, **payload: Any) -> dict[str, Any]:
    await conn.send(json.dumps({"event": event, "ref": "r", "payload": payload}))
    return await answer(conn)


async def answer(conn: Connection[None]) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await conn.receive())
    return message


HELLO = {"client_id": "id", "client_secret": "secret", "supports": ["channels"], "channels": []}


async def test_before_authentication() -> None:
    """Other events are unauthenticated; wrong credentials are refused and closed with 4000."""
    for wrong, error in (
        ({"client_secret": "x"}, "invalid credentials"),
        ({"client_id": ["x"]}, "invalid credentials"),
        ({"supports": []}, "missing supports"),
        ({"supports": ["games"]}, "must support channels"),
        ({"supports": ["channels", "x"]}, "includes unknown supports"),
    ):
        async with (
            MockGossipServer(memory=True) as server,
            connect(server.url, stream=server.open_stream) as conn,
        ):
            assert await ask(conn, "heartbeat") == {"status": "failure", "error": "unauthenticated"}
            failed = await ask(conn, "authenticate", **{**HELLO, **wrong})
            assert (failed["status"], failed["error"]) == ("failure", error)
            await conn.wait_closed()
            assert conn.close_code == 4000


async def test_after_authentication() -> None:
    """A heartbeat follows; unknown events, invalid JSON and missing flags are failures."""
    async with (
        MockGossipServer(memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        hello = await ask(conn, "authenticate", **{**HELLO, "channels": ["gossip", "a b"]})
        assert (hello["status"], hello["ref"]) == ("success", "r")
        assert hello["payload"] == {"unicode": "✔️", "version": "2.3.0"}
        refused = await answer(conn)
        assert refused["error"] == "Could not subscribe to 'a b'"
        assert (await answer(conn))["event"] == "heartbeat"
        unknown = {"status": "failure", "error": "unknown"}
        for event in ("no/such", 3, None, "authenticate"):
            assert await ask(conn, event) == unknown
        for junk in ("junk", "[]"):
            await conn.send(junk)
            assert await answer(conn) == unknown
        missing = await ask(conn, "tells/send")
        assert missing["error"] == 'missing support for "tells"'
        wrong = await ask(conn, "channels/subscribe")
        assert wrong["error"] == "an error occurred, try again"
        await conn.send('{"event": "channels/subscribe", "payload": {"channel": "quiet"}}')
        assert (await ask(conn, "channels/subscribe", channel="testing"))["status"] == "success"
        assert server.online()[0].channels == ["gossip", "quiet", "testing"]


async def test_missed_heartbeats() -> None:
    """After three without an answer the server closes with 4001."""
    async with (
        MockGossipServer(memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await ask(conn, "authenticate", **HELLO)
        heartbeats = 0
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                heartbeats += (await answer(conn))["event"] == "heartbeat"
        assert caught.value.code == 4001
        assert (heartbeats, trio.current_time()) == (3, 45)


async def test_the_rate_limit() -> None:
    """Failures first, then a close with 4000; the limit recovers with time."""
    async with (
        MockGossipServer(memory=True, rate_limit=(3, 1), heartbeat_interval=None) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await ask(conn, "authenticate", **HELLO)
        for _ in range(2):
            assert (await ask(conn, "channels/send"))["status"] == "failure"
        limited = {"status": "failure", "error": "rate limit exceeded"}
        assert await ask(conn, "channels/send") == limited
        await trio.sleep(1)
        assert await ask(conn, "channels/unsubscribe", channel="x") != limited
        for _ in range(4):
            assert await ask(conn, "x") == limited
        goodbye = {"status": "failure", "error": "rate limit exceeded, goodbye"}
        assert await ask(conn, "x") == goodbye
        await conn.wait_closed()
        assert conn.close_code == 4000


async def test_two_clients() -> None:
    """They exchange messages, sign-ins, tells and status."""
    ours, theirs = Recorder(), Recorder()
    async with MockGossipServer(memory=True) as server:
        server.clients["other"] = ("password", "Other")
        async with open_client(server, ours) as client:
            async with open_client(
                server, theirs, client_id="other", client_secret="password"
            ) as other:
                await ours.expect("game connected", "Other")
                await client.sign_in("Bob")
                await theirs.expect("signed in", "Test Game", "Bob")
                await other.sign_in("Kim")
                await ours.expect("signed in", "Other", "Kim")
                await other.broadcast("gossip", "Kim", "hi")
                _, message = await ours.expect("message")
                assert (message.game, message.name, message.message) == ("Other", "Kim", "hi")
                assert not [call for call in theirs.calls if call[0] == "message"]
                await client.tell("bob", "OTHER", "kim", "psst")
                _, tell = await theirs.expect("tell")
                assert (tell.from_game, tell.from_name, tell.to_name) == ("Test Game", "bob", "kim")
                game = await client.fetch_game("Other")
                assert (game.user_agent, game.players_online_count) == ("Recorder 1.0", 1)
                assert await other.fetch_players("Test Game") == ("Bob",)
                await other.sign_out("Kim")
                await ours.expect("signed out", "Other", "Kim")
            await ours.expect("game disconnected", "Other")
            assert client.games() == {}


async def test_control() -> None:
    """Other games, failures, ignored events and expect()."""
    async with MockGossipServer(memory=True) as server, open_client(server) as client:
        await server.add_game(MockGossipGame(name="A"))
        await server.sign_in("A", "x")
        await server.sign_in("A", "x")
        await server.sign_in("B", "y")
        await server.sign_out("A", "x")
        await server.sign_out("A", "Unknown")
        assert {name: game.players for name, game in server.games.items()} == {"A": [], "B": ["y"]}
        assert await client.fetch_players("B") == ("y",)
        server.fail("channels/subscribe", "no")
        with pytest.raises(gossip.RequestRefused, match="no"):
            await client.subscribe("testing")
        await client.subscribe("testing")
        asked = [await server.expect("channels/subscribe") for _ in range(2)]
        assert asked[0]["ref"] != asked[1]["ref"]
        peer = server.peers[0]
    await peer.send("too/late")  # nothing happens
    assert server.peers == []


@REAL_CLOCK
async def test_the_pytest_fixture(mock_gossip_server: MockGossipServer) -> None:
    """``mock_gossip_server`` listens on a free port."""
    with trio.fail_after(300):
        async with gossip.connect(
            mock_gossip_server.url,
            client_id="id",
            client_secret="secret",
            channels=gossip.ChannelsCallbacks(),
        ) as client:
            await client.subscribe("testing")
            assert (await mock_gossip_server.expect("channels/subscribe"))["payload"][
                "channel"
            ] == "testing"


@pytest.mark.parametrize(
    "payload", [5, [], {"client_id": "id", "client_secret": "secret", "supports": 5}]
)
async def test_fault_62_a_malformed_authentication_does_not_end_the_server(payload: Any) -> None:
    """It raised an AttributeError or a TypeError out of the server's block."""
    event = json.dumps({"event": "authenticate", "payload": payload})
    async with (
        MockGossipServer(memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await conn.send(event)
        assert (await answer(conn))["status"] == "failure"


async def test_fault_62_a_malformed_payload_does_not_end_the_server() -> None:
    """It is a failure, like an exception in the server's handler."""
    supports = ["channels", "achievements"]
    async with (
        MockGossipServer(memory=True, heartbeat_interval=None) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await ask(conn, "authenticate", **{**HELLO, "supports": supports})
        await conn.send('{"event": "achievements/create", "ref": "r", "payload": "text"}')
        assert (await answer(conn))["error"] == "an error occurred, try again"
        await conn.send("[" * 100_000)
        assert await answer(conn) == {"status": "failure", "error": "unknown"}
