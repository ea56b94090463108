"""``trioglock publish``: through a running server or Redis, from one process to the browsers."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.cli.helpers import started, trioglock
from tests.cli.hubs import served
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import Connection, Request, Response, connect, serve
from trioglock.cli import main
from trioglock.pubsub import Hub
from trioglock.pubsub.redis import RedisBroker

TOKEN = "open-sesame"
VARIABLE = "TRIOGLOCK_PUBLISH_TOKEN"


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real server, for one test."""
    with real_redis() as server:
        yield server


async def test_a_message_for_a_channel_and_one_for_everyone() -> None:
    """Whoever listens gets it, and the publisher is told how many they were."""
    async with (
        served() as (_, at),
        connect(f"ws://{at}/news") as news,
        connect(f"ws://{at}/other") as other,
    ):
        await news.ping()
        await other.ping()
        done = await trioglock("publish", "news", "gr\xfc\xdfe", "--to", f"ws://{at}")
        assert (done.code, done.stdout, done.stderr) == (0, "published on news: 1 got it\n", "")
        assert await news.receive() == "gr\xfc\xdfe"
        done = await trioglock("publish", "", "all", "--to", f"ws://{at}", "--name", "trioglock")
        assert (done.code, done.stdout) == (0, "published to everyone: 2 got it\n")
        assert [await conn.receive() for conn in (news, other)] == ["all", "all"]
        done = await trioglock("publish", "nobody", "x", "--to", f"ws://{at}")
        assert (done.code, done.stdout) == (0, "published on nobody: nobody listens\n")


async def test_each_line_of_the_input_as_it_comes() -> None:
    """The first arrives while the input is open; at its end it is told how many they were."""
    async with (
        served() as (_, at),
        connect(f"ws://{at}/log") as log,
        started("publish", "log", "-", "--to", f"ws://{at}") as publisher,
    ):
        for line in ("one", "", '{"two": 2}'):
            await publisher.type(line)
            assert await log.receive() == line
        await publisher.end_input()
        done = await publisher.finish()
        assert (done.code, done.stdout, done.stderr) == (0, "published 3 messages on log\n", "")


async def test_ctrl_c_while_the_input_is_open() -> None:
    """It ends with 130, without a word."""
    async with (
        served() as (_, at),
        connect(f"ws://{at}/log") as log,
        started("publish", "log", "-", "--to", f"ws://{at}") as publisher,
    ):
        await publisher.type("one")
        await log.receive()
        publisher.interrupt()
        done = await publisher.finish()
        assert (done.code, done.stdout, done.stderr) == (130, "", "")


LINES = {
    "too long": (b"ok\n" + b"x" * 2**20, "line 2: closed by the peer: 1009"),
    "not UTF-8": (b"ok\nno\xff\n", "line 2 of the input is not UTF-8 at byte 3"),
}


@pytest.mark.parametrize(("lines", "why"), LINES.values(), ids=list(LINES))
async def test_a_line_that_cannot_be_published(lines: bytes, why: str) -> None:
    """It says which, and how many were published before."""
    async with served() as (_, at):
        done = await trioglock("publish", "log", "-", "--to", f"ws://{at}", stdin=lines)
        assert (done.code, done.stdout) == (1, "")
        assert why in done.stderr
        assert done.stderr.endswith("; published before: 1\n")


async def test_through_redis(redis: RealRedis) -> None:
    """It reaches every server at that Redis, and a hub in a program."""
    async with (
        served("--redis", redis.url) as (_, at),
        Hub(broker=redis.broker()) as hub,
        connect(f"ws://{at}/news") as browser,
    ):
        await browser.ping()
        events = hub.subscribe("news")
        done = await trioglock("publish", "news", "hello", "--redis", redis.url)
        assert (done.code, done.stdout, done.stderr) == (0, "published on news\n", "")
        assert await browser.receive() == "hello"
        assert (await anext(events)).data == "hello"
        # Through the server it reaches them as well; who got it, no single process knows.
        done = await trioglock("publish", "news", "again", "--to", f"ws://{at}")
        assert (done.code, done.stdout) == (0, "published on news\n")
        assert await browser.receive() == "again"


async def test_through_redis_with_a_history(redis: RealRedis) -> None:
    """The hubs hear it, and who comes later gets it from the history."""
    broker = RedisBroker(redis.url, history=10)
    async with Hub("app", broker) as hub:
        events = hub.subscribe("news")
        asked = ("--redis", redis.url, "--name", "app", "--history", "10")
        done = await trioglock("publish", "news", "-", *asked, stdin="one\ntwo\n")
        assert (done.code, done.stdout) == (0, "published 2 messages on news\n")
        assert [(await anext(events)).data for _ in range(2)] == ["one", "two"]
        assert [message.data for message in hub.history.messages] == ["one", "two"]


async def test_redis_that_is_not_there() -> None:
    """One line that says so, and does not show the password."""
    with real_redis() as gone:
        port = gone.port
    done = await trioglock("publish", "x", "y", "--redis", f"redis://:hidden@127.0.0.1:{port}")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("trioglock publish: not published: could not reach Redis")
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr


async def test_the_token() -> None:
    """From the environment or the command line; a wrong one is refused, and never shown."""
    async with served("--host", "0.0.0.0", **{VARIABLE: TOKEN}) as (_, at):
        to = ("--to", f"ws://127.0.0.1:{at.rpartition(':')[2]}")
        done = await trioglock("publish", "news", "x", *to, env={VARIABLE: TOKEN})
        assert (done.code, done.stderr) == (0, "")
        done = await trioglock("publish", "news", "x", *to, "--publish-token", TOKEN)
        assert (done.code, done.stderr) == (0, "")
        done = await trioglock("publish", "news", "x", *to, "--publish-token", "guessed-it")
        assert done.code == 1
        assert done.stderr == "trioglock publish: not published: the publish token is wrong (401)\n"
        done = await trioglock("publish", "news", "x", *to)
        assert done.code == 1
        assert "a publish token is needed (401)" in done.stderr


async def test_a_server_that_others_can_reach_takes_nothing_without_a_token() -> None:
    """It says what it lacks."""
    async with served("--host", "0.0.0.0") as (_, at):
        port = at.rpartition(":")[2]
        done = await trioglock("publish", "news", "x", "--to", f"ws://127.0.0.1:{port}")
        assert done.code == 1
        assert "nobody may publish here: the server has no --publish-token (403)" in done.stderr


async def test_another_hub() -> None:
    """A name that is not that of the server's hub."""
    async with served("--name", "app") as (_, at):
        done = await trioglock("publish", "x", "y", "--to", f"ws://{at}", "--name", "shop")
        assert (done.code, done.stdout) == (1, "")
        assert "not published: this is the hub app, not 'shop'\n" in done.stderr
        done = await trioglock("publish", "x", "y", "--to", f"ws://{at}", "--name", "app")
        assert done.code == 0


async def test_nobody_there(free_port: int) -> None:
    """One line, with what the system says."""
    done = await trioglock("publish", "x", "y", "--to", f"ws://127.0.0.1:{free_port}")
    assert (done.code, done.stdout) == (1, "")
    assert "cannot connect" in done.stderr
    assert "Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def echoes(conn: Connection[None]) -> None:
    async for message in conn:
        await conn.send(message)


async def says_nothing(conn: Connection[None]) -> None:
    async for _ in conn:
        pass


async def says_no_json(conn: Connection[None]) -> None:
    async for _ in conn:
        await conn.send("\x1b[2J{")


async def forges_a_line(conn: Connection[None]) -> None:
    async for _ in conn:
        await conn.send(json.dumps({"published": False, "error": "no\n\x1b[2Jroot: all is well"}))


async def leaves(conn: Connection[None]) -> None:
    await conn.receive()
    await conn.aclose(1011, "out of\x1bpaper")


OTHERS: dict[str, tuple[Callable[[Connection[None]], Awaitable[None]], str]] = {
    "an echo": (echoes, "it does not say why"),
    "a silent one": (says_nothing, "has not answered within 0.5 seconds"),
    "no JSON": (says_no_json, "something else than trioglock does"),
    "a forged line": (forges_a_line, "no\\n\\x1b[2Jroot: all is well"),
    "one that leaves": (leaves, "closed by the peer: 1011 out of\\x1bpaper"),
}


@pytest.mark.parametrize(("handler", "why"), OTHERS.values(), ids=list(OTHERS))
async def test_a_server_that_pretends(
    handler: Callable[[Connection[None]], Awaitable[None]], why: str
) -> None:
    """It agrees to publish and does not: one line, and nothing in it moves the terminal."""
    async with serve(handler, "127.0.0.1", 0, subprotocols=["trioglock.publish"]) as server:
        to = ("--to", f"ws://127.0.0.1:{server.port}", "--timeout", "0.5")
        done = await trioglock("publish", "x", "y", *to)
        assert (done.code, done.stdout) == (1, "")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


async def test_a_server_that_is_no_hub() -> None:
    """Nothing is sent to it."""
    heard: list[object] = []

    async def handler(conn: Connection[None]) -> None:
        heard.extend([message async for message in conn])

    async with serve(handler, "127.0.0.1", 0) as server:
        done = await trioglock("publish", "x", "y", "--to", f"ws://127.0.0.1:{server.port}")
        assert done.code == 1
        assert "takes no publications" in done.stderr
    assert heard == []


async def test_a_refusal_with_a_page() -> None:
    """Its words are not shown, its status is."""

    def refuse(_: Request) -> Response:
        return Response(503, "<h1>\x1b[2J later</h1>", {"Content-Type": "text/html"})

    async with serve(echoes, "127.0.0.1", 0, process_request=refuse) as server:
        done = await trioglock("publish", "x", "y", "--to", f"ws://127.0.0.1:{server.port}")
        assert done.code == 1
        assert "503" in done.stderr
        assert "later" not in done.stderr


USAGE = {
    "nothing": ([], "Missing argument 'CHANNEL'"),
    "no message": (["x"], "Missing argument 'MESSAGE'"),
    "a slash": (["/x", "y"], "without a slash in front"),
    "a control character": (["a\nb", "y"], "no control characters"),
    "a long channel": (["x" * 1025, "y"], "at most 1,024 characters"),
    "no UTF-8": (["x", "\udcff"], "a message is UTF-8"),
    "both ways": (["x", "y", "--to", "ws://h", "--redis", "redis://h"], "exclude each other"),
    "no WebSocket": (["x", "y", "--to", "http://localhost"], "scheme isn't ws or wss"),
    "no Redis": (["x", "y", "--redis", "http://localhost"], "a Redis URL begins with"),
    "no name": (["x", "y", "--redis", "redis://h", "--name", "a b"], "a hub's name"),
    "a history of a server": (["x", "y", "--history", "5"], "--history needs --redis"),
    "a bad token": (["x", "y", "--publish-token", "a b"], "visible ASCII"),
    "no time": (["x", "y", "--timeout", "0"], "more than 0"),
}


@pytest.mark.parametrize(("arguments", "why"), USAGE.values(), ids=list(USAGE))
def test_what_makes_no_sense(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told in a line, and the exit code is 2."""
    assert main(["publish", *arguments]) == 2
    output = capsys.readouterr()
    assert why in output.err
    assert output.out == ""


def test_the_help_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Options, exit codes, examples."""
    assert main(["publish", "--help"]) == 0
    output = capsys.readouterr().out
    for word in ("--to", "--redis", VARIABLE, "Exit codes:", "Examples:", "trioglock publish news"):
        assert word in output
