"""Known defects of other clients: links that are lost, dead, late or replaced."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio

from tests.protocols.clock import MOCK_CLOCK
from tests.protocols.gossip.helpers import SHORT_BACKOFF, Recorder, open_client
from tests.routing.streams import FaultyStream
from trioglock import Backoff, HeartbeatTimeout
from trioglock.protocols import gossip
from trioglock.routing import RequestTimeout
from trioglock.testing import MockGossipGame, MockGossipServer

pytestmark = MOCK_CLOCK

SHORTEST_BACKOFF = Backoff(initial=0.001, multiplier=1, jitter="none", max_attempts=None)


async def test_24_timers_belong_to_one_link() -> None:
    """Each link has ten seconds to authenticate."""
    async with MockGossipServer(memory=True, heartbeat_interval=None) as server:
        server.ignore("authenticate", 2)
        async with open_client(server, reconnect=SHORTEST_BACKOFF, wait=False) as client:
            await trio.sleep(9)
            await server.abort()
            await trio.sleep(8)
            assert len(server.server.peers) == 2
            await server.server.peers[1].abort()
            await client.wait_online()
            await trio.sleep(60)
            assert len(server.server.peers) == 3


async def test_25_a_dead_link_is_aborted() -> None:
    """The request ends when the heartbeat expires, and the client reconnects."""
    streams: list[FaultyStream] = []
    recorder = Recorder()
    async with MockGossipServer(memory=True) as server:

        async def open_stream() -> FaultyStream:
            streams.append(FaultyStream(await server.open_stream()))
            return streams[-1]

        async with open_client(
            server, recorder, stream=open_stream, ping_interval=5, ping_timeout=5, reconnect=True
        ) as client:
            await recorder.expect("authenticated")
            streams[0].dead = True
            began = trio.current_time()
            with pytest.raises(gossip.Offline):
                await client.fetch_game("A", timeout=None)
            assert trio.current_time() - began <= 10
            assert isinstance((await recorder.expect("disconnected"))[1], HeartbeatTimeout)
            await recorder.expect("authenticated")
            assert trio.current_time() - began <= 25.1


async def test_26_reconnect_after_missed_heartbeats() -> None:
    """The server closes with 4001; the function for the URL is called again."""
    asked: list[str] = []
    recorder = Recorder()
    async with MockGossipServer(memory=True) as server:

        async def url() -> str:
            asked.append(f"{server.url}?token={len(asked)}")
            return asked[-1]

        async with gossip.connect(
            url,
            client_id="id",
            client_secret="secret",
            channels=recorder,
            system=recorder,
            stream=server.open_stream,
            reconnect=SHORT_BACKOFF,
        ):
            await recorder.expect("authenticated")
            server.ignore("heartbeat", 4)
            assert (await recorder.expect("disconnected"))[1].code == 4001
            await recorder.expect("authenticated")
        assert [peer.path for peer in server.server.peers] == ["/?token=0", "/?token=1"]


async def test_27_no_attempt_after_the_end() -> None:
    """Neither after leaving the block during an outage nor after a successful attempt."""
    async with MockGossipServer(memory=True) as server:
        opened = 0

        async def open_stream() -> Any:
            nonlocal opened
            opened += 1
            return await server.open_stream()

        async with open_client(server, stream=open_stream) as client:
            await server.abort()
            await client.wait_offline()
            await client.wait_online()
            await trio.sleep(600)
            assert opened == 2
            await server.abort()
            await client.wait_offline()
        await trio.sleep(600)
        assert opened == 2


async def test_29_answers_to_an_old_link_are_ignored() -> None:
    """A ref of an old link resolves no request."""
    recorder = Recorder()
    async with MockGossipServer(memory=True) as server, open_client(server, recorder) as client:
        await trio.sleep(1)
        server.ignore("games/status")
        async with trio.open_nursery() as nursery:

            async def lose() -> None:
                await trio.sleep(1)
                await server.abort()

            nursery.start_soon(lose)
            with pytest.raises(gossip.Offline):
                await client.fetch_game("A")
        old = server.received[-1]["ref"]
        await client.wait_online()
        await trio.sleep(1)
        server.ignore("games/status")
        async with trio.open_nursery() as nursery:

            async def answer_the_old() -> None:
                await trio.sleep(1)
                event = {"event": "games/status", "ref": old, "status": "failure", "error": "no"}
                await server.peers[0].send_message(event)

            nursery.start_soon(answer_the_old)
            with pytest.raises(RequestTimeout):
                await client.fetch_game("A", timeout=5)
        await recorder.expect("refused", "games/status", "no")


async def test_30_unsubscribe_after_subscribe() -> None:
    """Also while offline: the channel is not subscribed to again."""
    async with MockGossipServer(memory=True) as server, open_client(server) as client:
        await client.subscribe("testing")
        await client.unsubscribe("testing")
        await server.abort()
        await client.wait_offline()
        await client.subscribe("other")
        await client.unsubscribe("other")
        await client.wait_online()
        await trio.sleep(60)
        sent = [e for e in server.received if e["event"].startswith(("auth", "channels/"))]
        assert [e["event"] for e in sent] == [
            "authenticate", "channels/subscribe", "channels/unsubscribe", "authenticate",
        ]  # fmt: skip
        assert sent[-1]["payload"]["channels"] == ["gossip"]


async def test_31_an_answer_just_before_the_timeout() -> None:
    """It is returned; each request is sent once, with its own ref."""
    async with MockGossipServer(memory=True) as server, open_client(server) as client:
        await trio.sleep(1)
        server.ignore("games/status")
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await trio.sleep(4.999)
                event = server.received[-1]
                payload = MockGossipGame(name="A").to_payload()
                await server.peers[0].send_message({**event, "payload": payload})

            nursery.start_soon(answer)
            assert (await client.fetch_game("A", timeout=5)).game == "A"
        refs = [e["ref"] for e in server.received if "ref" in e]
        assert len(set(refs)) == len(refs)


@pytest.mark.slow
async def test_32_failures_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of our objects stays the same after many failed attempts and requests."""
    # ReconnectFailed would tell the latest thousand failures: that many are kept, and no more.
    monkeypatch.setattr("trioglock.client.dialer.MAX_FAILURES", 10)
    async with (
        MockGossipServer(memory=True, heartbeat_interval=None) as server,
        open_client(server, reconnect=SHORTEST_BACKOFF, flags=("games",)) as client,
    ):
        await trio.sleep(1)

        async def round_of_failures() -> int:
            for _ in range(40):
                with pytest.raises(gossip.RequestRefused):
                    await client.fetch_game("Atlantis")
                server.fail("channels/subscribe", "no")
                with pytest.raises(gossip.RequestRefused):
                    await client.subscribe("testing")
            server.server.reject(503, times=40)
            await server.abort()
            await client.wait_offline()
            for _ in range(20):
                with pytest.raises(gossip.Offline):
                    await client.fetch_game("Atlantis")
            await client.wait_online()
            server.received.clear()
            for peer in server.server.peers:
                peer.received.clear()
                peer.sent.clear()
            gc.collect()
            return sum(
                str(type(found).__module__).startswith("trioglock") for found in gc.get_objects()
            )

        await round_of_failures()
        before = await round_of_failures()
        for _ in range(2):
            after = await round_of_failures()
        # Each round leaves one client of the server, which the server keeps.
        assert after - before < 60
        assert not client._socket.requests


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_exit_in_a_callback(error: BaseException) -> None:
    """KeyboardInterrupt and SystemExit come out without a group, as Python expects them."""

    class Leaver(Recorder):
        def authenticated(self, version: str) -> None:
            raise error

    with pytest.raises(type(error)):
        async with MockGossipServer(memory=True) as server, open_client(server, Leaver()):
            await trio.sleep_forever()


async def test_sign_in_while_the_link_ends() -> None:
    """It never raises Offline, and the next heartbeat has the players."""
    recorder = Recorder()
    async with MockGossipServer(memory=True) as server, open_client(server, recorder) as client:
        await client.wait_online()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.close)
            names = [f"Player {number}" for number in range(60)]
            for name in names:
                await client.sign_in(name)
                await trio.lowlevel.checkpoint()
        for name in names[1:]:
            await client.sign_out(name)
        await client.wait_online()
        assert client.players == ("Player 0",)
