"""The official JavaScript client, in Node and in Chromium, with servers on real sockets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.browser import browser
from tests.channels.presence_helpers import PresenceSite, serving_presence
from tests.channels.test_clients import Room, serving
from tests.node_packages import find_node, install_packages
from tests.protocols.phoenix.test_javascript import EXPECTED, NODE
from tests.threads import open_in_thread
from trioglock import serve
from trioglock.channels import Broadcast, Channel, Channels, ConnectRequest, History
from trioglock.pubsub import Hub, MemoryBroker
from trioglock.testing import FaultProxy

__all__ = ["browser"]

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "node"
SECONDS = 300

RunScript = Callable[..., list[Any]]

NODE_ONLY = pytest.mark.parametrize("run_script", ["node"], indirect=True)
BOTH = pytest.mark.parametrize(
    "run_script",
    ["node", pytest.param("chromium", marks=pytest.mark.browser)],
    indirect=True,
)


@pytest.fixture
def run_script(request: pytest.FixtureRequest) -> RunScript:
    """Runs a script with the client, and returns the results of its steps."""
    modules = install_packages(NODE)
    if request.param == "node":
        return run_in_node
    chromium = request.getfixturevalue("browser")

    def run_in_chromium(script: Path, *options: str) -> list[Any]:
        page = chromium.new_page()
        try:
            # A page of the server, if only one that says 404: pages from elsewhere may not connect.
            page.goto(options[0].replace("ws:", "http:", 1))
            page.add_script_tag(path=modules / "phoenix/priv/static/phoenix.js")
            page.add_script_tag(path=script)
            results: list[Any] = page.evaluate(RUN, [SECONDS * 1000, *options])
        finally:
            page.close()
        return results

    return run_in_chromium


RUN = """async ([milliseconds, ...options]) => {
  const results = [];
  const time = new Promise((_, reject) => setTimeout(
    () => reject(new Error(`timeout after ${JSON.stringify(results)}`)), milliseconds));
  const done = run((name, result = null) => results.push([name, result]), ...options);
  await Promise.race([done, time]);
  return results;
}"""


def run_in_node(script: Path, *options: str) -> list[Any]:
    command: list[str | Path] = [find_node(), NODE / "run.js", script, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_client(run_script: RunScript, kind: str) -> None:
    tokens = []

    def authenticate(request: ConnectRequest) -> str | None:
        tokens.append(request.token)
        return request.params["user"]

    with open_in_thread(lambda: serving(kind, connect=authenticate)) as (_, where):
        results = run_script(NODE / "client.js", f"ws://{where}/socket", "secret?no")
    assert results == EXPECTED
    assert set(tokens) == {"secret?no"}


@BOTH
def test_the_official_client(run_script: RunScript) -> None:
    """Joins, replies, binary messages, refusals, crashes, presence, heartbeats, reconnecting."""
    check_client(run_script, "serve")


@NODE_ONLY
def test_the_official_client_with_an_asgi_server(run_script: RunScript) -> None:
    check_client(run_script, "asgi")


class Unreliable(Room):
    """Tells the server to restart or to become silent."""

    orders: trio.MemorySendChannel[str]

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        if event in ("restart", "silence"):
            self.orders.send_nowait(event)
            return None, state
        return super().handle_in(event, payload, state)


@asynccontextmanager
async def serving_with_outages() -> AsyncIterator[str]:
    """A server that follows the orders of its clients; the URL of a proxy before it."""
    hub, port = Hub(), 0
    Unreliable.orders, orders = trio.open_memory_channel[str](10)
    channels = Channels({"room:*": Unreliable}, hub=hub)

    async def serve_again_and_again(task_status: trio.TaskStatus[None]) -> None:
        nonlocal port
        while True:
            async with serve(channels.socket, "127.0.0.1", port) as server:
                assert server.port is not None
                port = server.port
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                while await orders.receive() == "silence":
                    for connection in proxy.connections:
                        connection.stall()

    async with (
        hub,
        FaultProxy(lambda: trio.open_tcp_stream("127.0.0.1", port)) as proxy,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(serve_again_and_again)
        yield f"{proxy.url}socket"
        nursery.cancel_scope.cancel()


@BOTH
def test_the_official_client_joins_again(run_script: RunScript) -> None:
    """A second join, a restart of the server, and a server that answers no heartbeats."""
    with open_in_thread(serving_with_outages) as url:
        results = run_script(SCRIPTS / "rejoin.js", url)
    assert results == [
        ["joined", ["ok", {"welcome": "room:1"}]],
        ["second channel", ["ok", {"welcome": "room:1"}]],
        ["states", ["closed", "joined"]],
        ["joined twice", ["joined", "ok", {"n": 1}]],
        ["closed with", 1001],
        ["after the restart", ["joined", "ok", {"n": 2}]],
        ["after the silence", ["joined", "ok", {"n": 3}]],
    ]


@asynccontextmanager
async def serving_twice() -> AsyncIterator[tuple[PresenceSite, PresenceSite]]:
    """Two servers whose hubs share a broker."""
    broker = MemoryBroker()
    async with (
        serving_presence(Hub(broker=broker), tcp=True) as one,
        serving_presence(Hub(broker=broker), tcp=True) as two,
    ):
        yield one, two


@BOTH
def test_the_official_client_shows_who_is_there(run_script: RunScript) -> None:
    """Tabs, updates, a crash, leaving, a lost connection, and closing."""
    with open_in_thread(serving_twice) as (one, two):
        results = run_script(SCRIPTS / "presence.js", one.url, two.url)
    assert results == [
        ["joined", [["al", "here", "here"], ["bo", "here"]]],
        ["updated", [["al", "here", "here"], ["bo", "away"]]],
        ["left", [["al", "here"], ["bo", "away"]]],
        ["connected again", [["al", "here"], ["bo", "here"]]],
        ["log", [["join", "al"], ["join", "bo"], ["leave", "bo"], ["join", "bo"], ["leave", "bo"]]],
    ]


class Remembering(Channel[None]):
    """Keeps five events."""

    history = History(size=5)

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        if event == "crash":
            raise ValueError(event)
        return Broadcast(event, payload), state


@asynccontextmanager
async def serving_histories() -> AsyncIterator[list[str]]:
    """The URLs of two servers whose hubs share a broker."""
    broker, urls = MemoryBroker(), list[str]()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            hub = Hub(broker=broker)
            channels = Channels({"room:*": Remembering}, hub=hub)
            await stack.enter_async_context(hub)
            server = await stack.enter_async_context(serve(channels.socket, "127.0.0.1", 0))
            urls.append(f"ws://127.0.0.1:{server.port}/socket")
        yield urls


@NODE_ONLY
def test_the_official_client_receives_what_it_has_missed(run_script: RunScript) -> None:
    """After a lost connection, a crash and a gap, and as a newcomer."""
    with open_in_thread(serving_histories) as urls:
        results = run_script(SCRIPTS / "history.js", *urls)
    assert results == [
        ["connected again", [1, 2, 3, 4, 5]],
        ["after a crash", [1, 2, 3, 4, 5, 6]],
        ["with a gap", [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13]],
        ["responses", [{}, {}, {"gap": True}]],
        ["newcomer", [[9, 10, 11, 12, 13], [{}]]],
    ]
