"""Fifty clients on an unreliable network for a minute."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioglock import Backoff, Connection, ConnectionClosed, Status, connect
from trioglock.testing import FaultProxy, MockPeer, MockServer, ProxiedConnection

CLIENTS = 50
SECONDS = 60
AGAIN = Backoff(initial=0.2, maximum=3, jitter="none", max_attempts=None)

# So many bytes has a message, and its masked frame.
SIZE = 14
FRAME = 6 + SIZE


def numbered(number: int, size: int = SIZE) -> str:
    return f"{number} ".ljust(size, ".")


class Log:
    """The numbers that the server received, for each connection of each client."""

    def __init__(self) -> None:
        self.heard: defaultdict[str, list[list[int]]] = defaultdict(list)

    async def listen(self, peer: MockPeer) -> None:
        numbers: list[int] = []
        self.heard[peer.path].append(numbers)
        try:
            while True:
                numbers.append(int((await peer.receive()).split()[0]))
        except AssertionError:
            pass  # the client has closed, or was cut off


class Client:
    """Sends numbers through its connections, also during outages."""

    def __init__(self, proxy: FaultProxy, name: str, seed: int) -> None:
        self.path = f"/{name}"
        self.accepted = 0
        self.queued = 0
        self.confirmed = 0
        self.in_doubt = 0
        self.reconnects = 0
        self.connections: list[ProxiedConnection] = []
        self._proxy = proxy
        self._random = Random(seed)

    async def run(self, until: float) -> None:
        url = "ws://memory.test" + self.path
        async with connect(
            url, stream=self._open_stream, reconnect=AGAIN, compression=None
        ) as conn:
            while trio.current_time() < until:
                await self._send(conn, self._random.randint(1, 5))
                await trio.sleep(self._random.expovariate(1))
            # The network is well again: the last one arrives.
            await self._send(conn, 1)
            await conn.flush()
            await trio.sleep(1)
            figures = conn.statistics()
        assert figures.send_queue == figures.unsent == 0
        assert figures.messages_sent + figures.in_doubt == self.accepted
        self.in_doubt, self.reconnects = figures.in_doubt, figures.reconnects

    async def _open_stream(self) -> trio.abc.Stream:
        stream = await self._proxy.open_stream()
        self.connections.append(self._proxy.connections[-1])
        return stream

    async def _send(self, conn: Connection[None], count: int) -> None:
        for _ in range(count):
            await conn.send(numbered(self.accepted))
            self.accepted += 1
            self.queued += conn.status is Status.RECONNECTING
        if self._random.random() < 0.3:
            try:
                await conn.flush()
                self.confirmed += 1
            except ConnectionClosed:
                pass  # something of it is in doubt

    @property
    def in_flight(self) -> int:
        """The number of messages in the network when it was disconnected."""
        return sum(
            math.ceil(connection.waiting_to_server / FRAME)
            for connection in self.connections
            if connection.bytes_to_client  # else it was the handshake that waited
        )

    def check(self, heard: list[list[int]]) -> int:
        """Check the order of the received messages; return the number of lost ones."""
        for numbers in heard:
            assert (
                numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            )
        everything = list(itertools.chain.from_iterable(heard))
        assert everything == sorted(set(everything))
        assert everything[-1] == self.accepted - 1
        lost = self.accepted - len(everything)
        assert lost <= self.in_flight + self.in_doubt
        return lost


async def disturb(proxy: FaultProxy, clients: list[Client], random: Random) -> None:
    """Disconnect clients in many ways until cancelled."""
    while True:
        for client in random.sample(clients, len(clients)):
            await trio.sleep(random.expovariate(4))
            if client.connections and client.connections[-1] in proxy.connections:
                cut(proxy, client.connections[-1], random)


def cut(proxy: FaultProxy, connection: ProxiedConnection, random: Random) -> None:
    match random.randrange(5):
        case 0:
            connection.disconnect()
        case 1:
            connection.reset_peer()
        case 2:
            connection.disconnect_after(random.randint(1, 3 * FRAME), "to_server")
        case 3:
            connection.half_close("to_client")
        case 4:
            connection.reset_peer()
            proxy.refuse(random.randint(1, 3))


@pytest.mark.slow
async def test_a_minute_of_chaos(autojump_clock: MockClock) -> None:
    """Queued messages arrive once and in order; only messages in flight are lost."""
    log = Log()
    async with (
        MockServer(log.listen, memory=True) as server,
        FaultProxy(server, memory=True) as proxy,
    ):
        proxy.delay(0.05)
        clients = [Client(proxy, str(number), 1000 + number) for number in range(CLIENTS)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run, SECONDS)
            with trio.move_on_after(SECONDS):
                await disturb(proxy, clients, Random(1))
            proxy.reset()
        assert proxy.errors == []
    assert trio.current_time() < SECONDS + 20
    lost = [client.check(log.heard[client.path]) for client in clients]
    # It was chaos indeed, and not much came to harm.
    assert all(client.reconnects for client in clients)
    assert sum(client.reconnects for client in clients) > 100
    assert sum(client.queued for client in clients) > 100
    assert sum(client.confirmed for client in clients) > 500
    assert 0 < sum(lost) < 0.05 * sum(client.accepted for client in clients)


@pytest.mark.parametrize("end", ["disconnect", "reset_peer"])
async def test_the_batch_in_doubt_is_not_sent_again(autojump_clock: MockClock, end: str) -> None:
    """On a stalled line, only the messages in the network and the batch in doubt are lost."""
    log = Log()
    async with (
        MockServer(log.listen, memory=True) as server,
        FaultProxy(server, memory=True) as proxy,
        connect(server.url, stream=proxy.open_stream, reconnect=AGAIN, write_limit=2**20) as conn,
    ):
        [connection] = proxy.connections
        await conn.send(numbered(0))
        await conn.flush()
        await wait_all_tasks_blocked()
        connection.stall("to_server")
        for number in range(1, 20):
            await conn.send(numbered(number, 2**15))
        await wait_all_tasks_blocked()
        queued = conn.statistics().send_queue
        assert 0 < queued < 19
        getattr(connection, end)()
        with pytest.raises(ConnectionClosed):
            await conn.flush()  # it cannot vouch for the batch in doubt
        await conn.flush()
        await wait_all_tasks_blocked()
        figures = conn.statistics()
        assert figures.reconnects == 1
        assert figures.in_doubt == 2
    assert log.heard["/"] == [[0], list(range(20 - queued, 20))]
