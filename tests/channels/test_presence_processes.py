"""Presence in two server processes, one of which is killed.

``python -m tests.channels.test_presence_processes`` runs the test with 10,000 entries and for a
minute.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.channels.presence_server import digest
from tests.forks import Forked, forked
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import Connection, ConnectionClosed, connect

pytestmark = [pytest.mark.redis, pytest.mark.slow]

CHANGES_PER_SECOND = 100
TOPICS_PER_CLIENT = 100

Entry = tuple[str, str]


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A Redis server for one test."""
    with real_redis() as server:
        yield server


class ServerProcess:
    """A server in its own process."""

    def __init__(self, process: trio.Process | Forked, port: int) -> None:
        self.process = process
        self.url = f"ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0"


@asynccontextmanager
async def server_process(redis: RealRedis, name: str) -> AsyncIterator[ServerProcess]:
    arguments = ("-m", "tests.channels.presence_server", redis.url, "0", name)
    async with forked(*arguments, stderr=2) as process:
        assert process.stdout is not None
        yield ServerProcess(process, int(await process.stdout.receive_some()))


class BusyClient:
    """A client in many topics, which ignores what it receives except replies."""

    def __init__(self, connection: Connection[Any], name: str) -> None:
        self.connection = connection
        self.name = name
        self.joined: set[str] = set()
        self._refs = 0
        self._replies: dict[str, Any] = {}
        self._replied = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        try:
            async for frame in self.connection:
                if frame.__class__ is str and '"phx_reply"' in frame:
                    _, ref, _, _, payload = json.loads(frame)
                    self._replies[ref] = payload
                    self._replied.unpark_all()
        except ConnectionClosed:
            pass  # the process was killed

    async def ask(self, topic: str, event: str, payload: Any) -> Any:
        self._refs += 1
        ref = str(self._refs)
        await self.connection.send(json.dumps([topic, ref, topic, event, payload]))
        while ref not in self._replies:
            await self._replied.park()
        answer = self._replies.pop(ref)
        assert answer["status"] == "ok", answer
        return answer["response"]

    async def join(self, topic: str) -> None:
        # The join_ref is the topic, so that it need not be remembered.
        await self.connection.send(
            json.dumps([topic, topic, topic, "phx_join", {"key": f"{self.name} {topic}"}])
        )
        while topic not in self._replies:
            await self._replied.park()
        assert self._replies.pop(topic)["status"] == "ok"
        self.joined.add(topic)

    async def leave(self, topic: str) -> None:
        await self.ask(topic, "phx_leave", {})
        self.joined.remove(topic)

    def entries(self) -> list[Entry]:
        return [(topic, f"{self.name} {topic}") for topic in self.joined]


async def check_agreement(
    redis: RealRedis,
    *,
    entries: int,
    seconds: float,
    name: str,
    within: float,
    within_after_kill: float,
) -> None:
    """Change entries in two processes, kill one, start it again, and compare all lists.

    Args:
        redis: shared by the processes.
        entries: the number of entries.
        seconds: how long entries change.
        name: the name of the process that is killed, or an empty text.
        within: seconds after which the lists must agree while both processes live.
        within_after_kill: the same after one of them was killed.
    """
    topics = [f"room:{number}" for number in range(TOPICS_PER_CLIENT)]
    count = entries // TOPICS_PER_CLIENT // 2
    rng = random.Random(7)
    async with server_process(redis, "") as one, trio.open_nursery() as nursery:

        async def fill(server: ServerProcess, title: str) -> list[BusyClient]:
            clients = []
            for number in range(count):
                connection = await nursery.start(hold, server.url)
                client = BusyClient(connection, f"{title}{number}")
                nursery.start_soon(client.read)
                clients.append(client)
                async with trio.open_nursery() as joins:
                    for topic in topics:
                        joins.start_soon(client.join, topic)
            return clients

        async def change(clients: list[BusyClient], period: float) -> None:
            with trio.move_on_after(period):
                while True:
                    await trio.sleep(1 / CHANGES_PER_SECOND)
                    client, topic = rng.choice(clients), rng.choice(topics[1:])
                    with trio.CancelScope(shield=True):
                        if topic in client.joined:
                            await client.leave(topic)
                        else:
                            await client.join(topic)

        async def agree(observers: list[BusyClient], clients: list[BusyClient]) -> float:
            began = trio.current_time()
            truth = [entry for client in clients for entry in client.entries()]
            expected = {"count": len(truth), "digest": digest(truth)}
            for observer in observers:
                while await observer.ask(topics[0], "list", topics) != expected:
                    await trio.sleep(0.05)
            return trio.current_time() - began

        async with server_process(redis, name) as two:
            first, second = await fill(one, "a"), await fill(two, "b")
            observers = [first[0], second[0]]
            print("filled, agree within", await agree(observers, first + second), flush=True)
            for _ in range(max(1, int(seconds // 10))):
                await change(first + second, min(seconds, 10))
                with trio.fail_after(within):
                    print("agree within", await agree(observers, first + second), flush=True)
            two.process.kill()
        async with server_process(redis, name) as two:
            third = await fill(two, "c")
            await change(first + third, min(seconds, 10))
            with trio.fail_after(within):
                await agree([third[0]], first + third)
            with trio.fail_after(within_after_kill):
                print("agree after a kill", await agree([first[0]], first + third), flush=True)
            nursery.cancel_scope.cancel()


async def hold(url: str, *, task_status: trio.TaskStatus[Connection[Any]]) -> None:
    async with connect(url, max_queue=10_000) as connection:
        task_status.started(connection)
        await trio.sleep_forever()


async def test_lists_agree_although_a_process_is_killed(redis: RealRedis) -> None:
    """It has a name, so its entries are replaced when it is back, long before 30 seconds."""
    with trio.fail_after(300):
        await check_agreement(
            redis, entries=1_000, seconds=1, name="two", within=10, within_after_kill=10
        )


if __name__ == "__main__":
    with real_redis() as server:
        trio.run(
            lambda: check_agreement(
                server, entries=10_000, seconds=60, name="", within=1, within_after_kill=35
            )
        )
