"""The information that a Redis server reports: its role, and whether it can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import BrokerError

__all__ = ["SHARD", "SLOT_OWNER", "ServerInfo", "mode_of", "parse_info", "refusal"]

SLOT_OWNER = "slot owner"
"""The mode of a node of a cluster that was chosen because it serves the hash slot of the hub."""

SHARD = "shard"
"""The mode of a node of a cluster that serves the hash slots of some channels of the hub."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The relevant parts of the reply to INFO; unknown if the user lacks permission for INFO.

    Args:
        identity: changes when the server restarts, and when it becomes the master; empty if
            unknown.
        master: address of the server's master if it is a replica, else None.
        mode: ``standalone``, ``cluster``, ``sentinel``, :data:`SLOT_OWNER` or :data:`SHARD`.
    """

    identity: str = ""
    master: str | None = None
    mode: str = "standalone"


def parse_info(reply: Any) -> ServerInfo:
    """Parse the reply to INFO."""
    if not isinstance(reply, bytes):
        return ServerInfo()
    lines = reply.decode(errors="replace").splitlines()
    fields = dict(line.partition(":")[::2] for line in lines)
    identity = f"{fields['run_id']}/{fields.get('master_replid')}" if "run_id" in fields else ""
    master = None
    if fields.get("role") == "slave":
        master = f"{fields.get('master_host')}:{fields.get('master_port')}"
    return ServerInfo(identity, master, mode_of(fields))


def mode_of(fields: Mapping[str, object]) -> str:
    """Return the mode in the fields of the reply to INFO."""
    if str(fields.get("cluster_enabled")) == "1":
        return "cluster"
    return str(fields.get("redis_mode") or fields.get("server_mode", "standalone"))


def refusal(mode: str, address: object, *, history: bool) -> BrokerError | None:
    """Return the error for a server in a mode that can never be used; None for other modes."""
    if mode == "sentinel":
        return BrokerError(
            f"{address} is a Redis Sentinel: "
            f"use redis+sentinel://{address}/<name of the master> as the URL"
        )
    if mode == "cluster" and history:
        return BrokerError(
            f"{address} belongs to a Redis Cluster, which requires another URL for a history: "
            f"redis+cluster://{address}"
        )
    return None
