"""The client over time: outages, restarts, heartbeats, refreshes, timeouts and callbacks."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.protocols.clock import MOCK_CLOCK
from tests.protocols.gossip.helpers import Recorder, Server, open_client
from tests.routing.streams import FaultyStream
from trioglock import (
    Backoff,
    BadHookResult,
    ConnectionClosed,
    ConnectionLost,
    HandshakeRefused,
    InvalidOption,
    ReconnectFailed,
    RemoteClose,
)
from trioglock.protocols import gossip
from trioglock.protocols.gossip import Client
from trioglock.routing import RequestTimeout
from trioglock.telemetry import ProtocolEvent, listen
from trioglock.testing import MockGossipGame

pytestmark = MOCK_CLOCK


async def after(seconds: float) -> None:
    """Let everything happen that is due by then."""
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


# Reconnecting.


async def test_default_backoff(server: Server, recorder: Recorder) -> None:
    """15 seconds after a loss, doubled up to two minutes, without a last attempt."""
    async with open_client(server, recorder, reconnect=True):
        await recorder.expect("authenticated")
        server.server.reject(503, times=6)
        lost = trio.current_time()
        await server.abort()
        waited = []
        for _ in range(7):
            await recorder.expect("disconnected")
            waited.append(trio.current_time() - lost)
        await recorder.expect("authenticated")
        waited.append(trio.current_time() - lost)
        assert waited == pytest.approx([0, 15, 45, 105, 225, 345, 465, 585], abs=0.1)


async def test_reconnect_after_a_restart(server: Server, recorder: Recorder) -> None:
    """After the announced downtime; the next loss has the usual delay again."""
    async with open_client(server, recorder, reconnect=True):
        await recorder.expect("authenticated")
        began = trio.current_time()
        await server.restart(42.5)
        await recorder.expect("restarting", 42.5)
        await recorder.expect("authenticated")
        assert trio.current_time() - began == pytest.approx(42.5, abs=0.1)
        await server.abort()
        began = trio.current_time()
        await recorder.expect("authenticated")
        assert trio.current_time() - began == pytest.approx(15, abs=0.1)


@pytest.mark.parametrize(("downtime", "waited"), [(-5, 0), (1e12, 86_400), (0, 0)])
async def test_the_downtime_is_limited(
    downtime: float, waited: float, server: Server, recorder: Recorder
) -> None:
    """From 0 seconds to one day."""
    async with open_client(server, recorder, reconnect=True):
        await recorder.expect("authenticated")
        began = trio.current_time()
        await server.restart(downtime)
        await recorder.expect("authenticated")
        assert trio.current_time() - began == pytest.approx(waited, abs=0.1)


async def test_a_loss_without_reconnect(server: Server) -> None:
    """Comes out of the block, also after a restart."""
    with pytest.raises(ConnectionClosed) as caught:
        async with open_client(server, reconnect=False):
            await server.restart(5)
            await trio.sleep_forever()
    assert isinstance(caught.value.cause, RemoteClose)


async def test_reconnect_failed(server: Server) -> None:
    """ReconnectFailed with every attempt, on entering the block."""
    server.server.reject(503, times=3)
    with pytest.raises(ReconnectFailed) as caught:
        async with open_client(server, reconnect=Backoff(max_attempts=3)):
            raise AssertionError("the block was entered")
    assert len(caught.value.attempts) == 3


async def test_a_final_handshake_response(server: Server) -> None:
    """A 404 is not retried."""
    server.server.reject(404)
    with pytest.raises(HandshakeRefused):
        async with open_client(server):
            raise AssertionError("the block was entered")


async def test_a_server_that_never_answers_authenticate(server: Server, recorder: Recorder) -> None:
    """The link is replaced after ten seconds; without reconnect RequestTimeout ends the block."""
    server.ignore("authenticate")
    async with open_client(server, recorder) as client:
        assert client.status is gossip.ClientStatus.ONLINE
        assert trio.current_time() >= 10
        assert len(server.server.peers) == 2
    server.ignore("authenticate")
    with pytest.raises(RequestTimeout, match="authenticate"):
        async with open_client(server, reconnect=False):
            raise AssertionError("the block was entered")


# Heartbeats.


@pytest.mark.slow
async def test_an_hour_of_heartbeats(server: Server, recorder: Recorder) -> None:
    """All are answered while a callback sleeps."""

    class Slow(Recorder):
        async def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            await trio.sleep_forever()

    async with open_client(server, Slow()):
        await server.broadcast("gossip", "A", "b", "c")
        await trio.sleep(3600)
        heartbeats = [one for one in server.received if one["event"] == "heartbeat"]
        assert len(heartbeats) == pytest.approx(241, abs=1)
        assert len(server.server.peers) == 1


# The caches.


async def test_the_status_is_requested_every_minute(server: Server) -> None:
    """It adds and removes games and players whose events were missed."""
    server.games = {"A": MockGossipGame(name="A", players=["a"]), "B": MockGossipGame(name="B")}
    async with open_client(server) as client:
        await after(1)
        assert sorted(client.games()) == ["A", "B"]
        server.games["A"].players.append("aa")
        server.games["C"] = MockGossipGame(name="C", players=["c"])
        del server.games["B"]
        await after(30)
        assert sorted(client.games()) == ["A", "B"]
        await after(30)
        assert client.who() == {"A": ("a", "aa"), "C": ("c",)}
        await after(60)
        assert client.who() == {"A": ("a", "aa"), "C": ("c",)}
        assert sorted(client.games()) == ["A", "C"]


async def test_refresh_interval(server: Server) -> None:
    """In seconds."""
    async with open_client(server, refresh_interval=600):
        await after(1205)
        asked = [one for one in server.received if one["event"] == "games/status"]
        assert len(asked) == 3


# Offline.


async def test_calls_during_an_outage(server: Server, recorder: Recorder) -> None:
    """Some are remembered, some return what is known, all others raise Offline."""
    server.games["A"] = MockGossipGame(name="A", players=["a"])
    async with open_client(server, recorder, reconnect=True) as client:
        await recorder.expect("players")
        await recorder.expect("game")
        await server.abort()
        await client.wait_offline()
        began = trio.current_time()
        await client.subscribe("testing")
        await client.unsubscribe("gossip")
        await client.sign_in("Bob")
        await client.sign_in("Ann")
        await client.sign_out("Ann")
        assert client.who() == {"A": ("a",)}
        assert list(client.games()) == ["A"]
        assert (client.channels, client.players) == (("testing",), ("Bob",))
        achievement = gossip.Achievement(title="x", key="y")
        with pytest.raises(gossip.NotSubscribed):
            await client.broadcast("gossip", "Bob", "hi")
        for call in (
            lambda: client.broadcast("testing", "Bob", "hi"),
            lambda: client.tell("Bob", "A", "a", "hi"),
            lambda: client.fetch_game("A"),
            lambda: client.fetch_players("A"),
            client.sync_achievements,
            lambda: client.create_achievement(achievement),
            lambda: client.update_achievement(achievement),
            lambda: client.delete_achievement("y"),
        ):
            with pytest.raises(gossip.Offline, match="the client is offline"):
                await call()
        assert trio.current_time() == began
        await client.wait_online()
        assert trio.current_time() - began == pytest.approx(15, abs=0.1)
        await server.expect("authenticate")
        assert (await server.expect("authenticate"))["payload"]["channels"] == ["testing"]
        await server.expect("heartbeat")
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Bob"]}


async def test_calls_before_the_first_link(server: Server, recorder: Recorder) -> None:
    """With wait=False the block is entered immediately; calls work as during an outage."""
    server.server.reject(503)
    async with open_client(server, recorder, reconnect=True, wait=False) as client:
        assert (trio.current_time(), client.status) == (0, gossip.ClientStatus.OFFLINE)
        await client.subscribe("testing")
        await client.sign_in("Bob")
        with pytest.raises(gossip.Offline):
            await client.broadcast("gossip", "Bob", "hi")
        assert (client.who(), client.games()) == ({}, {})
        await client.wait_online()
        assert trio.current_time() == pytest.approx(15, abs=0.1)
        assert (await server.expect("authenticate"))["payload"]["channels"] == ["gossip", "testing"]
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Bob"]}
    async with open_client(server, wait=False):
        pass  # left before anything happened


async def test_wait_false_with_wrong_credentials(server: Server) -> None:
    """The body is cancelled, and AuthenticationFailed comes out."""
    with pytest.raises(gossip.AuthenticationFailed):
        async with open_client(server, wait=False, client_id="unknown"):
            await trio.sleep_forever()


async def test_requests_end_with_the_link(server: Server, recorder: Recorder) -> None:
    """Offline immediately, without waiting for the timeout."""
    async with (
        open_client(server, recorder, reconnect=True) as client,
        trio.open_nursery() as nursery,
    ):
        server.ignore("tells/send")

        async def abort() -> None:
            await server.expect("tells/send")
            await server.abort()

        nursery.start_soon(abort)
        with pytest.raises(gossip.Offline, match=r"lost before 'tells/send' was answered"):
            await client.tell("Bob", "A", "a", "hi", timeout=None)
        assert trio.current_time() < 1


# Answers.


async def test_timeout(server: Server, recorder: Recorder, client: Client) -> None:
    """RequestTimeout; a late answer updates the cache and resolves nothing."""
    await after(1)
    server.ignore("games/status")
    began = trio.current_time()
    with pytest.raises(RequestTimeout, match="'games/status' within 3 seconds"):
        await client.fetch_game("A", timeout=3)
    assert trio.current_time() - began == 3
    asked = server.received[-1]
    late = MockGossipGame(name="A").to_payload()
    await server.peers[0].send_message(
        {"event": "games/status", "ref": asked["ref"], "status": "success", "payload": late}
    )
    await recorder.expect("game")
    await server.peers[0].send_message(
        {"event": "games/status", "ref": asked["ref"], "status": "failure", "error": "late"}
    )
    await recorder.expect("refused", "games/status", "late")
    assert list(client.games()) == ["A"]


async def test_answers_find_their_requests(server: Server, recorder: Recorder) -> None:
    """Fifty at a time, answered in reverse, each twice, among answers to unknown refs."""
    results: dict[str, str] = {}
    async with open_client(server, recorder, refresh_interval=1e6) as client:
        await server.expect("games/status")
        server.ignore("games/status", 50)
        async with trio.open_nursery() as nursery:

            async def fetch(name: str) -> None:
                results[name] = (await client.fetch_game(name)).user_agent

            for number in range(50):
                nursery.start_soon(fetch, f"G{number}")
            asked = [await server.expect("games/status") for _ in range(50)]
            peer = server.peers[0]
            for event in reversed(asked):
                name = event["payload"]["game"]
                payload = MockGossipGame(name=name, user_agent=name.lower()).to_payload()
                answer = {"event": "games/status", "status": "success", "payload": payload}
                for ref in ("never was", None, 7, event["ref"], event["ref"]):
                    await peer.send_message({**answer, "ref": ref})
        assert results == {f"G{n}": f"g{n}" for n in range(50)}
        assert client.invalid == 0


@pytest.mark.parametrize(
    "payload",
    [None, 3, [], {}, {"game": 3},
     {"game": "A", "supports": "all"}, {"game": "A", "connections": 1},
     {"game": "A", "players_online_count": "many"}, {"game": "A", "connections": [1]}],
)  # fmt: skip
async def test_malformed_answers_fail_their_request(payload: Any, server: Server) -> None:
    """RequestRefused says what is wrong; the link stays open."""
    async with open_client(server, flags=("games",)) as client:
        await after(1)
        server.ignore("games/status")
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                event = await server.expect("games/status")
                while not event.get("payload"):
                    event = await server.expect("games/status")
                await server.peers[0].send_message({**event, "payload": payload})

            nursery.start_soon(answer)
            with pytest.raises(gossip.RequestRefused, match="malformed"):
                await client.fetch_game("A")
        assert client.status is gossip.ClientStatus.ONLINE


MALFORMED = [
    "no json", "[]", "3", "null", '""', "{}", '{"event":3}', '{"event":""}', '{"status":"success"}',
    '{"event":"channels/broadcast"}', '{"event":"channels/broadcast","payload":[]}',
    '{"event":"channels/broadcast","payload":{"channel":"a","game":"b","name":3,"message":"c"}}',
    '{"event":"players/sign-in","payload":{"game":"a"}}', '{"event":"players/sign-out"}',
    '{"event":"players/status","payload":{"game":"a","players":[1]}}',
    '{"event":"tells/receive","payload":{"from_game":"a"}}', '{"event":"games/connect"}',
    '{"event":"games/disconnect","payload":{"game":null}}',
    '{"event":"restart"}', '{"event":"restart","payload":{"downtime":"soon"}}',
    '{"event":"restart","payload":{"downtime":true}}',
    '{"event":"games/status","payload":{"game":"a","supports":"all"}}',
]  # fmt: skip


async def test_malformed_events_are_counted(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """They reach no callback; unknown events reach event_received."""
    await after(1)
    recorder.calls.clear()
    await server.send_text(*MALFORMED)
    await server.send("weather/rain", {"mm": 3})
    _, event = await recorder.expect("event")
    assert event["payload"] == {"mm": 3}
    assert client.invalid == len(MALFORMED)
    assert recorder.calls == []
    await client.subscribe("testing")


async def test_confirmations_of_own_sign_ins_are_ignored(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """A confirmation has no payload."""
    await after(1)
    recorder.calls.clear()
    for event in ("players/sign-in", "players/sign-out"):
        await server.peers[0].send_message({"event": event, "status": "success", "ref": "r"})
    await client.subscribe("testing")
    assert (recorder.calls, client.invalid) == ([], 0)


async def test_a_channel_refused_at_authentication(
    server: Server, recorder: Recorder, client: Client
) -> None:
    """It is reported to refused() and not subscribed to again."""
    await client.subscribe("testing")
    await server.peers[0].send_message(
        {
            "event": "channels/subscribe",
            "status": "failure",
            "error": "Could not subscribe to 'gossip'",
        }
    )
    await recorder.expect("refused", "channels/subscribe")
    assert client.channels == ("testing",)


async def test_the_trace_hides_the_secret(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It shows the authentication without client_secret."""
    server.clients["id"] = ("hunter2", "Test Game")
    with caplog.at_level("DEBUG", "trioglock.trace"):
        async with open_client(server, client_secret="hunter2", trace=True, flags=()):
            pass
    assert "authenticate" in caplog.text
    assert "hunter2" not in caplog.text


# Callbacks.


async def test_callbacks_may_use_the_client(server: Server) -> None:
    """A request inside a callback is answered."""
    server.games["A"] = MockGossipGame(name="A", players=["a"])
    answers: list[Any] = []

    class Echo(Recorder):
        client: Client

        async def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            assert message.game is not None
            answers.append(await self.client.fetch_game(message.game))
            await self.client.broadcast(message.channel, "Bot", message.message.upper())

    recorder = Echo()
    async with open_client(server, recorder) as client:
        recorder.client = client
        await server.broadcast("gossip", "A", "a", "hi")
        message = await server.expect("channels/send")
        assert message["payload"] == {"channel": "gossip", "name": "Bot", "message": "HI"}
        assert answers[0].game == "A"


async def test_fault_60_an_unknown_event_can_be_answered(server: Server) -> None:
    """The result of the callback is sent, also of an async one; nothing else is accepted."""

    class Weather(Recorder):
        def event_received(self, event: Any) -> Any:
            if event["event"] == "weather/wrong":
                return "rain"
            answer = {"event": "weather/report", "payload": {"mm": event["payload"]["mm"] * 2}}
            return answer if event["payload"]["mm"] < 9 else self.report(answer)

        async def report(self, answer: Any) -> Any:
            await trio.sleep(1)
            return answer

    with pytest.raises(BadHookResult, match=r"Weather\.event_received: an event must be a dict"):
        async with open_client(server, Weather(), reconnect=True):
            for mm in (3, 9):
                await server.send("weather/rain", {"mm": mm})
                answer = await server.expect("weather/report")
                assert answer["payload"] == {"mm": mm * 2}
            await server.send("weather/rain", {"mm": 10})
            await server.abort()  # this answer is dropped
            await after(30)
            await server.send("weather/wrong")
            await trio.sleep_forever()
    reports = [event for event in server.received if event["event"] == "weather/report"]
    assert len(reports) == 2


async def test_fault_60_attributes_are_read_at_each_authentication(server: Server) -> None:
    """Channels that were added or removed change the subscriptions; the others stay."""

    class Changing(Recorder):
        versions = 0

        @property
        def user_agent(self) -> str:  # type: ignore[override]
            self.versions += 1
            return f"Game {self.versions}"

    game = Changing()
    game.channels = ("gossip", "one", "two")  # type: ignore[assignment]
    async with open_client(server, game) as client:
        await server.expect("authenticate")
        await client.subscribe("extra")
        await client.unsubscribe("two")
        game.channels = ("gossip", "two", "three")  # type: ignore[assignment]
        await server.abort()
        payload = (await server.expect("authenticate"))["payload"]
        assert payload["channels"] == ["gossip", "extra", "three"]
        assert payload["user_agent"] == f"Game {game.versions}"
        assert game.versions == 3
    game.channels = "gossip"  # type: ignore[assignment]
    with pytest.raises(InvalidOption, match="channels must be a list"):
        open_client(server, game)


async def test_fault_60_an_attribute_that_became_invalid(server: Server) -> None:
    """Comes out of the block."""
    game = Recorder()
    with pytest.raises(InvalidOption, match="a channel must be"):
        async with open_client(server, game):
            game.channels = ("no spaces",)
            await server.abort()
            await trio.sleep_forever()


async def test_fault_60_telemetry_of_every_event(server: Server, recorder: Recorder) -> None:
    """Sign-ins, heartbeats, restarts and all others, in both directions, without any secret."""
    seen: list[ProtocolEvent] = []
    with listen(seen.append, ProtocolEvent):
        async with open_client(server, recorder, flags=("players", "system")) as client:
            await client.sign_in("Bob")
            with pytest.raises(gossip.RequestRefused):
                await client.fetch_players("Atlantis")
            await server.heartbeat()
            await server.expect("heartbeat")
            await server.send_text("no json", '{"status": "failure", "error": "unknown"}')
            await server.restart(5)
            await recorder.expect("restarting", 5)
            await after(1)
    assert {(event.direction, event.name, event.status) for event in seen} == {
        ("sent", "authenticate", None),
        ("received", "authenticate", "success"),
        ("sent", "players/sign-in", None),
        ("sent", "players/status", None),
        ("received", "players/status", "failure"),
        ("received", "heartbeat", None),
        ("sent", "heartbeat", None),
        ("received", "restart", None),
        ("received", "", "failure"),
    }
    assert {event.protocol for event in seen} == {"gossip"}
    assert "secret" not in repr(seen)


async def test_exceptions_of_callbacks_come_out(server: Server) -> None:
    """As they were raised; the server gets a Close frame with 1011."""

    class Broken(Recorder):
        def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            raise ZeroDivisionError(message.message)

    with pytest.raises(ZeroDivisionError, match="oops"):
        async with open_client(server, Broken()):
            await server.broadcast("gossip", "A", "a", "oops")
            await trio.sleep_forever()
    await after(1)
    closed = server.server.peers[0].closed
    assert closed is not None
    assert closed.code == 1011


async def test_two_failures_come_out_together(server: Server) -> None:
    """The exceptions of the body and of a callback, in one group."""

    class Broken(Recorder):
        def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_client(server, Broken()):
            try:
                await server.broadcast("gossip", "A", "a", "oops")
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ZeroDivisionError}
    with pytest.raises(KeyError):
        async with open_client(server):
            raise KeyError("mine")


async def test_offline_as_a_consequence(server: Server) -> None:
    """Offline raised by the body after a failure is left out."""

    class Broken(Recorder):
        def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_client(server, Broken()) as client:
            await server.broadcast("gossip", "A", "a", "oops")
            with trio.CancelScope(shield=True):
                await after(1)
                await server.abort()
                await client.wait_offline()
                await client.fetch_game("A")


@pytest.mark.parametrize("wrong", ["Bob", 3, [3], ["\ud800"]])
async def test_an_invalid_list_of_players(wrong: Any, server: Server) -> None:
    """BadHookResult names the callback."""

    class Wrong(Recorder):
        def players(self) -> Any:
            return wrong

    with pytest.raises(BadHookResult, match=r"Wrong\.players must return a list of names"):
        async with open_client(server, Wrong()):
            await trio.sleep_forever()


async def test_slow_callbacks(server: Server) -> None:
    """max_callbacks calls wait; the oldest are dropped and counted."""
    received: list[str] = []

    class Slow(Recorder):
        async def message_broadcast(self, message: gossip.ChannelMessage) -> None:
            received.append(message.message)
            await trio.sleep(10)

    async with open_client(server, Slow(), flags=(), max_callbacks=3) as client:
        for number in range(10):
            await server.broadcast("gossip", "A", "a", str(number))
        await client.subscribe("testing")
        await after(100)
        assert received[-3:] == ["7", "8", "9"]
        assert client.dropped == 10 - len(received)


# Cancellation.


async def test_cancelled_calls(server: Server, client: Client) -> None:
    """They leave no request behind."""
    await after(1)
    server.ignore("games/status")
    with trio.move_on_after(1):
        await client.fetch_game("A", timeout=None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.subscribe("testing")
    assert not client._socket.requests
    await client.subscribe("other")


async def test_cancelled_blocks(server: Server, recorder: Recorder) -> None:
    """Before and after authentication; neither a group nor Cancelled comes out."""
    server.ignore("authenticate", 99)
    with trio.move_on_after(3) as scope:
        async with open_client(server):
            raise AssertionError("the block was entered")
    assert scope.cancelled_caught
    server.ignore("authenticate", -99 + 1)
    with trio.move_on_after(3) as scope:
        async with open_client(server):
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("later", ["short", "long" * 100])
async def test_a_server_that_stops_reading(server: Server, recorder: Recorder, later: str) -> None:
    """Calls end with their timeout or with the link, whether the loss empties the queue or not."""
    streams: list[FaultyStream] = []

    async def open_stream() -> FaultyStream:
        streams.append(FaultyStream(await server.open_stream()))
        return streams[-1]

    async with open_client(
        server, recorder, write_limit=150, stream=open_stream, flags=("system",)
    ) as client:
        await after(1)
        streams[0].stuck = True
        for text in ("this one is being written", later):
            await client.broadcast("gossip", "Bob", text)
            await after(0.1)
        began = trio.current_time()
        with pytest.raises(RequestTimeout, match="channels/send"):
            await client.broadcast("gossip", "Bob", "hi", timeout=2)
        assert trio.current_time() - began == 2
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(gossip.Offline, match="lost before 'channels/send' was sent"):
                    await client.broadcast("gossip", "Bob", "hi", timeout=None)

            nursery.start_soon(send)
            await after(1)
            await server.abort()
        assert isinstance((await recorder.expect("disconnected"))[1], ConnectionLost)
        await client.wait_online()
        await client.broadcast("gossip", "Bob", "again")


async def test_options_are_checked() -> None:
    """InvalidOption says what is allowed."""
    given: dict[str, Any] = {
        "client_id": "i",
        "client_secret": "s",
        "channels": gossip.ChannelsCallbacks(),
    }
    wrong: list[tuple[str, Any]] = [
        ("channels", None), ("channels", gossip.ChannelsCallbacks),
        ("players", gossip.TellsCallbacks()), ("tells", True),
        ("client_id", ""), ("client_secret", None), ("version", 2), ("refresh_interval", 0),
        ("max_callbacks", 0), ("reconnect", 3), ("url", "http://example.org"),
    ]  # fmt: skip
    for name, value in wrong:
        with pytest.raises(ValueError, match=name if name != "url" else "http"):
            gossip.connect(**{**given, name: value})

    class Bad(gossip.ChannelsCallbacks):
        channels = "gossip"

    class Worse(gossip.ChannelsCallbacks):
        channels = ("no spaces",)

    for core in (Bad(), Worse()):
        with pytest.raises(InvalidOption, match="channel"):
            gossip.connect(**{**given, "channels": core})


async def test_arguments_are_checked(server: Server) -> None:
    """Before anything is sent; calls of a flag need its callbacks."""
    async with open_client(server, flags=()) as client:
        for call in (
            lambda: client.broadcast("gossip", "", "x"),
            lambda: client.broadcast("gossip", "x", ""),
            lambda: client.sign_in(""),
            lambda: client.sign_out(3),  # type: ignore[arg-type]
            lambda: client.tell("", "a", "b", "c"),
            lambda: client.tell("a", "b", "c", "d", sent_at="now"),  # type: ignore[arg-type]
            lambda: client.fetch_game(""),
            lambda: client.create_achievement("x"),  # type: ignore[arg-type]
            lambda: client.update_achievement(gossip.Achievement(title="x")),
            lambda: client.subscribe("testing", timeout=-1),
        ):
            with pytest.raises(InvalidOption):
                await call()
        calls: list[tuple[str, Any]] = [
            ("tells", lambda: client.tell("a", "b", "c", "d")),
            ("games", lambda: client.fetch_game("A")),
            ("players", lambda: client.fetch_players("A")),
            ("achievements", client.sync_achievements),
        ]
        for flag, call in calls:
            with pytest.raises(gossip.NotSupported, match=f"'{flag}'"):
                await call()
        assert list(client.channels) == ["gossip"]


async def test_fault_60_text_that_cannot_be_sent_is_refused_by_the_call(
    server: Server, recorder: Recorder
) -> None:
    """It is not stored either: it would end the client at the next heartbeat."""
    async with open_client(server, recorder, flags=("tells",)) as client:
        for call in (
            client.sign_in("Bob\ud800"),
            client.sign_out("Bob\ud800"),
            client.broadcast("gossip", "Bob", "\udc00"),
            client.tell("Bob\ud800", "Game", "Al", "hello"),
            client.tell("Bob", "Game", "Al", "hello\ud800"),
        ):
            with pytest.raises(InvalidOption, match="is not valid Unicode"):
                await call
        assert client.players == ()
        await server.heartbeat()
        assert (await server.expect("heartbeat"))["payload"] == {"players": []}
    with pytest.raises(InvalidOption, match="version is not valid Unicode"):
        open_client(server, recorder, version="\ud800")


async def test_fault_60_a_refresh_interval_is_required(server: Server, recorder: Recorder) -> None:
    """None was accepted, and ended the client with a TypeError."""
    with pytest.raises(InvalidOption, match="refresh_interval must be a number of seconds"):
        open_client(server, recorder, refresh_interval=None)


async def test_fault_60_the_players_may_be_a_generator(server: Server) -> None:
    """They were consumed by the check, so that nobody was online."""

    class Game(Recorder):
        def players(self) -> Any:
            return (name for name in ("Al", "Bob"))

    async with open_client(server, Game()):
        await server.heartbeat()
        assert (await server.expect("heartbeat"))["payload"] == {"players": ["Al", "Bob"]}


async def test_fault_25_games_may_be_changed_by_callbacks_and_callers(
    server: Server, recorder: Recorder
) -> None:
    """They are copies: the next caller gets what the network said."""
    connection = {"type": "telnet", "host": "a.test", "port": 23}
    details = {"connections": [connection]}
    await server.add_game(MockGossipGame(name="Atlantis", details=details))
    async with open_client(server, recorder, flags=("games",)) as client:
        fetched = await client.fetch_game("Atlantis")
        fetched.connections[0]["host"] = "b.test"
        client.games()["Atlantis"].connections[0].clear()
        assert client.games()["Atlantis"].connections == (connection,)
