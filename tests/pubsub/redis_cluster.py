"""A Redis Cluster for tests, with three masters and a replica of each, on free ports."""

from __future__ import annotations

import binascii
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations, count

from tests.pubsub.redis_server import SECONDS, RealRedis, real_redis

__all__ = ["RealCluster", "name_in", "real_cluster", "slot_of"]

RANGES = (range(5461), range(5461, 10923), range(10923, 16384))
"""The slots of the three masters, as redis-cli distributes them."""


class RealCluster:
    """The nodes: three masters and their replicas."""

    def __init__(self, nodes: list[RealRedis]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL with one of the nodes."""
        return f"redis+cluster://127.0.0.1:{self.nodes[2].port}"

    def master_of(self, name: str) -> RealRedis:
        """The node that serves the slot of a hub now."""
        return next(node for node in self.nodes if serves(node, slot_of(name)))

    def set_node_timeout(self, milliseconds: int) -> None:
        """Set how long a node may be silent before another one replaces it."""
        for node in self.nodes:
            check(node.ask(f"CONFIG SET cluster-node-timeout {milliseconds}"))

    def wait_ready(self) -> None:
        """Wait until each node knows all masters and replicas, and each replica has the data."""
        deadline = time.monotonic() + SECONDS
        while not all(
            "cluster_state:ok" in node.ask("CLUSTER INFO")
            and node.ask("CLUSTER NODES").count("slave") == 3
            and "master_link_status:down" not in node.ask("INFO replication")
            for node in self.nodes
        ):
            assert time.monotonic() < deadline, "the cluster does not start"
            time.sleep(0.05)

    def move_slot(self, slot: int, source: RealRedis, target: RealRedis) -> Iterator[None]:
        """Move a slot, with pauses between the steps."""
        source_id, target_id = (node.ask("CLUSTER MYID").split()[1] for node in (source, target))
        check(target.ask(f"CLUSTER SETSLOT {slot} IMPORTING {source_id}"))
        check(source.ask(f"CLUSTER SETSLOT {slot} MIGRATING {target_id}"))
        yield
        while keys := source.ask(f"CLUSTER GETKEYSINSLOT {slot} 1").splitlines()[2:]:
            check(source.ask(f"MIGRATE 127.0.0.1 {target.port} {keys[0]} 0 30000"))
            yield
        for node in (target, source):
            check(node.ask(f"CLUSTER SETSLOT {slot} NODE {target_id}"))


def connect_nodes(nodes: list[RealRedis]) -> None:
    """Make a cluster of the nodes: the first three serve the slots, the others copy them."""
    masters, replicas = nodes[:3], nodes[3:]
    for master, slots in zip(masters, RANGES, strict=True):
        check(master.ask(f"CLUSTER ADDSLOTS {' '.join(map(str, slots))}"))
    for epoch, node in enumerate(nodes, 1):
        check(node.ask(f"CLUSTER SET-CONFIG-EPOCH {epoch}"))
    for one, other in combinations(nodes, 2):
        check(one.ask(f"CLUSTER MEET 127.0.0.1 {other.port}"))
    deadline = time.monotonic() + SECONDS
    for master, replica in zip(masters, replicas, strict=True):
        name = master.ask("CLUSTER MYID").split()[1]
        while replica.ask(f"CLUSTER REPLICATE {name}") != "+OK\r\n":
            assert time.monotonic() < deadline, "the replica does not know its master"
            time.sleep(0.02)


def check(reply: str) -> None:
    assert reply.startswith("+"), reply


def serves(node: RealRedis, slot: int) -> bool:
    lines = node.ask("CLUSTER NODES").splitlines()
    [fields] = [line.split() for line in lines if "myself" in line]
    if "master" not in fields[2]:
        return False
    ranges = [text.split("-") for text in fields[8:] if not text.startswith("[")]
    return any(int(ends[0]) <= slot <= int(ends[-1]) for ends in ranges)


def slot_of(name: str) -> int:
    return binascii.crc_hqx(name.encode(), 0) % 2**14


def name_in(number: int, prefix: str = "", suffix: str = "") -> str:
    """A name with a slot that one of the masters serves, in a text with a prefix and a suffix."""
    names = (f"hub-{number}-{index}" for index in count())
    return next(name for name in names if slot_of(prefix + name + suffix) in RANGES[number])


@contextmanager
def real_cluster(version: int = 6) -> Iterator[RealCluster]:
    """Run a cluster of a version of Redis for the duration of a block."""
    enabled = ("--cluster-enabled", "yes", "--cluster-node-timeout", "3000")
    fast = ("--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        servers = [real_redis(*enabled, *fast, version=version) for _ in range(6)]
        nodes = [stack.enter_context(server) for server in servers]
        connect_nodes(nodes)
        cluster = RealCluster(nodes)
        cluster.wait_ready()
        yield cluster
