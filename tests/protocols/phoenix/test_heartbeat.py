"""Which answer a heartbeat takes for its own."""

from __future__ import annotations

from itertools import count

from trioglock.protocols.phoenix import PhoenixMessage
from trioglock.protocols.phoenix.machine import Heartbeat


def answer(ref: str | None, topic: str = "phoenix") -> PhoenixMessage:
    return PhoenixMessage(None, ref, topic, "phx_reply", {"status": "ok", "response": {}})


def test_only_the_answer_to_the_latest_heartbeat_counts_and_only_once() -> None:
    """Not that of an earlier one, of another topic, or of another connection."""
    refs = count(1)
    heartbeat = Heartbeat(lambda: str(next(refs)))
    assert not heartbeat.pending
    first, second = heartbeat.next(), heartbeat.next()
    assert (first.join_ref, first.topic, first.event, first.payload) == (
        None,
        "phoenix",
        "heartbeat",
        {},
    )
    assert heartbeat.pending
    assert not heartbeat.is_answer(answer(first.ref))
    assert not heartbeat.is_answer(answer(second.ref, "room:1"))
    assert not heartbeat.is_answer(answer(None))
    assert heartbeat.is_answer(answer(second.ref))
    assert not heartbeat.is_answer(answer(second.ref))
    third = heartbeat.next()
    heartbeat.forget()
    assert not heartbeat.pending
    assert not heartbeat.is_answer(answer(third.ref))
