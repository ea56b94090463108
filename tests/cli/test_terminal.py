"""``trioglock connect`` in a real terminal: the prompt, the history, and messages above it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import trio

from tests.cli.terminal import Terminal
from trioglock.testing import MockServer, echo

pytestmark = [pytest.mark.terminal, pytest.mark.slow]


async def test_a_session(window: Terminal) -> None:
    """Messages, commands, the history, and Ctrl-D."""
    async with MockServer(echo) as server:
        await window.connect(server)
        await window.type("hello")
        await window.shows(lambda lines: lines[1:] == ["> hello", "< hello", ">"])
        await window.type("/ping")
        await window.shows(lambda lines: lines[3].startswith("~ pong after "))
        await window.press("Up", "Up")
        await window.shows(lambda lines: lines[-1] == "> hello")
        await window.type(" again")
        await window.shows("< hello again")
        await window.press("Enter", "Enter")  # an empty line is not sent
        await window.type("//slash")
        await window.shows("< /slash")
        await window.type("/binary 00 ff")
        await window.shows("< binary:00ff")
        await window.type("/nonsense")
        await window.shows_start("! there is no command")
        lines = await window.quit()
        assert "* closed: 1000" in lines
        assert server.peers[0].received == ["hello", "hello again", "/slash", b"\x00\xff"]


async def test_help_status_and_tab(window: Terminal) -> None:
    """The tables fit the screen; Tab completes a command, or lists the commands that match."""
    async with MockServer(echo, subprotocol="chat") as server:
        await window.connect(server, "-s", "chat")
        await window.type("/help")
        await window.shows("/ping                   measure the round-trip time of a ping")
        await window.type("/status")
        await window.shows(lambda lines: "subprotocol        chat" in lines)
        await window.press("-l", "/tr")
        await window.press("Tab")
        await window.shows("> /trace")
        await window.press("C-c")
        await window.press("-l", "/")
        await window.shows("> /")
        await window.press("Tab")
        await window.shows(
            lambda lines: any(line.split()[:2] == ["/ping", "/close"] for line in lines)
        )
        await window.type("quit")
        await window.shows("exit code 0")


async def test_secrets_stay_secret(window: Terminal, tmp_path: Path) -> None:
    """Neither the screen nor the history contains credentials of the URL."""
    async with MockServer(echo) as server:
        host = server.url.removeprefix("ws://")
        await window.run("connect", f"ws://al:s3cret@{host}?token=s3cret", "--trace")
        await window.shows(f"* connected to {server.url}?token=[hidden]")
        await window.type("/status")
        await window.shows_start("latency")
        assert "s3cret" not in await window.screen()
        await window.quit()
        assert "s3cret" not in await window.screen()
        assert "s3cret" not in (tmp_path / "trioglock" / "connect_history").read_text()


async def test_messages_above_the_prompt(window: Terminal) -> None:
    """Messages do not disturb the line that is edited."""
    async with MockServer() as server:
        await window.connect(server)
        peer = await server.accept()
        await window.press("-l", "half a ")
        await window.shows(lambda lines: lines[-1] == "> half a")
        await peer.send("one", "two\nthree", "\x1b[2J\x07")
        shown = ["< one", "< two", "  three", "< \\x1b[2J\\x07", "> half a"]
        await window.shows(lambda lines: lines[1:] == shown)
        await peer.send(*(f"message {number}" for number in range(300)))
        await window.shows(lambda lines: lines[-2:] == ["< message 299", "> half a"])
        await window.press("Home")
        await window.press("-l", "not ")
        await window.press("End")
        await window.type("line")
        await peer.expect("not half a line")
        await window.quit()


async def test_the_peer_closes(window: Terminal) -> None:
    """The command prints code and reason and ends, also while a line is edited."""
    async with MockServer() as server:
        await window.connect(server)
        peer = await server.accept()
        await window.press("-l", "half a line")
        await window.shows("> half a line")
        await peer.close(4321, "so long")
        lines = await window.shows("exit code 1")
        assert "! closed by the peer: 4321 so long" in lines
        assert "> half a line" not in lines
        # The terminal is restored: it echoes.
        await window.press("C-u")
        await window.type("echo still  here")
        await window.shows("still here")


async def test_ctrl_c(window: Terminal) -> None:
    """It clears the line; on an empty line it closes with 1000; again, it drops the connection."""
    async with MockServer() as server:
        await window.connect(server)
        peer = await server.accept()
        await window.press("-l", "half")
        await window.shows("> half")
        await window.press("C-c")
        await window.shows(">")
        await window.press("C-c")
        await peer.expect_close(1000)
        assert "* closed: 1000" in await window.shows("exit code 130")

        await window.run("connect", server.url, "--close-timeout", "none")
        await window.shows(lambda lines: lines == [f"* connected to {server.url}", ">"])
        peer = await server.accept()
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        await window.press("C-c")
        await window.shows("* closing; press Ctrl-C again to drop the connection")
        await window.press("C-c")
        lines = await window.shows("exit code 130")
        # The terminal echoes the second one, because the prompt has gone.
        assert "^C! aborted without a closing handshake" in lines


async def test_the_prompt_before_the_connection(window: Terminal) -> None:
    """With --reconnect, lines are queued until the connection is open."""
    async with MockServer() as server:
        server.reject(503, times=3)
        await window.run("connect", server.url, "--reconnect")
        await window.shows(
            lambda lines: any("refused the handshake: 503" in line for line in lines)
        )
        await window.type("hello")
        peer = await server.accept()
        await peer.expect("hello")
        await window.shows(f"* connected to {server.url}")
        await window.quit()


async def test_ctrl_z(window: Terminal) -> None:
    """It stops the process; the line is shown again afterwards."""
    async with MockServer() as server:
        await window.connect(server)
        peer = await server.accept()
        typed = ""
        for text in ("half", " and", " half"):
            typed += text
            # The shell would echo keys that move the cursor.
            await window.press("Home", "End")
            await window.press("-l", text)
            await window.shows(f"> {typed}")
            await window.press("C-z")
            await window.shows(lambda lines: any("Stopped" in line for line in lines[-4:]))
            await window.type("clear; fg")
            await window.shows(lambda lines: bool(lines) and lines[-1].startswith("> half"))
        await window.press("Enter")
        await peer.expect("half and half")
        lines = await window.shows(lambda lines: lines[-2:] == ["> half and half", ">"])
        assert lines.count("> half and half") == 1
        await window.press("C-d")
        await window.shows(lambda lines: "* closed: 1000" in lines)


async def test_an_outage(window: Terminal) -> None:
    """With --reconnect the prompt and the edited line stay."""
    async with MockServer() as server:
        await window.connect(server, "--reconnect")
        peer = await server.accept()
        server.reject(503, times=2)
        await window.press("-l", "half")
        await window.shows("> half")
        await peer.abort()
        await window.type(" and half")
        peer = await server.accept()
        await peer.expect("half and half")
        lines = await window.shows(lambda lines: "* reconnected" in lines and lines[-1] == ">")
        lost = re.compile(r"\* connection lost: .*; (next attempt in|reconnecting now)")
        assert any(map(lost.match, lines))
        sent = "> half and half"  # typed before the loss was detected, or after it
        assert sent in lines or f"{sent} (queued until connected)" in lines
        await window.quit()


async def test_the_history(window: Terminal, tmp_path: Path) -> None:
    """It is saved in a private file; --no-history neither loads nor saves it."""
    file = tmp_path / "trioglock" / "connect_history"
    async with MockServer(echo) as server:
        for text in ("first", "ü€"):
            await window.connect(server)
            await window.type(text)
            await window.shows(f"< {text}")
            await window.press("C-d")
            await window.shows("exit code 0")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        saved = file.read_text()

        await window.connect(server)
        await window.press("Up", "Up")
        await window.shows("> first")
        await window.press("C-c")
        await window.shows(">")
        await window.press("C-c")
        await window.shows("exit code 130")

        await window.connect(server, "--no-history")
        await window.type("secret")
        await window.shows("< secret")
        await window.press("Up", "Up", "Up")
        await window.shows(lambda lines: lines[-1] == "> secret")
        await window.press("C-c")
        await window.shows(">")
        await window.press("C-c")
        await window.shows("exit code 130")
        assert file.read_text() == saved


async def test_a_history_that_cannot_be_saved(window: Terminal, tmp_path: Path) -> None:
    """An error is printed, and the prompt works."""
    (tmp_path / "trioglock").write_text("in the way")
    async with MockServer(echo) as server:
        await window.run("connect", server.url)
        await window.shows("! the history cannot be saved: File exists")
        await window.type("hello")
        await window.shows("< hello")
        await window.quit()


@pytest.mark.parametrize(
    ("before", "coloured"), [("", True), ("NO_COLOR=1", False)], ids=["colours", "NO_COLOR"]
)
async def test_colours(before: str, coloured: bool, window: Terminal) -> None:
    """Marks and indented JSON are coloured unless NO_COLOR is set."""
    async with MockServer(echo) as server:
        await window.connect(server, "--json", before=before)
        await window.type('{"a": [1, null]}')
        shown = ["< {", '    "a": [', "      1,", "      null", "    ]", "  }", ">"]
        await window.shows(lambda lines: lines[2:] == shown)
        await window.type("{")
        await window.shows_start("! not sent, invalid JSON")
        screen = await window.screen(colours=True)
        assert ("\x1b[32m<" in screen) is coloured
        assert ("\x1b[1;34m" in screen or "\x1b[1m\x1b[34m" in screen) is coloured
        await window.quit()


async def test_a_narrow_terminal(window: Terminal) -> None:
    """Long lines wrap, also after the window has become narrower."""
    async with MockServer(echo) as server:
        await window.resize(24, 20)
        await window.run("connect", server.url)
        await window.shows(">")
        text = "abcdefghij" * 5
        await window.type(text)
        await window.shows(
            lambda lines: lines[-4:] == [f"< {text[:22]}", text[22:46], text[46:], ">"]
        )
        await window.resize(12, 20)
        await window.type("0123456789abc")
        await window.shows(lambda lines: lines[-3:] == ["< 0123456789", "abc", ">"])
        await window.type("/status")
        await window.shows(lambda lines: lines[-1] == ">" and any("lat" in line for line in lines))
        await window.quit()


async def test_messages_into_a_pipe(window: Terminal, tmp_path: Path) -> None:
    """If stdout is redirected, the prompt is on stderr and stdout gets messages only."""
    file = tmp_path / "messages"
    async with MockServer(echo) as server:
        await window.connect(server, after=f"> {file}")
        await window.type("hello")
        await window.shows(lambda lines: lines[1:] == ["> hello", ">"])
        await window.type("/binary ff")
        await window.shows(lambda lines: lines[-2:] == ["> binary:ff", ">"])
        await window.quit()
        assert file.read_text() == "hello\nbinary:ff\n"


async def test_output_to_a_terminal(window: Terminal) -> None:
    """Raw bytes are refused. Without a prompt messages have no marks, but are escaped."""
    await window.run("connect", "ws://127.0.0.1/", "--raw")
    lines = await window.shows("exit code 2")
    assert "Error: --raw writes bytes unchanged: redirect stdout to a file or a pipe" in lines
    async with MockServer(echo) as server:
        await window.run("connect", server.url, "--once", before="printf 'a\\033[2Jb' |")
        await window.shows(lambda lines: lines[:2] == ["a\\x1b[2Jb", "exit code 0"])
        # --once at a prompt ends after the first answer.
        await window.connect(server, "--once")
        await window.type("hello")
        lines = await window.shows("exit code 0")
        assert lines[1:4] == ["> hello", "< hello", "* closed: 1000"]


async def test_the_trace(window: Terminal) -> None:
    """/trace switches it on and off; it is printed above the prompt."""
    async with MockServer(echo) as server:
        await window.connect(server)
        await window.type("/trace on")
        await window.shows("~ trace on")
        await window.type("hello")
        await window.shows(
            lambda lines: any(line.startswith(": ") and "frame: 'hello'" in line for line in lines)
        )
        await window.type("/trace off")
        await window.type("bye")
        lines = await window.shows("< bye")
        assert not any("received frame: 'bye'" in line for line in lines)
        await window.quit()


async def test_a_simple_terminal(window: Terminal) -> None:
    """A terminal that cannot move its cursor has no prompt; lines are messages."""
    async with MockServer(echo) as server:
        await window.run("connect", server.url, "--wait", "0", before="TERM=dumb")
        while not server.peers:
            await trio.sleep(0.02)
        await window.type("/hello")
        await window.shows(lambda lines: lines == ["/hello", "/hello"])
        await window.quit()
