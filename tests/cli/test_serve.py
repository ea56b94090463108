"""``trioglock serve``: targets, the page, addresses and errors; see test_workers for processes."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_browser

from tests.cli.serving import serve_in_process, serve_in_thread
from tests.cli.terminal import Terminal
from tests.server.helpers import Answer, plain_request
from trioglock import ConnectionClosedOK, InvalidOption, connect
from trioglock.cli import main
from trioglock.cli.serve import Settings, describe_server, load_target, open_server
from trioglock.pubsub import Hub

TOKEN = "open-sesame"


def get(at: str) -> Answer:
    """The response to a plain HTTP request for /."""
    host, _, port = at.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 10) as stream:
        stream.sendall(plain_request("/").replace(b"memory.test", at.encode()))
        return Answer(b"".join(iter(lambda: stream.recv(2**16), b"")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which targets are imported; the modules are forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_echo() -> None:
    """It has no page, and nothing can be published."""
    with serve_in_thread(target="echo") as at:
        with connect_browser(f"ws://{at}/", proxy=None) as conn:
            for message in ("gr\xfc\xdfe", b"\x00\xff", ""):
                conn.send(message)
                assert conn.recv(5) == message
        assert get(at).status == 426


@pytest.mark.slow
@pytest.mark.terminal
async def test_terminal(window: Terminal) -> None:
    """The output has the URL and how to stop; the shell's prompt starts on a line of its own."""
    await window.run("serve", "echo", "--port", "0")
    lines = await window.shows("Press Ctrl-C to stop.")
    assert re.fullmatch(r"echo server at ws://127\.0\.0\.1:\d+/", lines[0])
    await window.press("C-c")
    lines = await window.shows("exit code 0")
    assert lines[2:4] == ["^C", "exit code 0"]


@pytest.mark.slow
async def test_process() -> None:
    """The output has the address and that of the page.

    SIGTERM closes connections with 1001 and ends it with exit code 0.
    """
    async with serve_in_process() as (process, at), connect(f"ws://{at}/") as conn:
        assert await process.line() == f"live page: http://{at}/"
        process.terminate()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await conn.receive()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "live page: http://127.0.0.1:80/"),
        ({"host": "::1"}, "live page: http://[::1]:80/"),
        ({"host": "0.0.0.0"}, "no live page: 0.0.0.0 is not a loopback address; see --page"),
        ({"host": "0.0.0.0", "page": True}, "live page: http://127.0.0.1:80/"),
        ({"page": False}, None),
        ({"target": "a:hub"}, "live page: http://127.0.0.1:80/"),
    ],
)
def test_output(settings: dict[str, Any], line: str | None) -> None:
    """The address, and where the page is."""
    chosen = Settings(**settings)
    lines = [f"serving on {chosen.host}:80", line]
    described = list(describe_server(chosen, Hub(), 80))
    assert described == [text for text in lines if text is not None]


CHANNELS = """
from trioglock import Response
from trioglock.channels import Answer, Channel, Channels
from trioglock.pubsub import Hub

class Room(Channel):
    def join(self, topic, payload, user):
        return {}, user

    def handle_in(self, event, payload, state):
        return Answer("ok", payload), state

hub = Hub()
channels = Channels({"room:*": Room}, hub=hub)
paths = {
    "/live/*": hub.socket,
    "/socket/websocket": channels.socket,
    "/": Response(200, "hello"),
}
number = 1
"""


@pytest.mark.parametrize("target", ["app:channels", "app:channels.socket"])
def test_channels_of_a_module(target: str, folder: Path) -> None:
    """Their hub is opened."""
    (folder / "app.py").write_text(CHANNELS)
    with (
        serve_in_thread(target=target) as at,
        connect_browser(f"ws://{at}/socket/websocket?vsn=2.0.0", proxy=None) as client,
    ):
        client.send('["1","1","room:1","phx_join",{}]')
        assert client.recv(5) == '["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]'
        client.send('["1","2","room:1","echo",[7]]')
        assert client.recv(5) == '["1","2","room:1","phx_reply",{"response":[7],"status":"ok"}]'


def test_paths_of_a_module(folder: Path) -> None:
    """The hub of several targets is opened once."""
    (folder / "app.py").write_text(CHANNELS)
    with serve_in_thread(target="app:paths") as at:
        page = get(at)
        assert (page.status, page.body) == (200, b"hello")
        with (
            connect_browser(f"ws://{at}/live/news?after=", proxy=None) as browser,
            connect_browser(f"ws://{at}/socket/websocket?vsn=2.0.0", proxy=None) as client,
        ):
            assert json.loads(browser.recv(5)) == {"subscribed": "news", "id": None}
            client.send('["1","1","room:1","phx_join",{}]')
            assert client.recv(5) == '["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]'


def test_paths_have_no_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "app.py").write_text(CHANNELS)
    assert main(["serve", "app:paths", "--port", "0", "--page"]) == 1
    assert "--page requires a Hub, and app:paths is not a Hub" in capsys.readouterr().err


def test_a_bad_path_of_a_module(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "app.py").write_text(CHANNELS + "paths['live'] = hub.socket\n")
    assert main(["serve", "app:paths", "--port", "0"]) == 1
    error = "trioglock serve: 'live' is not the path of a target: it must start with '/'\n"
    assert capsys.readouterr().err == error


def test_the_output_has_the_url_of_phoenix_clients(folder: Path) -> None:
    (folder / "app.py").write_text(CHANNELS)
    settings = Settings(target="app:channels", host="::")
    lines = list(describe_server(settings, load_target(settings), 80))
    assert lines == ["serving on :::80", "Phoenix clients: ws://127.0.0.1:80/socket/websocket"]


@pytest.mark.skipif(sys.platform == "win32", reason="no workers")
@pytest.mark.parametrize("target", ["app:channels", "app:paths"])
async def test_workers_refuse_channels_with_a_hub_in_memory(target: str, folder: Path) -> None:
    (folder / "app.py").write_text(CHANNELS)
    settings = Settings(target=target, workers=2, ready_fd=0)
    with pytest.raises(InvalidOption, match=rf"^{target} connects only .* a broker, such as"):
        async with open_server(settings, load_target(settings)):
            pass


def test_the_socket_of_a_hub_is_the_hub(folder: Path) -> None:
    """With its page."""
    (folder / "app.py").write_text(CHANNELS)
    with serve_in_thread(target="app:hub.socket") as at:
        assert get(at).status == 200


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("number", "not 1"),
        ("Hub", "not the class Hub"),
        ("Room", "not the class Room: serve a Channels with a route to it"),
    ],
)
def test_what_cannot_be_served(name: str, problem: str, folder: Path) -> None:
    """The error says what can be."""
    (folder / "app.py").write_text(CHANNELS)
    kinds = (
        "a Hub, a Channels, a Socket class, a function that returns a Socket, an async handler, or "
        "a mapping of paths to targets"
    )
    with pytest.raises(InvalidOption) as error:
        load_target(Settings(target=f"app:{name}"))
    assert str(error.value) == f"app:{name} must be {kinds}, {problem}"


def test_an_attribute_that_does_not_exist(folder: Path) -> None:
    (folder / "app.py").write_text(CHANNELS)
    with pytest.raises(InvalidOption, match=r"^app has no attribute channels\.sockets$"):
        load_target(Settings(target="app:channels.sockets"))


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 200),
        ({"page": False}, 426),
        ({"host": "0.0.0.0"}, 426),
        ({"host": "0.0.0.0", "page": True}, 200),
    ],
)
def test_page(settings: dict[str, Any], status: int) -> None:
    """By default on a loopback address only; it refers to no other server."""
    with serve_in_thread(**settings) as at:
        answer = get(at)
    assert answer.status == status
    if status == 200:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert b"<!doctype html>" in answer.body
        own = answer.body.replace(b"http://www.w3.org/2000/svg", b"")
        # The scripts build URLs of this server: `${scheme}://${host}`.
        assert not re.search(rb"\w://", own)


@pytest.mark.parametrize("target", [None, "echo"])
def test_fault_44_foreign_pages_are_refused(target: str | None) -> None:
    """For every kind of target, unless --origin allows them."""
    options: dict[str, Any] = {"proxy": None, "origin": "https://shop.example"}
    allowed = [options["origin"]]
    with (
        serve_in_thread(target=target) as at,
        pytest.raises(InvalidStatus, match="403"),
        connect_browser(f"ws://{at}/", **options),
    ):
        pass
    with (
        serve_in_thread(target=target, origins=allowed) as at,
        connect_browser(f"ws://{at}/", **options),
    ):
        pass


def test_fault_44_an_invalid_origin(capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error of the command line."""
    assert main(["serve", "--origin", "shop.example"]) == 2
    assert "write it as 'https://example.org'" in capsys.readouterr().err


def test_ipv6(capsys: pytest.CaptureFixture[str]) -> None:
    """The page and publishers accept the address as host name."""
    try:
        with socket.socket(socket.AF_INET6) as attempt:
            attempt.bind(("::1", 0))
    except OSError:
        pytest.skip("needs IPv6 on this machine")
    with serve_in_thread(host="::1") as at:
        assert get(at).status == 200
        assert main(["publish", "x", "y", "--to", f"ws://{at}"]) == 0
    assert capsys.readouterr().err == ""


def test_hub_of_a_module(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the page, and its listeners run."""
    (folder / "app.py").write_text(
        "from trioglock.pubsub import Hub\n"
        "hub = Hub('mine')\n"
        "@hub.on('question')\n"
        "async def answer(message):\n"
        "    await hub.publish('42', 'answer')\n"
    )
    with (
        serve_in_thread(target="app:hub") as at,
        connect_browser(f"ws://{at}/answer", proxy=None) as browser,
    ):
        assert get(at).status == 200
        assert main(["publish", "question", "?", "--to", f"ws://{at}", "--name", "mine"]) == 0
        assert capsys.readouterr().out == "published on question\n"
        assert browser.recv(5) == "42"


def test_page_of_a_socket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a Hub has a page."""
    (folder / "app.py").write_text("from trioglock import Socket\n")
    assert main(["serve", "app:Socket", "--port", "0", "--page"]) == 1
    error = "trioglock serve: --page requires a Hub, and app:Socket is not a Hub\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0\n", "cannot import broken:x: ZeroDivisionError: division by zero ("),
        ("import os\nos.nothing\n", "module 'os' has no attribute 'nothing' ("),
        ("def\n", "cannot import broken:x: invalid syntax ("),
        ("import not_there\n", "cannot import broken:x: No module named 'not_there'"),
        ("y = 1\n", "broken has no attribute x"),
        ("x = 1\n", "broken:x must be a Hub, "),
    ],
)
def test_module_that_fails(
    source: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the error and its place."""
    (folder / "broken.py").write_text(source)
    assert main(["serve", "broken:x"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert reason in output.err
    assert output.err.count("\n") == 1
    assert "(" not in reason or "broken.py, line" in output.err


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(
            ("--workers", "2", "--redis", "redis://localhost"),
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no workers"),
        ),
    ],
)
def test_fault_35_a_port_in_use_is_named_once(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 1."""
    with serve_in_thread() as at:
        assert main(["serve", "--port", at.rpartition(":")[2], *options]) == 1
    problem = f"cannot listen on {at}: Address already in use; --port 0 selects a free port"
    assert capsys.readouterr() == ("", f"trioglock serve: {problem}\n")


def test_an_unknown_host(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the name."""
    assert main(["serve", "--host", "not.a.name.invalid"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trioglock serve: cannot listen on not.a.name.invalid:8020: ")


def test_secrets_are_not_in_a_repr() -> None:
    """Neither the token nor the password of Redis."""
    settings = Settings(publish_token=TOKEN, redis="redis://:hidden@localhost")
    assert TOKEN not in repr(settings)
    assert "hidden" not in repr(settings)


def test_invalid_token(capsys: pytest.CaptureFixture[str]) -> None:
    """The error does not contain it."""
    assert main(["serve", "--publish-token", "se cret"]) == 2
    error = capsys.readouterr().err
    assert "visible ASCII" in error
    assert "se cret" not in error


def test_settings_raise() -> None:
    """Also without the command line."""
    with pytest.raises(InvalidOption, match="--history requires"):
        Settings(history=5)


def test_worker_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that started it has ended before it wrote them: the worker ends, too."""
    with open(os.devnull) as empty:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", empty)
        assert main(["serve", "--worker"]) == 1
