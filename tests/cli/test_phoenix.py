"""``trioglock phoenix``: joining a topic, pushing lines, printing what comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.helpers import Finished, started, trioglock
from tests.cli.tmux import needs_tmux, terminal
from trioglock.cli import main
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin


async def phoenix(
    server: MockPhoenixServer,
    *arguments: str,
    stdin: str = "",
    topic: str = "room:1",
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run the command to its end."""
    return await trioglock("phoenix", server.url, "join", topic, *arguments, stdin=stdin, env=env)


async def test_lines_are_pushed() -> None:
    """In their order; replies and broadcasts are lines of the same form."""
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


async def test_many_lines() -> None:
    """More than may wait for their replies; their order is kept."""
    async with MockPhoenixServer() as server:
        lines = [f"echo {number}" for number in range(500)]
        done = await phoenix(server, stdin="\n".join(lines))
    echoes = [line for line in done.stdout.splitlines() if line.startswith("echo")]
    assert echoes == [f"echo ok {number}" for number in range(500)]
    assert done.code == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", '! line 1: a push is written: event {"some": "json"}'),
        ("echo {", "! line 1: not sent, for the payload of echo is no JSON: "),
        ("echo NaN", "! line 1: not sent, for the payload of echo is no JSON: NaN"),
        ("echo " + "1" * 5000, "! line 1: not sent: Exceeds the limit"),
        ("echo binary:0", "! line 1: binary: takes pairs of hexadecimal digits"),
        ("phx_leave", "! phx_leave: event must be a str such as 'shout'"),
    ],
)
async def test_lines_that_are_refused(line: str, told: str) -> None:
    """Each is told, the others are pushed, and the exit code is 1."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, stdin=f"{line}\necho 2\n")
    assert done.code == 1
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert "echo ok 2" in done.stdout.splitlines()


async def test_an_event_without_a_reply() -> None:
    """It is told after the time-out, and is no failure."""

    class Quiet(MockPhoenixChannel):
        async def on_event(self, event: str, payload: Any) -> None:
            """No reply."""

    async with MockPhoenixServer({"room:*": Quiet}) as server:
        done = await phoenix(server, "--timeout", "0.3", stdin="note {}\n")
    assert (done.code, done.stdout, done.stderr) == (0, "", "* note: no reply\n")


async def test_what_the_server_gets() -> None:
    """Params in the address, the payload in the join, the token in a header."""
    seen: list[Any] = []

    class Room(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            seen.append(payload)
            return {}

    def authorize(params: dict[str, str], token: str | None) -> bool:
        seen.append((params, token))
        return True

    async with MockPhoenixServer({"*": Room}, authorize=authorize) as server:
        params = ("--param", "user=al", "--param", "a=b=c")
        done = await phoenix(server, *params, "--params", '{"p": 1}', env={"TRIOGLOCK_TOKEN": "t"})
        assert (done.code, done.stderr) == (0, "")
        await phoenix(server, "--token", "u")
    assert seen == [({"user": "al", "a": "b=c"}, "t"), {"p": 1}, ({}, "u"), {}]


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("room:forbidden", "! the server refused to join 'room:forbidden': {'reason': 'unauthor"),
        ("room:crash", "! the "),
        ("elsewhere", "! the server refused to join 'elsewhere': {'reason': 'unmatched topic'}"),
    ],
)
async def test_a_join_that_fails(topic: str, told: str) -> None:
    """1, and the connection is closed in good order."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, topic=topic)
        while not server.past_clients:
            await trio.sleep(0.01)
        closed = server.past_clients[0].peer.closed
    assert done.code == 1
    assert done.stderr.startswith(told)
    assert closed is not None
    assert closed.code == 1000


async def test_refused() -> None:
    """No connection: 3."""
    async with MockPhoenixServer(authorize=lambda *_: False) as server:
        done = await phoenix(server, "--token", "s3cret", "--param", "key=s3cret")
    assert done.code == 3
    assert done.stderr.startswith("! could not connect: the server refused the handshake: 403")
    assert "s3cret" not in done.stderr


async def test_secrets_stay_secret() -> None:
    """Tokens in the address, the join and the header are in no trace."""
    arguments = ("--param", "key=s3cret", "--params", '{"token": "s3cret"}', "--trace")
    async with MockPhoenixServer() as server:
        done = await phoenix(server, *arguments, env={"TRIOGLOCK_TOKEN": "s3cret"})
    assert done.code == 0
    assert "phx_join" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("event", "code", "told"),
    [
        ("stop", 1, "! stop: the server closed the channel\n"),
        ("crash", 1, "! crash: the channel 'room:1' crashed on the server"),
    ],
)
async def test_the_channel_ends(event: str, code: int, told: str) -> None:
    """And the program with it."""
    async with MockPhoenixServer() as server:
        done = await phoenix(server, "--wait", "inf", stdin=event)
    assert done.code == code
    assert done.stderr.startswith(told)


async def test_the_server_closes_the_channel() -> None:
    """By itself: a good end."""

    class Short(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("bye", {})
            await self.stop()

    async with MockPhoenixServer({"room:*": Short}) as server:
        done = await phoenix(server, "--wait", "inf")
    assert (done.code, done.stdout, done.stderr) == (0, "bye {}\n", "")


async def test_the_connection_is_closed() -> None:
    """0 for 1000 and 1001, with or without a channel."""
    async with (
        MockPhoenixServer() as server,
        started("phoenix", server.url, "join", "room:1") as running,
    ):
        assert await running.line() == 'hello {"topic": "room:1"}'
        await server.disconnect(1001)
        assert (await running.finish()).code == 0


async def test_an_outage() -> None:
    """With --reconnect the channel is joined again, and all of it is told."""
    arguments = ("join", "room:1", "--reconnect")
    async with MockPhoenixServer() as server, started("phoenix", server.url, *arguments) as running:
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
    assert lines[1:3] == ["* connected again", "* joined room:1 again"]
    assert sorted(line[:22] for line in lines[3:5]) == [
        "! crash: the channel '",
        "! room:1 has crashed o",
    ]
    assert lines[5:] == ["* joined room:1 again"]


class Lobby(MockTopic):
    """Tracks whoever joins."""

    async def on_join(self, payload: Any) -> Any:
        if "name" not in payload:
            raise RefuseJoin({"reason": "who are you?"})
        self.name = payload["name"]
        return {}

    async def on_joined(self) -> None:
        await self.track(self.name, device="phone")


async def test_presence() -> None:
    """Who is there, who comes and who goes."""
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


async def test_an_event_that_only_looks_like_presence() -> None:
    """It is printed as any other."""

    class Odd(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("presence_state", {"al": "here"})

    async with MockPhoenixServer({"room:*": Odd}) as server:
        done = await phoenix(server)
    assert done.stdout == 'presence_state {"al": "here"}\n'


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ws://host/"], "Missing argument 'join'"),
        (["ws://host/", "leave", "room:1"], "'leave' is not 'join'"),
        (["ws://host/", "join"], "Missing argument 'TOPIC'"),
        (["ws://host/", "join", "phoenix"], "a topic is a name such as room:1, not 'phoenix'"),
        (["http://host/", "join", "room:1"], "scheme isn't ws or wss"),
        (["ws://host/", "join", "room:1", "--param", "s3cret"], "a param is written name=value."),
        (["ws://host/", "join", "room:1", "--params", '{"s3cret"'], "no JSON: Expecting ':'"),
        (["ws://host/?vsn=1.0.0", "join", "room:1"], "vsn must be 2.0.0"),
        (["ws://host/", "join", "room:1", "--timeout", "0"], "a number of seconds, more than 0"),
        (["ws://host/", "join", "a", "-s", "x", "--token", "t"], "subprotocols cannot be combined"),
    ],
)
def test_bad_options(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error says what is allowed; the exit code is 2."""
    assert main(["phoenix", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith("Usage: trioglock phoenix [OPTIONS] URL join TOPIC\n")
    assert told in " ".join(streams.err.split())
    assert "s3cret" not in streams.err


@needs_tmux
async def test_a_session(tmp_path: Path) -> None:
    """The prompt of trioglock connect, and its commands."""
    arguments = ("join", "room:1", "--params", '{"name": "al"}')
    async with MockPhoenixServer({"room:*": Lobby}) as server, terminal(tmp_path) as window:
        await window.run("phoenix", server.url, *arguments)
        await window.shows("* joined room:1: {}")
        await window.shows('< presence + al {"device": "phone"}')
        await window.type('echo {"a": 1}')
        await window.shows('< echo ok {"a": 1}')
        await window.type("/presence")
        await window.shows("* present: 1")
        await window.type("echo {")
        await window.shows(lambda lines: any(x.startswith("! not sent, for the") for x in lines))
        await window.press("C-d")
        await window.shows("exit code 0")
        assert (tmp_path / "trioglock" / "phoenix_history").exists()
