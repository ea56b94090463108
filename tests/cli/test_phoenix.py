"""``trioglock phoenix``: joining a topic, pushing lines, printing events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.helpers import Finished, opened, run_command, started
from tests.cli.terminal import Terminal
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin

pytestmark = pytest.mark.usefixtures("short_wait")


async def phoenix(
    server: MockPhoenixServer,
    *arguments: str,
    stdin: str = "",
    topic: str = "room:1",
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run the command to its end."""
    return await run_command("phoenix", server.url, "join", topic, *arguments, stdin=stdin, env=env)


async def test_lines_are_pushed() -> None:
    """They are pushed in order; replies and broadcasts are lines of the same form."""
    lines = [
        'echo {"text": "hi"}',
        '  shout   {"n": [1, "ü"]}  ',
        "bare",
        'fail {"why": 1}',
        "echo binary:00 ff",
        "echo 3",
    ]
    async with MockPhoenixServer() as server:
        done = await phoenix(server, "--push", 'echo {"first": true}', stdin="\n".join(lines))
    assert (done.code, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    broadcasts = ['hello {"topic": "room:1"}', 'shout {"n": [1, "ü"]}']
    assert [line for line in printed if line in broadcasts] == broadcasts
    assert [line for line in printed if line not in broadcasts] == [
        'echo ok {"first": true}',
        'echo ok {"text": "hi"}',
        "shout ok {}",
        "bare ok {}",
        'fail error {"why": 1}',
        "echo ok binary:00ff",
        "echo ok 3",
    ]


@pytest.mark.slow
async def test_many_lines() -> None:
    """More lines than may be pending keep their order."""
    async with MockPhoenixServer() as server:
        lines = [f"echo {number}" for number in range(200)]
        done = await phoenix(server, stdin="\n".join(lines))
    echoes = [line for line in done.stdout.splitlines() if line.startswith("echo")]
    assert echoes == [f"echo ok {number}" for number in range(200)]
    assert done.code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", '! line 1: write a push as: event {"some": "json"}'),
        ("echo {", "! line 1: not sent, invalid JSON in the payload of echo: "),
        ("echo NaN", "! line 1: not sent, invalid JSON in the payload of echo: NaN"),
        ("echo " + "1" * 5000, "! line 1: not sent: Exceeds the limit"),
        ("echo binary:0", "! line 1: binary: takes pairs of hexadecimal digits"),
        ("phx_leave", "! phx_leave: event must be a str such as 'shout'"),
    ],
)
async def test_invalid_lines(line: str, message: str) -> None:
    """Each is an error, other lines are pushed, and the exit code is 1."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, stdin=f"{line}\necho 2\n")
    assert done.code == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert "echo ok 2" in done.stdout.splitlines()


@pytest.mark.slow
async def test_an_event_without_a_reply() -> None:
    """It is reported after the timeout and is not an error."""

    class Silent(MockPhoenixChannel):
        async def on_event(self, event: str, payload: Any) -> None:
            pass

    async with MockPhoenixServer({"room:*": Silent}) as server:
        done = await phoenix(server, "--timeout", "0.3", stdin="note {}\n")
    assert (done.code, done.stdout, done.stderr) == (0, "", "* note: no reply\n")


@pytest.mark.slow
async def test_the_request() -> None:
    """The server gets the parameters in the URL, the payload of the join, and the token."""
    seen: list[Any] = []

    class Recorder(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            seen.append(payload)
            return {}

    def authorize(params: dict[str, str], token: str | None) -> bool:
        seen.append((params, token))
        return True

    async with MockPhoenixServer({"*": Recorder}, authorize=authorize) as server:
        params = ("--param", "user=al", "--param", "a=b=c")
        done = await phoenix(server, *params, "--params", '{"p": 1}', env={"TRIOGLOCK_TOKEN": "t"})
        assert (done.code, done.stderr) == (0, "")
        await phoenix(server, "--token", "u")
    assert seen == [({"user": "al", "a": "b=c"}, "t"), {"p": 1}, ({}, "u"), {}]


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("room:forbidden", "! the server refused to join 'room:forbidden': {'reason': 'unauthor"),
        ("room:crash", "! the "),
        ("elsewhere", "! the server refused to join 'elsewhere': {'reason': 'unmatched topic'}"),
    ],
)
async def test_a_refused_join(topic: str, message: str) -> None:
    """The exit code is 1, and the connection is closed with 1000."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, topic=topic)
        while not server.past_clients:
            await trio.sleep(0.01)
        closed = server.past_clients[0].peer.closed
    assert done.code == 1
    assert done.stderr.startswith(message)
    assert closed is not None
    assert closed.code == 1000


async def test_handshake_refused() -> None:
    """The exit code is 3."""
    async with MockPhoenixServer(authorize=lambda *_: False) as server:
        done = await phoenix(server, "--token", "s3cret", "--param", "key=s3cret")
    assert done.code == 3
    assert done.stderr.startswith("! could not connect: the server refused the handshake: 403")
    assert "s3cret" not in done.stderr


async def test_secrets_stay_secret() -> None:
    """The trace shows no token of the URL, the join or the header."""
    arguments = ("--param", "key=s3cret", "--params", '{"token": "s3cret"}', "--trace")
    async with MockPhoenixServer() as server:
        done = await phoenix(server, *arguments, env={"TRIOGLOCK_TOKEN": "s3cret"})
    assert done.code == 0
    assert "phx_join" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        ("stop", 1, "! stop: the server closed the channel\n"),
        ("crash", 1, "! crash: the channel 'room:1' crashed on the server"),
    ],
)
async def test_the_channel_ends(event: str, code: int, message: str) -> None:
    """The command ends with it."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, "--wait", "inf", stdin=event)
    assert done.code == code
    assert done.stderr.startswith(message)


async def test_the_server_closes_the_channel() -> None:
    """The exit code is 0."""

    class Short(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("bye", {})
            await self.stop()

    async with MockPhoenixServer({"room:*": Short}) as server:
        done = await phoenix(server, "--wait", "inf")
    assert (done.code, done.stdout, done.stderr) == (0, "bye {}\n", "")


async def test_the_connection_is_closed() -> None:
    """The exit code is 0 for 1000 and 1001."""
    async with (
        MockPhoenixServer() as server,
        opened("phoenix", server.url, "join", "room:1") as running,
    ):
        assert await running.line() == 'hello {"topic": "room:1"}'
        await server.disconnect(1001)
        assert (await running.finish()).code == 0


@pytest.mark.slow
async def test_an_outage() -> None:
    """With --reconnect the channel is rejoined after a loss and after a crash."""
    arguments = ("join", "room:1", "--reconnect")
    async with MockPhoenixServer() as server, opened("phoenix", server.url, *arguments) as running:
        assert await running.line() == 'hello {"topic": "room:1"}'
        await server.kill()
        assert await running.line() == 'hello {"topic": "room:1"}'
        await running.type("crash")
        assert await running.line() == 'hello {"topic": "room:1"}'
        await running.type("echo 1")
        assert await running.line() == "echo ok 1"
        await running.end_input()
        done = await running.finish()
    lines = done.stderr.splitlines()
    assert lines[0].startswith("* connection lost: ")
    assert lines[1:3] == ["* reconnected", "* rejoined room:1"]
    assert sorted(line[:22] for line in lines[3:5]) == [
        "! crash: the channel '",
        "! room:1 crashed on th",
    ]
    assert lines[5:] == ["* rejoined room:1"]


class Lobby(MockTopic):
    """Tracks its clients."""

    async def on_join(self, payload: Any) -> Any:
        if "name" not in payload:
            raise RefuseJoin({"reason": "a name is required"})
        self.name = payload["name"]
        return {}

    async def on_joined(self) -> None:
        await self.track(self.name, device="phone")


@pytest.mark.slow
async def test_presence() -> None:
    """Present clients, joins and leaves are printed."""
    arguments = ("join", "room:1", "--params", '{"name": "al"}', "--wait", "inf")
    async with (
        MockPhoenixServer({"room:*": Lobby}) as server,
        started("phoenix", server.url, *arguments) as running,
    ):
        assert await running.line() == 'presence + al {"device": "phone"}'
        await phoenix(server, "--params", '{"name": "bo"}', "--wait", "0")
        assert await running.line() == 'presence + bo {"device": "phone"}'
        assert await running.line() == 'presence - bo {"device": "phone"}'
        running.interrupt()
        assert (await running.finish()).code == 130


async def test_an_event_with_the_name_of_presence() -> None:
    """It is printed like any other event."""

    class Odd(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("presence_state", {"al": "here"})

    async with MockPhoenixServer({"room:*": Odd}) as server:
        done = await phoenix(server)
    assert done.stdout == 'presence_state {"al": "here"}\n'


@pytest.mark.slow
@pytest.mark.terminal
async def test_fault_35_a_session(window: Terminal, tmp_path: Path) -> None:
    """It connects, joins, and has the prompt of ``trioglock connect`` and its own command."""
    arguments = ("join", "room:1", "--params", '{"name": "al"}')
    async with MockPhoenixServer({"room:*": Lobby}) as server:
        await window.run("phoenix", server.url, *arguments)
        lines = await window.shows("* joined room:1: {}")
        connected = lines[lines.index("* joined room:1: {}") - 1]
        assert connected == f"* connected to {server.url}/websocket?vsn=2.0.0"
        await window.shows('< presence + al {"device": "phone"}')
        await window.type('echo {"a": 1}')
        await window.shows('< echo ok {"a": 1}')
        await window.type("/presence")
        await window.shows("* present: 1")
        await window.type("echo {")
        await window.shows_start("! not sent, invalid")
        await window.quit()
        assert (tmp_path / "trioglock" / "phoenix_history").exists()
