"""``trioglock serve --workers``: processes that share a port, are restarted, replaced, drained."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.cli.helpers import COMMAND, SECONDS, Running, environment, run_command, started
from tests.cli.serving import serve_in_process
from tests.pubsub.redis_server import RealRedis
from tests.scripts import ROOT
from tests.server.helpers import plain_request
from trioglock import Connection, ConnectionClosedError, ConnectionClosedOK, connect
from trioglock.channels import broadcast, disconnect
from trioglock.protocols import phoenix

pytestmark = pytest.mark.slow

MODULE = """
import os
from trioglock import Reply, Socket
from trioglock.channels import Broadcast, Channel, Channels
from trioglock.pubsub import Hub, RedisBroker

class SendPid(Socket):
    def handle_connect(self, info, state):
        return Reply(str(os.getpid())), state

class Room(Channel):
    def join(self, topic, payload, user):
        return os.getpid(), user

    def handle_in(self, event, payload, state):
        return Broadcast(event, payload), state

hub = Hub()
if "REDIS" in os.environ:
    hub = Hub(broker=RedisBroker(os.environ["REDIS"]))
channels = Channels({"room:*": Room}, hub=hub, id=lambda user: "user:1")
broken = 1
"""

TOKEN = "open-sesame"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``app`` is the module above."""
    (tmp_path / "app.py").write_text(MODULE)
    return {"PYTHONPATH": str(tmp_path)}


@asynccontextmanager
async def run(env: dict[str, str], *arguments: str) -> AsyncIterator[tuple[Running, str]]:
    """The command and its URL; at the end nothing listens on its port."""
    async with serve_in_process("app:SendPid", *arguments, **env) as (process, at):
        yield process, f"ws://{at}/"
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", int(at.rpartition(":")[2]))


async def get_pid(url: str) -> int:
    """The process that serves a new connection."""
    async with connect(url, open_timeout=5) as conn:
        return int(await conn.receive())


@asynccontextmanager
async def start_with_full_disk(
    *arguments: str, **env: str
) -> AsyncIterator[tuple[trio.Process, str]]:
    """``trioglock serve`` whose stderr cannot be written, and its URL."""
    with Path("/dev/full").open("wb") as full:
        process = await trio.lowlevel.open_process(
            [*COMMAND, "serve", "--port", "0", *arguments],
            cwd=ROOT,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=full,
        )
    assert process.stdout is not None
    try:
        with trio.fail_after(SECONDS):
            async with process.stdout as output:
                line = b""
                while not line.endswith(b"\n"):
                    line += await output.receive_some()
            yield process, f"ws://{line.split()[2].decode()}/"
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.redis
async def test_redis(redis: RealRedis) -> None:
    """The browsers of both processes receive each message once."""
    options = ("--redis", redis.url, "--workers", "2")
    async with serve_in_process(*options) as (_, at), trio.open_nursery() as nursery:
        received: list[list[Any]] = [[] for _ in range(20)]

        async def subscribe(messages: list[Any]) -> None:
            async with connect(f"ws://{at}/news") as conn:
                while True:
                    messages.append(await conn.receive())

        for messages in received:
            nursery.start_soon(subscribe, messages)
        # All have subscribed once each has received a message.
        while min(map(len, received)) == 0:
            redis.publish_plainly("trioglock/news", b"ping")
            await trio.sleep(0.05)
        for text in ("one", "two", "the end"):
            redis.publish_plainly("trioglock/news", text.encode())
        while not all(messages[-1] == "the end" for messages in received):
            await trio.sleep(0.01)
        for messages in received:
            assert [text for text in messages if text != "ping"] == ["one", "two", "the end"]
        nursery.cancel_scope.cancel()


@pytest.mark.redis
async def test_the_clients_of_channels_in_all_workers_receive_broadcasts(
    redis: RealRedis, env: dict[str, str]
) -> None:
    """Those of other programs, too."""
    options = ("app:channels", "--workers", "2")
    async with serve_in_process(*options, REDIS=redis.url, **env) as (process, at):
        assert await process.line() == f"Phoenix clients: ws://{at}/socket/websocket"
        rooms: dict[int, phoenix.Channel] = {}
        async with AsyncExitStack() as clients:
            while len(rooms) < 2:
                client = await clients.enter_async_context(
                    phoenix.connect(f"ws://{at}/socket", reconnect=False)
                )
                room = await client.join("room:1")
                rooms.setdefault(room.response, room)
            first, second = rooms.values()
            await first.send("shout", {"text": "hi"})
            expected = ("shout", {"text": "hi"})
            assert await first.receive() == await second.receive() == expected
            call = partial(broadcast, "room:1", "news", {}, url=redis.url)
            await trio.to_thread.run_sync(call)
            assert await first.receive() == await second.receive() == ("news", {})
            await trio.to_thread.run_sync(partial(disconnect, "user:1", url=redis.url))
            assert [event async for event in first] == [event async for event in second] == []


async def test_restart_and_replacement(env: dict[str, str]) -> None:
    """A killed worker is restarted. SIGHUP replaces all of them, and no client is refused.

    A second SIGHUP after the first worker was replaced leads to another replacement. With --drain,
    clients are closed with 1012.
    """
    async with run(env, "--workers", "2", "--drain", "0.1") as (process, url):
        first: set[int] = set()
        while len(first) < 2:
            first.add(await get_pid(url))
        victim = first.pop()
        os.kill(victim, signal.SIGKILL)
        old = set(first)
        async with AsyncExitStack() as clients:
            connections: dict[int, Connection[None]] = {}
            while len(connections) < 2:
                try:
                    conn = await clients.enter_async_context(connect(url))
                    pid = int(await conn.receive())
                except Exception:
                    await trio.sleep(0.05)
                else:
                    connections[pid] = conn
            assert victim not in connections
            old |= connections.keys()
            first_closed = trio.Event()

            async def expect_close(conn: Connection[None]) -> None:
                with pytest.raises(ConnectionClosedError, match="1012"):
                    await conn.receive()
                first_closed.set()

            async with trio.open_nursery() as nursery:
                for conn in connections.values():
                    nursery.start_soon(expect_close, conn)
                process.process.send_signal(signal.SIGHUP)
                await first_closed.wait()
                process.process.send_signal(signal.SIGHUP)
        await process.read_errors(b"all workers replaced", 2)
        new = {await get_pid(url) for _ in range(30)}
        assert len(new) == 2
        assert not new & old


async def test_drain_of_one_process(env: dict[str, str]) -> None:
    """SIGTERM closes one client after the other, and a second Ctrl-C the remaining ones."""
    async with (
        serve_in_process("app:SendPid", "--drain", "3600", **env) as (running, at),
        connect(f"ws://{at}/") as first,
        connect(f"ws://{at}/") as second,
    ):
        for conn in (first, second):
            assert int(await conn.receive()) == running.process.pid
        running.process.terminate()
        with pytest.raises(ConnectionClosedError, match="1012"):
            await first.receive()
        for number in (signal.SIGTERM, signal.SIGINT):
            running.process.send_signal(number)
            await second.ping()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", int(at.rpartition(":")[2]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_repeatedly, running.process)
            with pytest.raises(ConnectionClosedError, match="1012"):
                await second.receive()
            nursery.cancel_scope.cancel()
        assert await running.process.wait() == 0


async def interrupt_repeatedly(process: trio.Process) -> None:
    """A signal that arrives before the previous one is handled has no effect of its own."""
    while True:
        process.send_signal(signal.SIGINT)
        await trio.sleep(0.1)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_signals_of_one_process(env: dict[str, str], name: str) -> None:
    """Each closes connections with 1001, and the exit code is 0."""
    async with run(env) as (process, url), connect(url) as conn:
        await conn.receive()
        process.process.send_signal(signal.Signals[name])
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await conn.receive()
        assert await process.process.wait() == 0


async def test_workers_end_with_their_parent(env: dict[str, str]) -> None:
    """Also if it is killed: they drain and close with 1001."""
    options = ("app:SendPid", "--workers", "2")
    with pytest.raises(ConnectionClosedOK, match="1001"):
        async with (
            serve_in_process(*options, **env) as (process, at),
            connect(f"ws://{at}/") as conn,
        ):
            await conn.receive()
            process.process.kill()
            await conn.receive()


async def test_invalid_target(env: dict[str, str]) -> None:
    """The error is printed once, and the exit code is 1."""
    options = ("--port", "0", "--workers", "2")
    done = await run_command("serve", *options, "app:broken", env=env)
    assert done.code == 1
    text = "trioglock serve: app:broken must be a Hub, a Channels, a Socket class, "
    assert done.stderr.startswith(text)
    assert done.stderr.count("\n") == 1


async def test_fault_33_workers_refuse_a_hub_in_memory(env: dict[str, str]) -> None:
    """Each worker would have subscribers of its own, without the messages of the others."""
    done = await run_command("serve", "--port", "0", "--workers", "2", "app:hub", env=env)
    assert done.code == 1
    assert done.stdout == ""
    assert done.stderr == (
        "trioglock serve: app:hub connects only the clients of one process: give its Hub a "
        "broker, such as Hub(broker=RedisBroker(url)), or use --workers 1\n"
    )


async def test_a_renewed_certificate(tmp_path: Path) -> None:
    """SIGHUP lets workers read it. A file that cannot be used leaves the old workers as they are.

    The log of a worker has the level of its messages.
    """
    authority, file = trustme.CA(), tmp_path / "certificate"
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    def renew() -> bytes:
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    async def get_certificate() -> bytes | None:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", int(at.rpartition(":")[2]), ssl_context=trust, https_compatible=True
        )
        async with stream:
            await stream.send_all(plain_request("/"))
            assert b"426 " in await stream.receive_some()
            certificate: bytes | None = stream.getpeercert(binary_form=True)
            return certificate

    first = renew()
    options = ("echo", "--workers", "2", "--tls-cert", str(file), "--log-level", "info")
    async with serve_in_process(*options) as (process, at):
        assert await get_certificate() == first
        await process.read_errors(b"INFO trioglock.server: 127.0.0.1:")
        file.write_text("")
        process.process.send_signal(signal.SIGHUP)
        await process.read_errors(b"WARNING trioglock.serve: keeping the old workers: --tls-cert: ")
        assert await get_certificate() == first
        second = renew()
        process.process.send_signal(signal.SIGHUP)
        await process.read_errors(b"INFO trioglock.serve: all workers replaced")
        assert await get_certificate() == second


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_fault_40_unwritable_output_ends_no_server(env: dict[str, str]) -> None:
    """Workers are restarted and replaced, and the exit code is 0."""
    async with start_with_full_disk("app:SendPid", "--workers", "2", **env) as (process, url):
        first = {await get_pid(url)}
        while len(first) < 2:
            first.add(await get_pid(url))
        os.kill(first.pop(), signal.SIGKILL)
        process.send_signal(signal.SIGHUP)
        later: set[int] = set()
        while len(later - first) < 2:  # both are new processes
            with suppress(Exception):
                later.add(await get_pid(url))
            await trio.sleep(0.02)
        process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def start_slowly(
    folder: Path, seconds: float, env: dict[str, str]
) -> AsyncIterator[tuple[Running, list[int]]]:
    """Two workers that are starting, all at the same time, and their process ids."""
    source = f"open({str(folder)!r} + f'/pid.{{os.getpid()}}', 'w')\ntime.sleep({seconds})\n"
    (folder / "slow.py").write_text(f"import os, time\n{source}from app import SendPid\n")
    arguments = ("slow:SendPid", "--port", "0", "--workers", "2")
    async with started("serve", *arguments, **env) as running:
        while len(files := list(folder.glob("pid.*"))) < 2:
            await trio.sleep(0.02)
        yield running, [int(path.suffix[1:]) for path in files]


async def test_fault_48_sigterm_ends_a_start(env: dict[str, str], tmp_path: Path) -> None:
    """It does not wait for workers whose start takes long; none is left behind."""
    async with start_slowly(tmp_path, 60, env) as (running, pids):
        running.process.terminate()
        with trio.fail_after(10):
            assert (await running.finish()).code == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_fault_48_sigterm_while_the_broker_is_unreachable() -> None:
    """It ends a server that has not started because Redis does not answer."""
    asked = trio.Event()

    async def ignore(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, ignore, 0, host="127.0.0.1"))
        url = f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with started("serve", "--port", "0", "--redis", url) as running:
            await asked.wait()
            running.process.terminate()
            with trio.fail_after(10):
                assert (await running.finish()).code == 0
        nursery.cancel_scope.cancel()


async def test_fault_48_sighup_during_a_start_replaces_the_workers(
    env: dict[str, str], tmp_path: Path
) -> None:
    """It is neither lost nor the end of the server."""
    async with start_slowly(tmp_path, 0.5, env) as (running, _):
        running.process.send_signal(signal.SIGHUP)
        assert (await running.line()).startswith("serving on")
        await running.read_errors(b"all workers replaced")
        running.process.terminate()
        assert (await running.finish()).code == 0


@pytest.mark.redis
async def test_token(redis: RealRedis) -> None:
    """Each worker requires it, and has it neither in its arguments nor in its environment."""
    options = ("--redis", redis.url, "--workers", "2", "--publish-token", TOKEN)
    async with serve_in_process(*options) as (process, at):
        for token, code in ((TOKEN, 0), ("guess", 1)):
            arguments = ("x", "y", "--to", f"ws://{at}", "--publish-token", token)
            assert (await run_command("publish", *arguments)).code == code
        tasks = Path("/proc", str(process.process.pid), "task")
        if tasks.exists():
            children = [path.read_text().split() for path in tasks.glob("*/children")]
            workers = [pid for pids in children for pid in pids]
            assert len(workers) == 2
            for pid in workers:
                for name in ("cmdline", "environ"):
                    assert TOKEN.encode() not in Path("/proc", pid, name).read_bytes()
