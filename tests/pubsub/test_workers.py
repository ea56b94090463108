"""``trioglock serve`` with one process and with several on one port."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.pubsub.redis_server import RealRedis
from tests.scripts import ROOT, run_python
from trioglock import ConnectionClosedOK, connect
from trioglock.cli import main

SECONDS = 25
WHO = """
import os
from trioglock import Reply, Socket

class Who(Socket):
    def handle_connect(self, info, state):
        return Reply(str(os.getpid())), state

broken = 1
"""


class ServeCommand:
    """A running ``trioglock serve``."""

    def __init__(self, process: trio.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def line(self) -> str:
        """Return the next line of output."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            byte = await self.process.stdout.receive_some(1)
            assert byte, f"the process ended: {line!r}"
            line += byte
        return line.decode().strip()


@asynccontextmanager
async def running(*arguments: str, cwd: Path = ROOT) -> AsyncIterator[ServeCommand]:
    """Run the command for the duration of a block; SIGTERM ends it and all its workers."""
    command = [sys.executable, "-m", "trioglock", "serve", "--port", "0", *arguments]
    with trio.fail_after(SECONDS):
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
        )
        running = ServeCommand(process, "")
        try:
            words = (await running.line()).split()
            assert words[:2] == ["serving", "on"]
            running.url = f"ws://{words[2]}/"
            yield running
            process.terminate()
            assert await process.wait() == 0
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream("127.0.0.1", int(words[2].rpartition(":")[2]))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                await stream.aclose()


async def pid_at(url: str) -> int:
    """Return the id of the process that serves a new connection."""
    async with connect(url, open_timeout=5) as conn:
        return int(await conn.receive())


async def test_a_hub_without_arguments() -> None:
    async with running() as command, connect(command.url + "x") as conn:
        await conn.send("hello")
        await conn.ping()


@pytest.mark.slow
async def test_two_processes_and_one_redis(redis: RealRedis) -> None:
    """A message reaches the clients of both once."""
    arguments = ("--redis", redis.url, "--workers", "2")
    async with running(*arguments) as command, trio.open_nursery() as nursery:
        got: list[list[str]] = [[] for _ in range(20)]

        async def listen(received: list[str]) -> None:
            async with connect(command.url + "news") as conn:
                while True:
                    received.append(await conn.receive())

        for received in got:
            nursery.start_soon(listen, received)
        # Once every client has received a message, all are subscribed.
        while min(map(len, got)) == 0:
            redis.publish_plainly("trioglock/news", b"ready?")
            await trio.sleep(0.05)
        for text in ("one", "two", "the end"):
            redis.publish_plainly("trioglock/news", text.encode())
        while not all(received[-1] == "the end" for received in got):
            await trio.sleep(0.01)
        for received in got:
            assert [text for text in received if text != "ready?"] == ["one", "two", "the end"]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_workers_share_the_port_and_are_replaced(tmp_path: Path) -> None:
    """A killed worker is restarted; SIGHUP replaces all without refusing connections."""
    (tmp_path / "who.py").write_text(WHO)
    async with running("who:Who", "--workers", "2", cwd=tmp_path) as command:
        first: set[int] = set()
        while len(first) < 2:
            first.add(await pid_at(command.url))
        victim = first.pop()
        subprocess.run(["kill", "-9", str(victim)], check=True)  # noqa: S603, S607
        second: set[int] = set()
        while len(second - first - {victim}) < 1:
            try:
                second.add(await pid_at(command.url))
            except Exception:
                await trio.sleep(0.05)
        old = first | second - {victim}
        async with connect(command.url) as conn:
            assert int(await conn.receive()) in old
            command.process.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosedOK) as caught:
                await conn.receive()
            assert caught.value.code == 1001
        assert await command.line() == "all workers are new"
        third = {await pid_at(command.url) for _ in range(30)}
        assert len(third) == 2
        assert not third & old


@pytest.mark.slow
async def test_a_second_sighup_during_a_replacement(tmp_path: Path) -> None:
    """It replaces all workers once more."""
    (tmp_path / "who.py").write_text(WHO)
    async with running("who:Who", "--workers", "2", cwd=tmp_path) as command:
        old: dict[int, Any] = {}
        first_closed = trio.Event()

        async def watch(conn: Any) -> None:
            await conn.wait_closed()
            first_closed.set()

        async with AsyncExitStack() as stack:
            while len(old) < 2:
                conn = await stack.enter_async_context(connect(command.url))
                old[int(await conn.receive())] = conn
            async with trio.open_nursery() as nursery:
                for conn in old.values():
                    nursery.start_soon(watch, conn)
                command.process.send_signal(signal.SIGHUP)
                await first_closed.wait()
                command.process.send_signal(signal.SIGHUP)
        for _ in range(2):
            assert await command.line() == "all workers are new"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_one_process_drains(tmp_path: Path, name: str) -> None:
    """On each signal, connected clients receive 1001 and the exit code is 0."""
    (tmp_path / "who.py").write_text(WHO)
    async with running("who:Who", cwd=tmp_path) as command, connect(command.url) as conn:
        await conn.receive()
        command.process.send_signal(signal.Signals[name])
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await conn.receive()
        assert await command.process.wait() == 0


async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Even if it is killed, they close connections with 1001."""
    (tmp_path / "who.py").write_text(WHO)
    with pytest.raises(ConnectionClosedOK) as caught:
        async with (
            running("who:Who", "--workers", "2", cwd=tmp_path) as command,
            connect(command.url) as conn,
        ):
            await conn.receive()
            command.process.kill()
            await conn.receive()
    assert caught.value.code == 1001


@pytest.mark.slow
async def test_a_target_that_does_not_start(tmp_path: Path) -> None:
    """The command prints the reason and exits with 1, with one worker or several."""
    (tmp_path / "who.py").write_text(WHO)
    for more in ((), ("--workers", "2")):
        start = ("-m", "trioglock", "serve", "--port", "0", *more)
        done = await run_python(*start, "who:broken", cwd=tmp_path)
        assert done.code == 1
        assert "target is a Socket class or an async handler, not 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers is at least 1"),
        (["--workers", "2"], "needs --redis"),
        (["--history", "5"], "--history needs --redis"),
        (["a:b", "--redis", "redis://"], "give them to your target"),
        (["nonsense"], "module:name, not nonsense"),
        (["no_such_module:x"], "cannot be imported"),
        (["json:x"], "json has no x"),
        (["--name", "a b"], "a hub's name"),
        (["--redis", "http://"], "a Redis URL begins with"),
    ],
)
def test_invalid_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, or 1 if the target cannot be imported."""
    code = 1 if message in ("cannot be imported", "json has no x") else 2
    assert main(["serve", "--port", "0", *arguments]) == code
    assert message in capsys.readouterr().err
