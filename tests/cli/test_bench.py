"""``trioglock bench``: what it measures, what it shows, and what it says when there is no echo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.helpers import started, trioglock
from tests.cli.hubs import served
from tests.cli.terminal import needs_tmux, terminal
from tests.server.helpers import echo
from trioglock import ConnectError, Connection, Request, Response, connect, serve
from trioglock.cli import main
from trioglock.cli.bench import picture
from trioglock.cli.bench.lane import Lane
from trioglock.cli.bench.meter import Meter
from trioglock.cli.echo import Echo

QUICK = ("--seconds", "0.3", "--warm-up", "0.1")


async def figures_of(*arguments: str | Path, **env: str) -> dict[str, Any]:
    """What it prints as JSON."""
    done = await trioglock("bench", "--json", *arguments, env=env)
    assert (done.code, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert isinstance(figures, dict)
    return figures


async def test_an_echo_server() -> None:
    """So many messages, no more, and all of them are counted."""
    heard: list[Any] = []

    class Counting(Echo):
        def handle_receive(self, frame: Any, state: None) -> Any:
            heard.append(frame)
            return super().handle_receive(frame, state)

    async with serve(Counting, "127.0.0.1", 0) as server:
        url = f"ws://user:s3cret@127.0.0.1:{server.port}/echo?token=s3cret"
        asked = ("--connections", "3", "--messages", "100", "--size", "20", "--in-flight", "4")
        figures = await figures_of(url, *asked)
    assert len(heard) == 100
    assert len(set(heard)) == 100
    assert {len(frame) for frame in heard} == {20}
    assert all(isinstance(frame, str) for frame in heard)
    assert (figures["messages"], figures["connections"], figures["opened"]) == (100, 3, 3)
    assert "s3cret" not in json.dumps(figures)
    assert figures["url"].startswith(f"ws://127.0.0.1:{server.port}/echo")
    latency = figures["latency_seconds"]
    assert list(latency) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"] < 10
    assert figures["messages_per_second"] == pytest.approx(100 / figures["seconds"])
    assert figures["bytes_received_per_second"] == pytest.approx(2000 / figures["seconds"])
    assert figures["errors"] == []
    assert figures["interrupted"] is False


async def test_the_embedded_server() -> None:
    """Without a URL it measures one of its own, for so many seconds, also where a proxy is set."""
    figures = await figures_of(*QUICK, http_proxy="http://127.0.0.1:9")
    assert figures["url"].startswith("ws://127.0.0.1:")
    assert figures["opened"] == 10
    assert figures["messages"] > 10
    assert 0.3 <= figures["seconds"] < 5


@pytest.mark.parametrize("size", ["0", "1", "5", "70000"])
async def test_messages_of_any_size(size: str) -> None:
    """Text or binary; with one byte, too, what comes back is compared."""
    async with served("echo") as (_, at):
        for more in ((), ("--binary", "--no-compression")):
            asked = ("--messages", "40", "--size", size, "--in-flight", "3", *more)
            figures = await figures_of(f"ws://{at}/", *asked)
            assert figures["messages"] == 40
            assert figures["binary"] is bool(more)


async def test_headers_and_compression() -> None:
    """The opening handshakes have what was asked for."""
    requests: list[Request] = []

    def look(request: Request) -> None:
        requests.append(request)

    async with serve(Echo, "127.0.0.1", 0, process_request=look) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        asked = ("--messages", "2", "--connections", "2", "-H", "X-Key: 5", "--no-compression")
        await figures_of(url, *asked)
    assert len(requests) == 2
    assert {request.headers["X-Key"] for request in requests} == {"5"}
    assert not any("Sec-WebSocket-Extensions" in request.headers for request in requests)


async def test_a_message_that_waits_for_room_is_not_forgotten() -> None:
    """Also when all that left before it has come back meanwhile."""
    messages = iter(["one", "two"])
    lane = Lane(Meter(), lambda: next(messages, None))
    sent: list[object] = []

    class Full:
        """The send queue of a connection that has room for one."""

        def send_frame_nowait(self, frame: object) -> None:
            if sent == ["one"]:
                raise trio.WouldBlock
            sent.append(frame)

        async def flush(self) -> None:
            assert lane.handle_receive("one", None) == (None, None)
            assert not lane.done.is_set()
            sent.append("flushed")

    await lane.start(Full(), 2)  # type: ignore[arg-type]
    assert sent == ["one", "flushed", "two"]
    assert not lane.done.is_set()
    assert lane.handle_receive("two", None) == (None, None)
    assert lane.done.is_set()


# What is shown.


async def test_the_table_and_the_plot() -> None:
    """In what the encoding can show, as wide as the terminal."""
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    done = await trioglock("bench", *QUICK, "--size", "1000", env=env)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.isascii()
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert re.search(r"messages +[\d,]+/s", done.stdout)
    for name in ("sent", "received"):
        assert re.search(rf"^{name} +[\d.,]+ MB/s", done.stdout, re.MULTILINE)
    for name in ("min", "mean", "p50", "p90", "p99", "p99.9", "max"):
        assert re.search(rf"\| {name} +\| +[\d.,]+ (us|ms|s) \| +[\d.,]+ (us|ms|s) \|", done.stdout)
    assert "#" in lines[-3]
    assert re.search(r"^ +\| [\d.]+ (us|ms) ", lines[-1])


@needs_tmux
async def test_in_a_terminal(tmp_path: Path) -> None:
    """A bar while it measures, and afterwards no trace of it; braille and colours."""
    async with terminal(tmp_path, 60, 45) as window:
        await window.run("bench", "--seconds", "2")
        await window.shows(lambda lines: any("warming up" in line for line in lines))
        await window.shows(lambda lines: any(re.search(r"measuring.*/s", line) for line in lines))
        shown = "\n".join(await window.shows("exit code 0"))
    assert "measuring" not in shown
    assert "p99.9" in shown
    assert re.search("[\u2801-\u28ff]", shown)


async def test_a_picture(tmp_path: Path) -> None:
    """A PNG; an address with signs that matplotlib takes for formulas does not disturb it."""
    path = tmp_path / "latency.png"
    async with served("echo") as (_, at):
        done = await trioglock("bench", f"ws://{at}/$x^{{", *QUICK, "--png", path)
    assert (done.code, done.stderr) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(path.read_bytes()) > 10_000


def test_a_picture_that_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said before anything is measured: where no server is, nobody looks for one."""
    arguments = ["bench", "ws://127.0.0.1:9/", "--png"]
    assert main([*arguments, str(tmp_path / "missing" / "x.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setattr(picture, "find_spec", lambda _: None)
    assert main([*arguments, str(tmp_path / "x.png")]) == 2
    assert "pip install 'trioglock[plot]'" in capsys.readouterr().err


async def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    """The figures are shown, and one line says why there is no picture."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full, a disk without room")
    done = await trioglock("bench", *QUICK, "--json", "--png", full)
    assert done.code == 1
    assert json.loads(done.stdout)["messages"] > 0
    assert done.stderr == "Error: /dev/full cannot be written: No space left on device\n"


# What goes wrong.


async def greets(conn: Connection[None]) -> None:
    await conn.send("\x1b[2Jwelcome")
    await conn.wait_closed()


async def changes(conn: Connection[None]) -> None:
    for _ in range(5):
        await conn.send(await conn.receive())
    await conn.send(f"{await conn.receive()}!")
    await conn.wait_closed()


async def says_nothing(conn: Connection[None]) -> None:
    async for _ in conn:
        pass


async def stops(conn: Connection[None]) -> None:
    for _ in range(5):
        await conn.send(await conn.receive())
    await says_nothing(conn)


async def sends_twice(conn: Connection[None]) -> None:
    async for message in conn:
        await conn.send(message)
        await conn.send(message)


async def leaves(conn: Connection[None]) -> None:
    await conn.receive()
    await conn.aclose(1011, "no paper")


async def vanishes(conn: Connection[None]) -> None:
    await conn.receive()
    conn.abort()


NO_ECHO: dict[str, tuple[Callable[[Connection[None]], Awaitable[None]], str]] = {
    "it greets": (greets, r"not an echo: .*got '\\x1b\[2Jwelcome'"),
    "it changes": (changes, r"not an echo: sent '.*', got '.*!'"),
    "it says nothing": (says_nothing, "no echo in time: nothing came back within 0.4 seconds"),
    "it stops": (stops, "no echo in time: nothing came back within 0.4 seconds"),
    "it sends twice": (sends_twice, "not an echo: sent"),
    "it leaves": (leaves, "ended early: closed by the peer: 1011 no paper"),
    "it vanishes": (vanishes, "ended early: lost"),
}


@pytest.mark.parametrize(("handler", "why"), NO_ECHO.values(), ids=list(NO_ECHO))
async def test_a_server_that_does_not_echo(
    handler: Callable[[Connection[None]], Awaitable[None]], why: str
) -> None:
    """One line that says what it does instead, for all connections; exit code 1, and no hang."""
    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        asked = ("--connections", "3", "--timeout", "0.4", "--seconds", "30", "--json")
        done = await trioglock("bench", url, *asked)
    assert done.code == 1
    assert re.search(f"trioglock bench: 3 x ({why})", done.stderr)
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    [error] = json.loads(done.stdout)["errors"]
    assert error["count"] == 3


async def test_one_that_fails_does_not_stop_the_others() -> None:
    """They are measured, and the exit code tells that something went wrong."""
    first: list[object] = []

    async def handler(conn: Connection[None]) -> None:
        if not first:
            first.append(conn)
            await leaves(conn)
        await echo(conn)

    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        done = await trioglock("bench", url, "--connections", "2", "--messages", "50", "--json")
    assert done.code == 1
    assert json.loads(done.stdout)["messages"] >= 48


async def test_no_connection() -> None:
    """Exit code 3, and why; some that do not come about are faults like others."""
    done = await trioglock("bench", "ws://127.0.0.1:9/", "--connections", "2", *QUICK)
    assert (done.code, done.stdout) == (3, "")
    assert re.fullmatch(
        r"trioglock bench: 2 x not connected: cannot connect.*refused.*\n", done.stderr
    )

    def refuse(request: Request) -> Response | None:
        return Response(503, "later") if len(server.connections) else None

    async with serve(Echo, "127.0.0.1", 0, process_request=refuse, max_connections=1) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        done = await trioglock("bench", url, "--connections", "2", "--messages", "5")
    assert done.code == 1
    assert "1 of 2 connections" in done.stdout
    assert "503" in done.stderr


async def test_ctrl_c() -> None:
    """It shows what was measured so far, and ends with 130."""
    busy = trio.Event()

    async def handler(conn: Connection[None]) -> None:
        for _ in range(20):
            await conn.send(await conn.receive())
        busy.set()
        await echo(conn)

    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        asked = ("--seconds", "600", "--warm-up", "0", "--json")
        async with started("bench", url, *asked) as bench:
            await busy.wait()
            bench.interrupt()
            done = await bench.finish()
    assert done.code == 130
    assert done.stderr == "trioglock bench: interrupted; what was measured up to then counts\n"
    figures = json.loads(done.stdout)
    assert figures["interrupted"] is True
    assert figures["messages"] >= 20


HOLDS_A_SERVER = """
import time
from trioglock.cli.bench.embedded import embedded_echo
with embedded_echo() as url:
    print(url, flush=True)
    time.sleep(100)
"""


async def test_the_embedded_server_ends_with_the_process_that_started_it() -> None:
    """Also when that is killed."""
    with trio.fail_after(20):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", HOLDS_A_SERVER], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        async with process.stdout as output:
            url = (await output.receive_some()).decode().strip()
            async with connect(url, proxy=None) as conn:
                await conn.ping()
                process.kill()
                await conn.wait_closed()
            await process.wait()
    with pytest.raises(ConnectError):
        async with connect(url, proxy=None):
            pass


USAGE = {
    "no WebSocket": (["http://localhost"], "scheme isn't ws or wss"),
    "both lengths": (["--seconds", "1", "--messages", "1"], "--messages goes without --seconds"),
    "no seconds": (["--seconds", "nan"], "'nan' is not a number of seconds"),
    "nobody": (["--connections", "0"], "--connections"),
    "a header without a value": (["-H", "hidden"], "a header is written 'Name: value'"),
    "too much": (
        ["--connections", "10000", "--in-flight", "1000", "--size", "1000"],
        "10,000,000,000 bytes to remember",
    ),
}


@pytest.mark.parametrize(("arguments", "why"), USAGE.values(), ids=list(USAGE))
def test_what_makes_no_sense(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told in a line, and the exit code is 2."""
    assert main(["bench", *arguments]) == 2
    output = capsys.readouterr()
    assert why in output.err
    assert "hidden" not in output.err
    assert output.out == ""


def test_the_help_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Options, exit codes, examples."""
    assert main(["bench", "--help"]) == 0
    output = capsys.readouterr().out
    for word in ("--in-flight", "--png", "Exit codes:", "130", "Examples:", "trioglock bench ws"):
        assert word in output
