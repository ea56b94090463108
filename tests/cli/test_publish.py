"""``trioglock publish``: through a running server or Redis."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from websockets.sync.client import connect as connect_browser

from tests.cli.helpers import started
from tests.cli.serving import serve_in_thread, target_in_thread
from tests.pubsub.redis_server import RealRedis, real_redis
from tests.server.helpers import echo
from trioglock import Connection, Request, Response, connect
from trioglock.cli import main
from trioglock.pubsub import Hub
from trioglock.pubsub.patterns import ChannelFilter
from trioglock.pubsub.redis import RedisBroker

TOKEN = "open-sesame"
VARIABLE = "TRIOGLOCK_PUBLISH_TOKEN"

Publish = Callable[..., tuple[int, str, str]]


@pytest.fixture
def publish(capsys: pytest.CaptureFixture[str]) -> Publish:
    """Run the command; its exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["publish", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_channels(publish: Publish) -> None:
    """The subscribers of the channel receive the message, and their number is printed."""
    with (
        serve_in_thread() as at,
        connect_browser(f"ws://{at}/news", proxy=None) as news,
        connect_browser(f"ws://{at}/other", proxy=None) as other,
    ):
        to = ("--to", f"ws://{at}")
        assert publish("news", "gr\xfc\xdfe", *to) == (0, "published on news: 1 subscriber\n", "")
        assert news.recv(5) == "gr\xfc\xdfe"
        done = publish("", "all", *to, "--name", "trioglock")
        assert done == (0, "published to everyone: 2 subscribers\n", "")
        assert [browser.recv(5) for browser in (news, other)] == ["all", "all"]
        assert publish("empty", "x", *to) == (0, "published on empty: no subscribers\n", "")


@pytest.mark.slow
async def test_lines() -> None:
    """Each line is published when it arrives. Ctrl-C ends with exit code 130 and no output."""
    with serve_in_thread() as at:
        arguments = ("publish", "log", "-", "--to", f"ws://{at}")
        async with connect(f"ws://{at}/log") as log:
            async with started(*arguments) as publisher:
                for line in ("one", "", '{"two": 2}'):
                    await publisher.type(line)
                    assert await log.receive() == line
                await publisher.end_input()
                done = await publisher.finish()
                output = "published 3 messages on log\n"
                assert (done.code, done.stdout, done.stderr) == (0, output, "")
            async with started(*arguments) as publisher:
                await publisher.type("one")
                await log.receive()
                publisher.interrupt()
                done = await publisher.finish()
                assert (done.code, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"ok\n" + b"x" * 2**20, "line 2: closed by the peer: 1009"),
        (b"ok\nno\xff\n", "line 2 of the input is not UTF-8 at byte 3"),
    ],
)
def test_invalid_line(
    lines: bytes,
    reason: str,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The error has the number of the line, and how many were published before."""
    path = tmp_path / "input"
    path.write_bytes(lines)
    with path.open() as file, serve_in_thread() as at:
        monkeypatch.setattr("sys.stdin", file)
        code, output, error = publish("log", "-", "--to", f"ws://{at}")
    assert (code, output) == (1, "")
    assert reason in error
    assert error.endswith("; messages published before this: 1\n")


@pytest.mark.slow
@pytest.mark.redis
def test_redis(publish: Publish, redis: RealRedis) -> None:
    """A message reaches the browsers of every server with this Redis."""
    with (
        serve_in_thread(redis=redis.url) as one,
        serve_in_thread(redis=redis.url) as two,
        connect_browser(f"ws://{one}/news", proxy=None) as first,
        connect_browser(f"ws://{two}/news", proxy=None) as second,
    ):
        assert publish("news", "hello", "--redis", redis.url) == (0, "published on news\n", "")
        # A single server does not know the number of subscribers.
        assert publish("news", "again", "--to", f"ws://{one}") == (0, "published on news\n", "")
        for browser in (first, second):
            assert [browser.recv(5), browser.recv(5)] == ["hello", "again"]


@pytest.mark.redis
@pytest.mark.slow
async def test_history_in_redis(redis: RealRedis) -> None:
    """Hubs receive the messages, and the history contains them."""
    async with Hub("app", RedisBroker(redis.url, history=10)) as hub:
        events = hub.subscribe("news")
        options = ("--redis", redis.url, "--name", "app", "--history", "10")
        async with started("publish", "news", "-", *options) as publisher:
            await publisher.type("one", "two")
            await publisher.end_input()
            done = await publisher.finish()
        assert (done.code, done.stdout) == (0, "published 2 messages on news\n")
        assert [(await anext(events)).data for _ in range(2)] == ["one", "two"]
        kept = await hub.history.latest(ChannelFilter("*"), 10)
        assert [message.data for message in kept] == ["one", "two"]


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize(("given", "expected"), [("60", 61), ("none", -1), (None, 86_401)])
def test_the_age_of_the_history(
    publish: Publish, redis: RealRedis, given: str | None, expected: int
) -> None:
    """In Redis the stream of the channel expires, or does not."""
    options = ["--history", "10", *([] if given is None else ["--history-seconds", given])]
    code, _, error = publish("news", "hello", "--redis", redis.url, *options)
    assert (code, error) == (0, "")
    with Redis(port=redis.port) as client:
        [age] = [client.ttl(key) for key in client.scan_iter() if client.type(key) == b"stream"]
    assert age == expected if given == "none" else expected - 30 < age <= expected


def test_the_age_needs_a_history(publish: Publish) -> None:
    for wrong in (["--redis", "redis://127.0.0.1"], []):
        code, _, error = publish("news", "x", *wrong, "--history-seconds", "60")
        assert code == 2
        assert "--history-seconds requires --history" in error


@pytest.mark.slow
@pytest.mark.redis
def test_unavailable_redis(publish: Publish) -> None:
    """One line without the password."""
    with real_redis() as stopped:
        port = stopped.port
    code, output, error = publish("x", "y", "--redis", f"redis://:hidden@127.0.0.1:{port}")
    assert (code, output) == (1, "")
    assert error.startswith("trioglock publish: not published: could not reach Redis")
    assert error.count("\n") == 1
    assert "hidden" not in error


def test_token(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or the command line; a wrong one is refused and not printed."""
    with serve_in_thread(host="0.0.0.0", publish_token=TOKEN) as at:
        arguments = ("news", "x", "--to", f"ws://{at}")
        assert publish(*arguments, "--publish-token", TOKEN)[0] == 0
        refusal = "trioglock publish: not published: the publish token is wrong (401)\n"
        assert publish(*arguments, "--publish-token", "guess") == (1, "", refusal)
        refusal = "trioglock publish: not published: a publish token is required (401)\n"
        assert publish(*arguments) == (1, "", refusal)
        monkeypatch.setenv(VARIABLE, TOKEN)
        assert publish(*arguments)[0] == 0


def test_public_server_without_a_token(publish: Publish) -> None:
    """It refuses all messages."""
    with serve_in_thread(host="0.0.0.0") as at:
        code, _, error = publish("news", "x", "--to", f"ws://{at}")
    assert code == 1
    assert "publishing is disabled: the server was started without --publish-token (403)" in error


def test_name_of_the_hub(publish: Publish) -> None:
    """A hub with another name refuses."""
    with serve_in_thread(name="app") as at:
        to = ("--to", f"ws://{at}")
        code, output, error = publish("x", "y", *to, "--name", "shop")
        assert (code, output) == (1, "")
        assert "not published: the hub is named app, not 'shop'\n" in error
        assert publish("x", "y", *to, "--name", "app")[0] == 0


def test_no_server(publish: Publish) -> None:
    """One line with the error of the system."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code, output, error = publish("x", "y", "--to", f"ws://127.0.0.1:{port}")
    assert (code, output) == (1, "")
    assert "cannot connect" in error
    assert "Connection refused" in error
    assert error.count("\n") == 1


async def discard(conn: Connection[None]) -> None:
    async for _ in conn:
        pass


async def send_invalid_json(conn: Connection[None]) -> None:
    async for _ in conn:
        await conn.send("\x1b[2J{")


async def forge_a_line(conn: Connection[None]) -> None:
    async for _ in conn:
        await conn.send(json.dumps({"published": False, "error": "no\n\x1b[2Jroot: all is well"}))


async def close(conn: Connection[None]) -> None:
    await conn.receive()
    await conn.aclose(1011, "out of\x1bpaper")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (echo, "the server gave no reason"),
        (discard, "no response within 0.3 seconds"),
        (send_invalid_json, "the response does not come from a trioglock server"),
        (forge_a_line, "no\\n\\x1b[2Jroot: all is well"),
        (close, "closed by the peer: 1011 out of\\x1bpaper"),
    ],
)
def test_server_with_wrong_responses(
    handler: Callable[[Connection[None]], Awaitable[None]], reason: str, publish: Publish
) -> None:
    """One line, without control characters from the server."""
    with target_in_thread(handler, subprotocols=["trioglock.publish"]) as url:
        code, output, error = publish("x", "y", "--to", url, "--timeout", "0.3")
    assert (code, output) == (1, "")
    assert reason in error
    assert error.count("\n") == 1
    assert "\x1b" not in error


def test_server_without_a_hub(publish: Publish) -> None:
    """Nothing is sent to it."""
    received: list[Any] = []

    async def handler(conn: Connection[None]) -> None:
        received.extend([message async for message in conn])

    with target_in_thread(handler) as url:
        code, _, error = publish("x", "y", "--to", url)
    assert code == 1
    assert "does not support publishing" in error
    assert received == []


def test_refusal_with_a_page(publish: Publish) -> None:
    """The error has the status, not the page."""

    def refuse(_: Request) -> Response:
        return Response(503, "<h1>\x1b[2J later</h1>", {"Content-Type": "text/html"})

    with target_in_thread(echo, process_request=refuse) as url:
        code, _, error = publish("x", "y", "--to", url)
    assert code == 1
    assert "503" in error
    assert "later" not in error
