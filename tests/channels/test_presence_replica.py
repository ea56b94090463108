"""Presence in several processes, without I/O: they agree whatever the network does."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.channels.presence_helpers import StrictPresence, logged_presence, refs_of
from trioglock import DecodeError, EncodeError, InvalidOption
from trioglock.channels.presence_index import PresenceEntry
from trioglock.channels.replica import (
    MAX_ENTRY_SIZE,
    MAX_SILENT_TICKS,
    PresenceReplica,
    check_entry,
)

ROOM = "room:1"


def exchange(*replicas: PresenceReplica) -> int:
    """Deliver all messages to all others; return their number."""
    count = 0
    while any(replica.has_messages for replica in replicas):
        for sender in replicas:
            for message in sender.take_messages():
                assert len(message.encode()) < 2**16
                count += 1
                for receiver in replicas:
                    receiver.receive(message)
    return count


def lose(replica: PresenceReplica) -> None:
    assert replica.take_messages()


def keys(replica: PresenceReplica, topic: str = ROOM) -> dict[str, int]:
    """The number of metas of each key."""
    return {key: len(entry["metas"]) for key, entry in replica.index.list(topic).items()}


def diffs(replica: PresenceReplica, topic: str = ROOM) -> Any:
    return json.loads(replica.index.take_diffs().get(topic, "null"))


def two() -> tuple[PresenceReplica, PresenceReplica]:
    replicas = PresenceReplica("a", 1), PresenceReplica("b", 1)
    exchange(*replicas)
    return replicas


def test_entries_and_diffs_reach_other_processes() -> None:
    a, b = two()
    entry = a.track(ROOM, "al", {"device": "phone"})
    a.track("room:2", 'k"ü\n', {})
    exchange(a, b)
    joined = {"al": {"metas": [{"device": "phone", "phx_ref": entry.ref}]}}
    for replica in (a, b):
        assert replica.index.list(ROOM) == joined
        assert diffs(replica) == {"joins": joined, "leaves": {}}
        assert keys(replica, "room:2") == {'k"ü\n': 1}
    a.untrack(entry)
    exchange(a, b)
    for replica in (a, b):
        assert replica.index.list(ROOM) == {}
        assert diffs(replica) == {"joins": {}, "leaves": joined}
        assert not replica.index.has_changes


def test_an_update_leaves_with_the_old_ref_and_joins_with_the_new_one() -> None:
    a, b = two()
    first = a.track(ROOM, "al", {"typing": False})
    exchange(a, b)
    for replica in (a, b):
        replica.index.take_diffs()
    second = a.update(first, {"typing": True})
    exchange(a, b)
    new = {"typing": True, "phx_ref": second.ref, "phx_ref_prev": first.ref}
    expected = {
        "joins": {"al": {"metas": [new]}},
        "leaves": {"al": {"metas": [{"typing": False, "phx_ref": first.ref}]}},
    }
    assert diffs(a) == diffs(b) == expected


def test_updates_before_the_next_diff_are_merged() -> None:
    """The ref before is one that clients know."""
    a, b = two()
    first = a.track(ROOM, "al", {"n": 0})
    first = a.update(first, {"n": 1})
    assert diffs(a)["joins"] == {"al": {"metas": [{"n": 1, "phx_ref": first.ref}]}}
    exchange(a, b)
    b.index.take_diffs()
    last = a.update(a.update(first, {"n": 2}), {"n": 3, "phx_ref_prev": "mine", "phx_ref": "mine"})
    exchange(a, b)
    for replica in (a, b):
        diff = diffs(replica)
        assert diff["joins"]["al"]["metas"] == [
            {"n": 3, "phx_ref": last.ref, "phx_ref_prev": first.ref}
        ]
        assert diff["leaves"]["al"]["metas"] == [{"n": 1, "phx_ref": first.ref}]


def test_an_entry_that_comes_and_goes_between_two_diffs_is_in_neither() -> None:
    a, b = two()
    a.untrack(a.track(ROOM, "al", {}))
    assert not a.has_messages
    assert a.index.take_diffs() == {}
    assert exchange(a, b) == 0


def test_a_key_with_several_metas_joins_once_and_leaves_once() -> None:
    """As the client's presence reports it, with tabs in two processes."""
    a, b = two()
    client, log = logged_presence()
    client.receive("presence_state", {}, "1")
    tabs = [(replica, replica.track(ROOM, "al", {})) for replica in (a, b, a)]
    for number in range(4):
        exchange(a, b)
        diff = diffs(b)
        if diff is not None:
            client.receive("presence_diff", diff, "1")
        assert client.state == b.index.list(ROOM)
        if number < 3:
            replica, entry = tabs[number]
            replica.untrack(entry)
    assert log == [("+", "al"), ("-", "al")]


def test_a_process_that_starts_asks_the_others() -> None:
    a, b = two()
    a.track(ROOM, "al", {})
    b.track(ROOM, "bo", {})
    exchange(a, b)
    c = PresenceReplica("c", 1)
    for replica in (a, b):
        replica.tick()
    exchange(a, b, c)
    assert keys(c) == {"al": 1, "bo": 1}


def test_a_missed_announcement_is_noticed_with_the_next_message() -> None:
    a, b = two()
    a.track(ROOM, "al", {})
    lose(a)
    a.tick()
    assert keys(b) == {}
    exchange(a, b)  # a heartbeat
    assert keys(b) == {"al": 1}
    a.tick()
    for number in range(3):
        a.track(ROOM, f"user {number}", {})
        if number == 1:
            lose(a)
        else:
            exchange(a, b)
    assert keys(b) == keys(a) == {"al": 1, "user 0": 1, "user 1": 1, "user 2": 1}


def test_announcements_out_of_order_need_no_state() -> None:
    a, b = two()
    sent = []
    for number in range(3):
        a.track(ROOM, f"user {number}", {})
        sent += a.take_messages()
    for message in (*reversed(sent), *sent):
        b.receive(message)
    assert keys(b) == keys(a)
    assert not b.has_messages


def test_a_state_below_64_kib_per_part_may_lose_a_part() -> None:
    a, b = two()
    for number in range(2_000):
        a.track(ROOM, f"user {number}", {"status": "ü" * 40})
    lose(a)
    a.tick()
    [heartbeat] = a.take_messages()
    b.receive(heartbeat)
    [ask] = b.take_messages()
    a.receive(ask)
    a.tick()
    a.track(ROOM, "late", {})
    messages = a.take_messages()
    assert len(messages) > 4
    assert max(len(message.encode()) for message in messages) < 2**16
    for message in [*messages[3:], messages[0]]:
        b.receive(message)
    assert keys(b) == {}
    for _ in range(2):
        b.tick()
        a.tick()
    exchange(a, b)
    assert keys(b) == keys(a)
    assert len(keys(b)) == 2_001


def test_states_are_sent_once_per_tick_however_many_ask() -> None:
    a = PresenceReplica("a", 1)
    a.track(ROOM, "al", {})
    a.take_messages()
    asking = [PresenceReplica(str(number), 1) for number in range(20)]
    asks = [message for replica in asking for message in replica.take_messages()]
    for _ in range(3):
        for ask in asks:
            a.receive(ask)
        states = a.take_messages()
        assert ['"state"' in state for state in states] == [True]
        for ask in asks:
            a.receive(ask)
        assert not a.has_messages
        a.tick()


def test_a_silent_process_is_removed_after_30_seconds() -> None:
    a, b = two()
    a.track(ROOM, "al", {})
    exchange(a, b)
    b.index.take_diffs()
    for _ in range(MAX_SILENT_TICKS):
        b.tick()
    assert keys(b) == {"al": 1}
    b.tick()
    assert keys(b) == {}
    assert list(diffs(b)["leaves"]) == ["al"]
    a.tick()
    exchange(a, b)
    assert keys(b) == {"al": 1}  # it was only cut off


def test_a_process_that_returns_replaces_its_old_incarnation() -> None:
    a, b = two()
    a.track(ROOM, "al", {})
    late = a.take_messages()
    for message in late:
        b.receive(message)
    b.index.take_diffs()
    a = PresenceReplica("a", 2)
    a.track(ROOM, "cy", {})
    exchange(a, b)
    assert keys(b) == {"cy": 1}
    diff = diffs(b)
    assert list(diff["joins"]) == ["cy"]
    assert list(diff["leaves"]) == ["al"]
    for message in late:
        b.receive(message)
    assert keys(b) == {"cy": 1}


def test_a_process_that_ends_is_removed_immediately() -> None:
    a, b = two()
    a.track(ROOM, "al", {})
    late = a.take_messages()
    for message in (*late, a.end(), *late):
        b.receive(message)
    assert keys(b) == {}
    for _ in range(3):
        b.tick()
    assert not any('"ask"' in message for message in b.take_messages())


def test_a_process_whose_name_is_used_again_is_detected() -> None:
    a, twin = PresenceReplica("a", 1), PresenceReplica("a", 2)
    exchange(a, twin)
    assert a.is_replaced
    assert not twin.is_replaced


def test_a_process_that_was_suspended_does_not_remove_the_others() -> None:
    """Its own ticks measure the time of silence."""
    a, b = two()
    a.track(ROOM, "al", {})
    exchange(a, b)
    for _ in range(1_000):
        a.tick()
        a.take_messages()
    b.tick()
    assert keys(b) == {"al": 1}


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "{}",
        '["b",1,1]',
        '["b",1,1,"other"]',
        '["b","1",1,"heartbeat"]',
        '["b",1,1,"delta",[["t","k",{}]],[]]',
        '["b",1,1,"delta",[["t","k",{"phx_ref":1}]],[]]',
        '["b",1,1,"delta",[],[1]]',
        '["b",1,1,"delta",[["t","k",{"phx_ref":"1","x":NaN}]],[]]',
        '["b",1,1,"state",0,1,{}]',
        '["b",1,1,"ask",1]',
    ],
)
def test_malformed_messages_are_refused(message: str) -> None:
    a = PresenceReplica("a", 1)
    with pytest.raises(DecodeError):
        a.receive(message)
    assert not a.index.has_changes


def test_a_meta_must_be_json_of_limited_size() -> None:
    meta = {"x": [1, {"y": "ü"}]}
    copy = check_entry(ROOM, "al", meta)
    assert copy == meta
    assert copy["x"] is not meta["x"]
    with pytest.raises(EncodeError):
        check_entry(ROOM, "al", {"x": object()})
    with pytest.raises(EncodeError):
        check_entry(ROOM, "\ud800", {})
    with pytest.raises(InvalidOption, match=f"may have {MAX_ENTRY_SIZE} bytes"):
        check_entry(ROOM, "al", {"x": "ü" * (MAX_ENTRY_SIZE // 2)})


def test_a_burst_of_1000_joins_loses_none() -> None:
    replicas = [PresenceReplica(name, 1) for name in "abc"]
    exchange(*replicas)
    client: dict[str, Any] = {}
    for number in range(1_000):
        replicas[number % 3].track(ROOM, f"user {number}", {"n": number})
        if number % 7 == 0:
            exchange(*replicas)
            client |= diffs(replicas[0])["joins"]
    exchange(*replicas)
    client |= diffs(replicas[0])["joins"]
    assert len(client) == 1_000
    for replica in replicas:
        assert replica.index.list(ROOM) == client


# Any order of events.

NAMES = ["a", "b", "c"]
TOPICS = st.sampled_from([ROOM, "room:2"])
KEYS = st.sampled_from(["al", "bo"])
PICK = st.integers(0, 10**6)


class Process:
    """A process, its entries and its clients."""

    def __init__(self, name: str, incarnation: int) -> None:
        self.replica = PresenceReplica(name, incarnation)
        self.entries: list[PresenceEntry] = []
        self.watchers: list[tuple[str, StrictPresence]] = []

    def flush(self) -> None:
        found = self.replica.index.take_diffs()
        for topic, watcher in self.watchers:
            if topic in found:
                watcher.apply(json.loads(found[topic]))
            listed = self.replica.index.list(topic)
            assert watcher.refs == refs_of(listed)
            assert by_key(watcher.presence.state) == by_key(listed)


def by_key(entries: Any) -> dict[str, list[Any]]:
    return {
        key: sorted(entry["metas"], key=lambda meta: meta["phx_ref"])
        for key, entry in entries.items()
    }


class Processes(RuleBasedStateMachine):
    """Three processes that crash, end and restart, and a network that is not reliable."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, Process] = {}
        self.incarnations = dict.fromkeys(NAMES, 0)
        self.in_flight: list[tuple[str, str]] = []

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            self.start(name)

    def process(self, pick: int) -> Process:
        return list(self.live.values())[pick % len(self.live)]

    def send(self, sender: Process) -> None:
        for message in sender.replica.take_messages():
            assert len(message.encode()) < 2**16
            self.in_flight += [(name, message) for name in NAMES]

    # Users.

    @precondition(lambda self: self.live)
    @rule(pick=PICK, topic=TOPICS, key=KEYS)
    def track(self, pick: int, topic: str, key: str) -> None:
        process = self.process(pick)
        process.entries.append(process.replica.track(topic, key, {"n": pick}))

    @precondition(lambda self: self.live)
    @rule(pick=PICK, remove=st.booleans())
    def change(self, pick: int, remove: bool) -> None:
        process = self.process(pick)
        if process.entries:
            entry = process.entries.pop(pick % len(process.entries))
            if remove:
                process.replica.untrack(entry)
            else:
                process.entries.append(process.replica.update(entry, {"n": pick}))

    @precondition(lambda self: self.live)
    @rule(pick=PICK, topic=TOPICS)
    def watch(self, pick: int, topic: str) -> None:
        process = self.process(pick)
        process.flush()
        process.watchers.append((topic, StrictPresence(process.replica.index.list(topic))))

    @precondition(lambda self: self.live)
    @rule(pick=PICK)
    def flush(self, pick: int) -> None:
        self.process(pick).flush()

    # Processes.

    @precondition(lambda self: len(self.live) < len(NAMES))
    @rule(pick=PICK)
    def restart(self, pick: int) -> None:
        gone = [name for name in NAMES if name not in self.live]
        self.start(gone[pick % len(gone)])

    def start(self, name: str) -> None:
        self.incarnations[name] += 1
        self.live[name] = Process(name, self.incarnations[name])

    @precondition(lambda self: self.live)
    @rule(pick=PICK, clean=st.booleans())
    def end(self, pick: int, clean: bool) -> None:
        process = self.process(pick)
        del self.live[process.replica.name]
        if clean:
            self.in_flight += [(name, process.replica.end()) for name in NAMES]

    # Time and the network.

    @precondition(lambda self: self.live)
    @rule(pick=PICK, ticks=st.sampled_from([1, 1, 1, 2, MAX_SILENT_TICKS + 1]))
    def tick(self, pick: int, ticks: int) -> None:
        for _ in range(ticks):
            self.process(pick).replica.tick()

    @precondition(lambda self: self.live)
    @rule(pick=PICK)
    def publish(self, pick: int) -> None:
        self.send(self.process(pick))

    @precondition(lambda self: self.in_flight)
    @rule(picks=st.lists(PICK, min_size=1, max_size=10), lost=st.booleans(), twice=st.booleans())
    def deliver(self, picks: list[int], lost: bool, twice: bool) -> None:
        for pick in picks:
            if self.in_flight:
                name, message = self.in_flight.pop(pick % len(self.in_flight))
                if twice:
                    self.in_flight.append((name, message))
                if not lost and name in self.live:
                    self.live[name].replica.receive(message)

    @rule(lost=st.booleans())
    def calm(self, lost: bool) -> None:
        """Within two seconds of a reliable network, all agree about the live processes."""
        if lost:
            self.in_flight.clear()
        self.exchange(ticks=4)
        truth = self.truth()
        for process in self.live.values():
            for topic in (ROOM, "room:2"):
                assert truth[topic] <= refs_of(process.replica.index.list(topic))
                ours = {entry.ref for entry in process.entries if entry.topic == topic}
                assert ours <= truth[topic]

    @rule()
    def calm_for_long(self) -> None:
        """Within 31 seconds the entries of dead processes are gone as well."""
        self.exchange(ticks=MAX_SILENT_TICKS + 2)
        truth = self.truth()
        for process in self.live.values():
            process.flush()
            for topic in (ROOM, "room:2"):
                assert truth[topic] == refs_of(process.replica.index.list(topic))

    def truth(self) -> dict[str, set[str]]:
        return {
            topic: {
                entry.ref
                for process in self.live.values()
                for entry in process.entries
                if entry.topic == topic
            }
            for topic in (ROOM, "room:2")
        }

    def exchange(self, ticks: int) -> None:
        for number in range(ticks + 1):
            for process in self.live.values():
                if number:
                    process.replica.tick()
            while self.in_flight or any(one.replica.has_messages for one in self.live.values()):
                for process in self.live.values():
                    self.send(process)
                in_flight, self.in_flight = self.in_flight, []
                for name, message in in_flight:
                    if name in self.live:
                        self.live[name].replica.receive(message)


TestProcesses = pytest.mark.slow(Processes.TestCase)
TestProcesses.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
