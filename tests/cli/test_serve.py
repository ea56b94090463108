"""``trioglock serve``: targets, the page's switches, secrets; workers are in tests/pubsub."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest
import trio

from tests.cli.helpers import COMMAND, environment, trioglock
from tests.cli.hubs import served
from tests.cli.terminal import needs_tmux, terminal
from tests.server.helpers import Answer, plain_request
from trioglock import ConnectError, connect
from trioglock.cli import main
from trioglock.cli.settings import Settings

TOKEN = "open-sesame"


async def answer_of(at: str, path: str = "/") -> Answer:
    """What plain HTTP gets there."""
    host, _, port = at.rpartition(":")
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
        await stream.send_all(plain_request(path).replace(b"memory.test", at.encode()))
        data = b""
        while chunk := await stream.receive_some():
            data += chunk
    return Answer(data)


async def test_an_echo() -> None:
    """A target that needs no module; it has neither page nor publishers."""
    async with served("echo") as (_, at):
        async with connect(f"ws://{at}/", subprotocols=["trioglock.publish"]) as conn:
            assert conn.subprotocol is None
            for message in ("gr\xfc\xdfe", b"\x00\xff", ""):
                await conn.send(message)
                assert await conn.receive() == message
        assert (await answer_of(at)).status == 426


@needs_tmux
async def test_at_a_terminal(tmp_path: Path) -> None:
    """It says where to connect to and how it ends; the shell's prompt gets a line of its own."""
    async with terminal(tmp_path) as window:
        await window.run("serve", "echo", "--port", "0")
        lines = await window.shows("Ctrl-C ends it")
        assert re.fullmatch(r"echo server at ws://127\.0\.0\.1:\d+/", lines[0])
        await window.press("C-c")
        lines = await window.shows("exit code 0")
        assert lines[2:4] == ["^C", "exit code 0"]


async def test_the_page_and_its_switch() -> None:
    """A hub on this machine has it, and says where; switched off, it has not."""
    async with served() as (running, at):
        assert await running.line() == f"live page: http://{at}/"
        answer = await answer_of(at)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert b"<!doctype html>" in answer.body
        assert b"://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b"").replace(
            b"${scheme}://", b""
        )
    async with served("--host", "0.0.0.0") as (running, at):
        expected = "no live page: 0.0.0.0 is no loopback address, see --page"
        assert await running.line() == expected
        assert (await answer_of(at)).status == 426
    async with served("--host", "0.0.0.0", "--page") as (running, at):
        port = at.rpartition(":")[2]
        assert await running.line() == f"live page: http://127.0.0.1:{port}/"
        assert (await answer_of(at)).status == 200
    async with served("--no-page") as (_, at):
        assert (await answer_of(at)).status == 426
        with pytest.raises(ConnectError, match="404"):
            async with connect(f"ws://{at}/", subprotocols=["trioglock.live"]):
                pass


async def test_ipv6() -> None:
    """The page and publishers find it by its address."""
    if not has_ipv6():
        pytest.skip("needs IPv6 on this machine")
    async with served("--host", "::1") as (running, at):
        port = at.rpartition(":")[2]
        assert await running.line() == f"live page: http://[::1]:{port}/"
        assert (await answer_of(f"[::1]:{port}")).status == 200
        done = await trioglock("publish", "x", "y", "--to", f"ws://[::1]:{port}")
        assert (done.code, done.stderr) == (0, "")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_a_hub_of_ones_own_has_the_page(tmp_path: Path) -> None:
    """With what it does to messages; a Socket of one's own has none."""
    (tmp_path / "app.py").write_text(
        "from trioglock import Socket\n"
        "from trioglock.pubsub import Hub\n"
        "hub = Hub('mine')\n"
        "@hub.on('question')\n"
        "async def answer(message):\n"
        "    await hub.publish('42', 'answer')\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    async with served("app:hub", **env) as (_, at), connect(f"ws://{at}/answer") as conn:
        await conn.ping()
        assert (await answer_of(at)).status == 200
        done = await trioglock("publish", "question", "?", "--to", f"ws://{at}", "--name", "mine")
        assert (done.code, done.stdout) == (0, "published on question\n")
        assert await conn.receive() == "42"
    done = await trioglock("serve", "app:Socket", "--port", "0", "--page", env=env)
    assert done.code == 1
    assert "trioglock serve: --page is for a Hub, and app:Socket is none\n" in done.stderr


BROKEN = {
    "a name": ("1 / 0\n", "broken:x cannot be imported: ZeroDivisionError: division by zero ("),
    "no attribute": ("import os\nos.nothing\n", "module 'os' has no attribute 'nothing' ("),
    "a syntax": ("def\n", "broken:x cannot be imported: invalid syntax ("),
    "an import": ("import not_there\n", "broken:x cannot be imported: No module named 'not_there'"),
}


@pytest.mark.parametrize(("source", "why"), BROKEN.values(), ids=list(BROKEN))
async def test_a_module_that_fails(source: str, why: str, tmp_path: Path) -> None:
    """One line with what it raised, and where."""
    (tmp_path / "broken.py").write_text(source)
    done = await trioglock("serve", "broken:x", env={"PYTHONPATH": str(tmp_path)})
    assert (done.code, done.stdout) == (1, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert "broken.py, line" in done.stderr or "No module" in done.stderr


async def test_a_port_that_is_taken() -> None:
    """One line, exit code 1."""
    async with served() as (_, at):
        done = await trioglock("serve", "--port", at.rpartition(":")[2])
        assert (done.code, done.stdout) == (1, "")
        assert f"cannot listen on {at}: Address already in use; --port 0 takes" in done.stderr
        assert done.stderr.count("\n") == 1


async def test_the_token_is_not_shown_to_other_users() -> None:
    """A worker gets it by its environment, not on its command line; the parent's stays its own."""
    settings = Settings(
        target="a:b", workers=3, publish_token=TOKEN, page=False, page_hosts=("x", "y")
    )
    arguments = settings.to_arguments(8020, 7)
    assert TOKEN not in " ".join(arguments)
    assert settings.to_environment() == {"TRIOGLOCK_PUBLISH_TOKEN": TOKEN}
    assert TOKEN not in repr(settings)
    assert arguments[:2] == ["serve", "a:b"]
    for given in (("--port", "8020"), ("--ready-fd", "7"), ("--page-host", "y")):
        at = arguments.index(given[1])
        assert arguments[at - 1] == given[0]
    assert "--no-page" in arguments


async def test_workers_take_publications_with_the_token(tmp_path: Path) -> None:
    """Whichever of them gets the connection."""
    (tmp_path / "app.py").write_text("from trioglock.pubsub import Hub\nhub = Hub()\n")
    env = {"PYTHONPATH": str(tmp_path)}
    asked = ("app:hub", "--workers", "2", "--publish-token", TOKEN)
    async with served(*asked, **env) as (_, at):
        for token, code in ((TOKEN, 0), ("guess", 1)):
            to = ("--to", f"ws://{at}", "--publish-token", token)
            assert (await trioglock("publish", "x", "y", *to)).code == code


def test_bad_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and it is not repeated."""
    assert main(["serve", "--publish-token", "se cret"]) == 2
    assert "visible ASCII" in (told := capsys.readouterr().err)
    assert "se cret" not in told


def test_what_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    for arguments, told in (
        (["--port", "x"], "--port"),
        (["--port", "99999"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--drain=-3"], "--drain"),
        (["--drain", "nan"], "--drain"),
        (["--history", "0"], "--history"),
        (["--no-such-option"], "--no-such-option"),
        (["a:b", "c:d"], "c:d"),
        (["nope"], "a target is echo, or written module:name, not nope"),
    ):
        assert main(["serve", *arguments]) == 2
        error = capsys.readouterr().err
        assert "Error:" in error
        assert told in error


def test_the_help_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Options, signals, exit codes, examples; nothing that is only for workers."""
    assert main(["serve", "--help"]) == 0
    output = capsys.readouterr().out
    for word in ("TARGET", "--no-page", "--publish-token", "SIGHUP", "Exit codes:", "Examples:"):
        assert word in output
    assert "ready-fd" not in output


def test_serving_needs_no_library_for_terminals() -> None:
    """A server that runs for months does not load what draws tables and prompts."""
    program = (
        "import sys, trioglock.cli.serve; "
        "sys.exit([name for name in ('rich', 'prompt_toolkit', 'plotille', 'matplotlib') "
        "if name in sys.modules] or 0)"
    )
    done = subprocess.run(  # noqa: S603
        [*COMMAND[:-2], "-c", program], check=False, env=environment(), timeout=20
    )
    assert done.returncode == 0
