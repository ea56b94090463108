"""What a connection has done so far, as one value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A snapshot; two of them, subtracted, make a rate.

    Args:
        messages_sent: data frames handed to the operating system.
        messages_received: whole data messages taken from the network.
        bytes_sent: bytes on the wire, frame headers included.
        bytes_received: bytes from the wire.
        receive queue: messages delivered and not yet received by the program.
        send queue: frames queued and not yet with the operating system.
        send_queue_bytes: their payload in bytes, the batch that is being written included.
        mailbox: jobs that wait for a hook.
        dropped: messages that the ``overflow`` policy has dropped.
        in_doubt: frames that were being written when a link broke: sent or not, nobody can tell.
        unsent: frames that never left, known once the connection has ended.
        reconnects: upgrades after the first one.
        latency: seconds of the latest ping's round trip, or None before the first.
    """

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    receive_queue: int
    send_queue: int
    send_queue_bytes: int
    mailbox: int
    dropped: int
    in_doubt: int
    unsent: int
    reconnects: int
    latency: float | None
