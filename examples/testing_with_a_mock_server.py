"""Tests of a Socket: without a connection, in memory, and on a port.

They need pytest and pytest-trio, with ``trio_mode = true`` in the settings of pytest. Run them with
one of::

    python examples/testing_with_a_mock_server.py
    python -m pytest examples/testing_with_a_mock_server.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

from trioglock import Close, ConnectionClosedError, ConnectionInfo, Reply, Socket, connect
from trioglock.testing import MockServer

# The code to test: a news feed that subscribes to a topic and closes after the last headline.


@dataclass(frozen=True)
class News:
    seen: int = 0


class Headlines(Socket[News]):
    def __init__(self, topic: str) -> None:
        self.topic = topic

    def init_stream(self, info: ConnectionInfo) -> News:
        return News()

    def handle_connect(self, info: ConnectionInfo, state: News) -> tuple[Reply, News]:
        return Reply(json.dumps({"subscribe": self.topic})), state

    def handle_receive(self, frame: str, state: News) -> tuple[str | Close, News]:
        match json.loads(frame):
            case {"headline": str(text)}:
                return text, replace(state, seen=state.seen + 1)
            case _:
                return Close(1000, "read it all"), state


# A hook is a function: call it.


def test_a_headline_is_delivered_and_counted() -> None:
    hooks = Headlines("tea")
    assert hooks.handle_receive('{"headline": "Rain"}', News(1)) == ("Rain", News(2))


def test_anything_else_ends_the_subscription() -> None:
    hooks = Headlines("tea")
    assert hooks.handle_receive('{"end": true}', News(5)) == (Close(1000, "read it all"), News(5))


# In memory: no port is used, and with pytest-trio's autojump_clock no real time passes.


async def test_subscribes_first(autojump_clock: MockClock) -> None:
    async with (
        MockServer(memory=True) as server,
        connect(server.url, Headlines("tea"), stream=server.open_stream) as conn,
    ):
        await server.expect('{"subscribe": "tea"}')
        await trio.sleep(3600)  # an hour of heartbeats takes no real time
        await server.send('{"headline": "Rain"}')
        assert await conn.receive() == "Rain"
        assert autojump_clock.current_time() >= 3600


# On a port: mock_server is a pytest fixture that trioglock provides.


async def test_closes_after_the_last_headline(mock_server: MockServer) -> None:
    with trio.fail_after(5):
        async with connect(mock_server.url, Headlines("tea")) as conn:
            peer = await mock_server.accept()
            await peer.send('{"headline": "Rain"}', '{"end": true}')
            await peer.expect_close(1000, "read it all")
            assert [text async for text in conn] == ["Rain"]
        assert conn.state == News(seen=1)


async def test_a_lost_server_is_an_error(mock_server: MockServer) -> None:
    with trio.fail_after(5):
        async with connect(mock_server.url, Headlines("tea")) as conn:
            peer = await mock_server.accept()
            await peer.abort()
            with pytest.raises(ConnectionClosedError) as caught:
                await conn.receive()
        assert caught.value.code == 1006


if __name__ == "__main__":
    # The pytest plugin of trioglock expects that the package has not been imported yet.
    late = "ignore:Module already imported"
    sys.exit(pytest.main([__file__, "-v", "-o", "trio_mode=true", "-W", late]))
