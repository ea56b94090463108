"""The registry of a hub's subscribers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trioglock.pubsub import Gap, Message, Subscriber
from trioglock.pubsub.message import EVERYONE, TOPIC_PREFIX, Event
from trioglock.pubsub.patterns import ChannelFilter, compile_pattern
from trioglock.pubsub.subscribers import SubscriberRegistry


class Recorder(Subscriber):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    def end(self) -> None:
        pass


def filled(*names: str) -> tuple[SubscriberRegistry, dict[str, Recorder]]:
    """A registry with one subscriber of each channel or pattern."""
    registry, members = SubscriberRegistry(), {name: Recorder() for name in names}
    for name, member in members.items():
        registry.add(member, ChannelFilter(name))
    return registry, members


def test_no_pattern_is_compiled_for_a_message() -> None:
    """Whatever the number of patterns."""
    registry, members = filled(*(f"room{number}/*" for number in range(300)))
    message = Message("room7/text", "text")
    before = compile_pattern.cache_info()
    assert registry.deliver(message) == 1
    assert compile_pattern.cache_info() == before
    assert [name for name, member in members.items() if member.events] == ["room7/*"]
    registry.remove(members["room7/*"], ChannelFilter("room7/*"))
    assert registry.deliver(message) == 0


@contextmanager
def collecting(remove: Any) -> Iterator[None]:
    """Call a function at each of many garbage collections."""

    def on_collection(phase: str, info: dict[str, int]) -> None:
        remove()

    thresholds = gc.get_threshold()
    gc.callbacks.append(on_collection)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(on_collection)


def test_garbage_collection_removes_subscribers_from_a_listing() -> None:
    registry, members = filled(*(f"x{number}" for number in range(50)), "a*", "b*", "c*")
    left = list(members)

    def remove() -> None:
        if left:
            name = left.pop()
            registry.remove(members[name], ChannelFilter(name))

    with collecting(remove):
        filters = registry.filters()
    assert len(left) < len(members)
    assert {"x0", "x1"} <= {channels.pattern for channels in filters}


def test_garbage_collection_removes_subscribers_from_a_gap() -> None:
    """On ``incoming``, whether or not other channels have a history."""
    names = [f"{TOPIC_PREFIX}{number}" for number in range(3)]
    for all_have_history in (True, False):
        registry, members = filled(*names)

        def has_history(
            channel: str,
            registry: SubscriberRegistry = registry,
            members: dict[str, Recorder] = members,
            answer: bool = all_have_history,
        ) -> bool:
            registry.remove(members[names[1]], ChannelFilter(names[1]))
            return answer if channel == EVERYONE else not answer

        registry.deliver_plain_gap(Gap(1.0, None, "incoming"), has_history)
        assert not members[names[1]].events
        assert bool(members[names[0]].events) is all_have_history
