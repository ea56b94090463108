"""``trioglock serve --workers``: processes that share a port, are restarted, replaced, drained."""

from __future__ import annotations

import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.cli.helpers import Running, run_command, started
from tests.cli.serving import serve_in_process
from tests.pubsub.redis_server import RealRedis
from tests.server.helpers import plain_request
from trioglock import Connection, ConnectionClosedError, ConnectionClosedOK, connect
from trioglock.channels import broadcast, disconnect
from trioglock.protocols import phoenix

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32", reason="no workers, and no signals that are handled"
    ),
]

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


@pytest.mark.redis
async def test_redis(redis: RealRedis) -> None:
    """The browsers of both processes receive each message once.

    Each worker requires the token, and has it neither in its arguments nor in its environment.
    """
    options = ("--redis", redis.url, "--workers", "2", "--publish-token", TOKEN)
    async with serve_in_process(*options) as (process, at), trio.open_nursery() as nursery:
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


async def test_replacement(env: dict[str, str], tmp_path: Path) -> None:
    """SIGHUP replaces all workers, which read the certificate again, and no client is refused.

    A file that cannot be used leaves the old workers as they are. A second SIGHUP after the first
    worker was replaced leads to another replacement. With --drain, clients are closed with 1012,
    also those of workers whose parent is killed. The log of a worker has the level of its messages.
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
            "127.0.0.1", port, ssl_context=trust, https_compatible=True
        )
        async with stream:
            await stream.send_all(plain_request("/"))
            assert b"426 " in await stream.receive_some()
            certificate: bytes | None = stream.getpeercert(binary_form=True)
            return certificate

    certificate = renew()
    options = ("--workers", "2", "--drain", "0.1", "--tls-cert", str(file), "--log-level", "info")
    async with started("serve", "app:SendPid", "--port", "0", *options, **env) as running:
        at = (await running.line()).split()[2]
        port = int(at.rpartition(":")[2])
        open_connection = partial(connect, f"wss://{at}/", ssl_context=trust)
        async with AsyncExitStack() as clients:
            connections: dict[int, Connection[None]] = {}
            while len(connections) < 2:
                conn = await clients.enter_async_context(open_connection())
                connections[int(await conn.receive())] = conn
            assert await get_certificate() == certificate
            await running.read_errors(b"INFO trioglock.server: 127.0.0.1:")
            file.write_text("")
            running.process.send_signal(signal.SIGHUP)
            await running.read_errors(
                b"WARNING trioglock.serve: keeping the old workers: --tls-cert: "
            )
            assert await get_certificate() == certificate
            certificate = renew()
            first_closed = trio.Event()

            async def expect_close(conn: Connection[None]) -> None:
                with pytest.raises(ConnectionClosedError, match="1012"):
                    await conn.receive()
                first_closed.set()

            async with trio.open_nursery() as nursery:
                for conn in connections.values():
                    nursery.start_soon(expect_close, conn)
                running.process.send_signal(signal.SIGHUP)
                await first_closed.wait()
                running.process.send_signal(signal.SIGHUP)
        await running.read_errors(b"INFO trioglock.serve: all workers replaced", 2)
        assert await get_certificate() == certificate
        new: set[int] = set()
        for _ in range(30):
            async with open_connection() as conn:
                new.add(int(await conn.receive()))
        assert len(new) == 2
        assert not new & connections.keys()
        async with open_connection() as conn:
            await conn.receive()
            running.process.kill()
            with pytest.raises(ConnectionClosedError, match="1012"):
                await conn.receive()
        with suppress(OSError):
            while True:  # until no worker listens
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                await trio.sleep(0.02)


async def test_drain_of_one_process(env: dict[str, str]) -> None:
    """SIGTERM closes one client after the other, and a second Ctrl-C the remaining ones."""
    async with (
        serve_in_process("app:SendPid", "--drain", "3600", **env) as (running, at),
        connect(f"ws://{at}/") as first,
        connect(f"ws://{at}/") as second,
    ):
        for conn in (first, second):
            assert int(await conn.receive()) == running.process.pid
        running.terminate()
        with pytest.raises(ConnectionClosedError, match="1012"):
            await first.receive()
        for number in (signal.SIGTERM, signal.SIGINT):
            running.process.send_signal(number)
            await second.ping()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", int(at.rpartition(":")[2]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_repeatedly, running)
            with pytest.raises(ConnectionClosedError, match="1012"):
                await second.receive()
            nursery.cancel_scope.cancel()
        assert await running.process.wait() == 0


async def interrupt_repeatedly(running: Running) -> None:
    """A signal that arrives before the previous one is handled has no effect of its own."""
    while True:
        running.interrupt()
        await trio.sleep(0.1)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
async def test_signals_of_one_process(env: dict[str, str], name: str) -> None:
    """Each closes connections with 1001, as SIGTERM does, and the exit code is 0."""
    async with run(env) as (process, url), connect(url) as conn:
        await conn.receive()
        process.process.send_signal(signal.Signals[name])
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await conn.receive()
        assert await process.process.wait() == 0


async def test_fault_33_workers_refuse_a_hub_in_memory(env: dict[str, str]) -> None:
    """Each worker would have subscribers of its own. The error of both is printed once."""
    done = await run_command("serve", "--port", "0", "--workers", "2", "app:hub", env=env)
    assert done.code == 1
    assert done.stdout == ""
    assert done.stderr == (
        "trioglock serve: app:hub connects only the clients of one process: give its Hub a "
        "broker, such as Hub(broker=RedisBroker(url)), or use --workers 1\n"
    )


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


async def test_faults_40_and_48_replacement_and_restart_without_output(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A SIGHUP during the start replaces the workers, and a killed worker is restarted.

    Neither this nor output that cannot be written ends the server, and its exit code is 0.
    """
    async with start_slowly(tmp_path, 0.5, env) as (running, first):
        running.process.send_signal(signal.SIGHUP)
        words = (await running.line()).split()
        await running.stdout.aclose()
        await running.stderr.aclose()

        async def get_new(old: Collection[int], count: int) -> set[int]:
            new: set[int] = set()
            while len(new) < count:
                with suppress(Exception):
                    new |= {await get_pid(f"ws://{words[2]}/")}.difference(old)
                await trio.sleep(0.1)
            return new

        second = await get_new(first, 2)
        os.kill(min(second), signal.SIGKILL)
        await get_new({*first, *second}, 1)
        running.process.terminate()
        assert await running.process.wait() == 0


async def test_fault_48_sigterm_ends_a_start(env: dict[str, str], tmp_path: Path) -> None:
    """It does not wait for workers whose start takes long; none is left behind."""
    async with start_slowly(tmp_path, 60, env) as (running, pids):
        running.process.terminate()
        with trio.fail_after(25):
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
            with trio.fail_after(25):
                assert (await running.finish()).code == 0
        nursery.cancel_scope.cancel()
