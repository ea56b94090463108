"""``trioglock bench``: measurements, output, and servers that do not echo."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.cli.helpers import started
from tests.cli.serving import target_in_thread
from tests.cli.terminal import Terminal
from tests.server.helpers import echo
from trioglock import ConnectError, Connection, Request, Response, connect, serve
from trioglock.cli import main
from trioglock.cli.echo import Echo

QUICK = ("--seconds", "0.3", "--warm-up", "0.1")


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run the command; the results."""
    assert main(["bench", "--json", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    results = json.loads(output.out)
    assert isinstance(results, dict)
    return results


def test_results(capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly the wanted number of different messages is sent, and each of them is counted."""
    received: list[Any] = []

    class Recording(Echo):
        def handle_receive(self, frame: Any, state: None) -> Any:
            received.append(frame)
            return super().handle_receive(frame, state)

    with target_in_thread(Recording) as url:
        url = f"{url.replace('//', '//user:s3cret@')}echo?token=s3cret"
        options = ("--connections", "3", "--messages", "100", "--size", "20", "--in-flight", "4")
        results = bench(capsys, url, *options)
    assert len(received) == len(set(received)) == 100
    assert {len(frame) for frame in received} == {20}
    assert all(isinstance(frame, str) for frame in received)
    assert (results["messages"], results["connections"], results["opened"]) == (100, 3, 3)
    assert "s3cret" not in json.dumps(results)
    assert re.match(r"ws://127\.0\.0\.1:\d+/echo", results["url"])
    for times in (results["latency_seconds"], results["connect_seconds"]):
        assert list(times) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
        assert 0 < times["min"] <= times["p50"] <= times["p99"] <= times["max"] < 10
        assert times["min"] <= times["mean"] <= times["max"]
    assert results["messages_per_second"] == pytest.approx(100 / results["seconds"])
    assert results["bytes_received_per_second"] == pytest.approx(2000 / results["seconds"])
    assert results["errors"] == []
    assert results["interrupted"] is False


@pytest.mark.slow
def test_embedded_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a URL, it measures a server of its own for a time, past any proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    results = bench(capsys, *QUICK)
    assert results["url"].startswith("ws://127.0.0.1:")
    assert results["opened"] == 10
    assert results["messages"] > 10
    assert 0.3 <= results["seconds"] < 5


@pytest.mark.slow
def test_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of any size, also those that are too short to differ from each other."""
    options = ("--messages", "40", "--in-flight", "3", "--connections", "3", "--size")
    with target_in_thread(Echo) as url:
        for size in ("0", "1", "5", "70000"):
            for more in ((), ("--binary", "--no-compression")):
                results = bench(capsys, url, *options, size, *more)
                assert (results["messages"], results["binary"]) == (40, bool(more))


@pytest.mark.slow
def test_more_in_flight_than_the_send_queue_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """The first messages are not limited by the send queue, and stay in order."""
    with target_in_thread(Echo, write_limit=2**24) as url:
        options = ("--connections", "1", "--size", "10000", "--in-flight", "200")
        results = bench(capsys, url, "--messages", "300", *options)
    assert results["messages"] == 300


def test_headers_and_compression(capsys: pytest.CaptureFixture[str]) -> None:
    """The opening handshakes contain what the options say."""
    requests: list[Request] = []
    with target_in_thread(Echo, process_request=requests.append) as url:
        options = ("--messages", "2", "--connections", "2", "-H", "X-Key: 5", "--no-compression")
        bench(capsys, url, *options)
    assert [request.headers["X-Key"] for request in requests] == ["5", "5"]
    assert not any("Sec-WebSocket-Extensions" in request.headers for request in requests)


# Output


@pytest.mark.slow
def test_table_and_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as wide as the terminal, in characters that the encoding has."""
    monkeypatch.setenv("COLUMNS", "60")
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    with target_in_thread(Echo) as url:
        assert main(["bench", url, *QUICK, "--size", "1000"]) == 0
    output.seek(0)
    text = output.read()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert re.search(r"^messages +[\d,]+/s", text, re.MULTILINE)
    for name in ("sent", "received"):
        assert re.search(rf"^{name} +[\d.,]+ MB/s", text, re.MULTILINE)
    for name in ("min", "mean", "p50", "p90", "p99", "p99.9", "max"):
        assert re.search(rf"\| {name} +\| +[\d.,]+ (us|ms|s) \| +[\d.,]+ (us|ms|s) \|", text)
    assert "#" in lines[-3]
    assert re.search(r"^ +\| [\d.]+ (us|ms) ", lines[-1])


@pytest.mark.slow
@pytest.mark.terminal
async def test_terminal(window: Terminal) -> None:
    """A progress bar, which disappears at the end; braille and colours."""
    await window.resize(60, 45)
    await window.run("bench", "--seconds", "2")
    await window.shows(lambda lines: any("warming up" in line for line in lines))
    await window.shows(lambda lines: any(re.search(r"measuring.*/s", line) for line in lines))
    screen = "\n".join(await window.shows("exit code 0"))
    assert "measuring" not in screen
    assert "p99.9" in screen
    assert re.search("[\u2801-\u28ff]", screen)


# Failures


async def greet(conn: Connection[None]) -> None:
    await conn.send("\x1b[2Jwelcome")
    await conn.wait_closed()


async def change_a_message(conn: Connection[None]) -> None:
    for _ in range(5):
        await conn.send(await conn.receive())
    await conn.send(f"{await conn.receive()!s}!")
    await conn.wait_closed()


async def stop_responding(conn: Connection[None]) -> None:
    for _ in range(5):
        await conn.send(await conn.receive())
    async for _ in conn:
        pass


async def send_twice(conn: Connection[None]) -> None:
    async for message in conn:
        await conn.send(message)
        await conn.send(message)


async def close(conn: Connection[None]) -> None:
    await conn.receive()
    await conn.aclose(1011, "no paper")


async def abort(conn: Connection[None]) -> None:
    await conn.receive()
    conn.abort()


Handler = Callable[[Connection[None]], Awaitable[None]]

FAILURES: list[tuple[Handler, str]] = [
    (greet, r"not an echo: .*received '\\x1b\[2Jwelcome'"),
    (change_a_message, r"not an echo: sent '.*', received '.*!'"),
    (stop_responding, "echo timeout: no echo within 0.4 seconds"),
    (send_twice, "not an echo: sent"),
    (close, "unexpected end: closed by the peer: 1011 no paper"),
    (abort, "unexpected end: connection lost"),
]


@pytest.mark.parametrize(("handler", "reason"), FAILURES)
def test_server_that_does_not_echo(
    handler: Handler, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the reason for all connections, and exit code 1."""
    with target_in_thread(handler) as url:
        options = ("--connections", "3", "--timeout", "0.4", "--seconds", "30", "--json")
        assert main(["bench", url, *options]) == 1
    output = capsys.readouterr()
    assert re.search(f"trioglock bench: 3 x ({reason})", output.err)
    assert output.err.count("\n") == 1
    assert "\x1b" not in output.err
    [error] = json.loads(output.out)["errors"]
    assert error["count"] == 3


def test_failure_of_one_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are measured, and the exit code is 1."""
    first: list[object] = []

    async def handler(conn: Connection[None]) -> None:
        if not first:
            first.append(conn)
            await close(conn)
        await echo(conn)

    with target_in_thread(handler) as url:
        assert main(["bench", url, "--connections", "2", "--messages", "50", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["messages"] >= 48


def test_no_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 and the reason."""
    assert main(["bench", "ws://127.0.0.1:9/", "--connections", "2", *QUICK]) == 3
    output = capsys.readouterr()
    assert output.out == ""
    line = r"trioglock bench: 2 x connection failed: cannot connect.*refused.*\n"
    assert re.fullmatch(line, output.err)


def test_some_connections(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the output has the number of connections that were opened."""
    requests: list[Request] = []

    def refuse_second(request: Request) -> Response | None:
        requests.append(request)
        return Response(503, "later") if len(requests) > 1 else None

    with target_in_thread(Echo, process_request=refuse_second) as url:
        assert main(["bench", url, "--connections", "2", "--messages", "5"]) == 1
    output = capsys.readouterr()
    assert "1 of 2 connections" in output.out
    assert "503" in output.err


@pytest.mark.slow
async def test_ctrl_c() -> None:
    """The results until then are printed; the exit code is 130."""
    busy = trio.Event()

    async def handler(conn: Connection[None]) -> None:
        for _ in range(20):
            await conn.send(await conn.receive())
        busy.set()
        await echo(conn)

    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        options = ("--seconds", "600", "--warm-up", "0", "--json")
        async with started("bench", url, *options) as process:
            await busy.wait()
            process.interrupt()
            done = await process.finish()
    assert done.code == 130
    assert (
        done.stderr == "trioglock bench: interrupted; the results cover the time up to that point\n"
    )
    results = json.loads(done.stdout)
    assert results["interrupted"] is True
    assert results["messages"] >= 20


PROGRAM = """
import time
from trioglock.cli.bench import embedded_server
with embedded_server() as url:
    print(url, flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
async def test_embedded_server_ends_with_its_parent() -> None:
    """Also if the parent is killed."""
    with trio.fail_after(300):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE
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
