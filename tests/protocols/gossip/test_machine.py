"""The state machine by itself: any order of frames, calls, time-outs and losses keeps its word."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from trioglock import ConnectionLost, DecodeError, HandshakeFailed, LocalClose, RemoteClose, Stop
from trioglock.protocols.gossip import Achievement, Phase, achievements, core, games, machine, tells
from trioglock.protocols.gossip import players as our_players
from trioglock.protocols.gossip.errors import GossipError, NotSubscribed, Offline, failure
from trioglock.protocols.gossip.roster import MAX_ENTRIES, Roster
from trioglock.protocols.gossip.state import (
    Heartbeat,
    Notify,
    Refresh,
    Send,
    Settings,
    Settle,
    State,
    Transition,
)
from trioglock.protocols.gossip.values import TRANSITIONS

FLAGS = ("channels", "players", "tells", "games", "achievements")

CHANNELS = st.sampled_from(["one", "two", "three"])
NAMES = st.sampled_from(["A", "B", "C"])

TELL = {"from_name": "a", "to_game": "A", "to_name": "b", "sent_at": "", "message": "m"}

ACHIEVEMENT = Achievement(title="x", key="k")

REQUESTS: dict[str, Callable[[str, State], Transition]] = {
    "channels/subscribe": lambda ref, state: core.subscribe("two", ref, state),
    "channels/unsubscribe": lambda ref, state: core.unsubscribe("two", ref, state),
    "players/status": lambda ref, state: our_players.fetch("A", ref, state),
    "tells/send": lambda ref, state: tells.send(TELL, ref, state),
    "games/status": lambda ref, state: games.fetch("A", ref, state),
    "achievements/sync": achievements.sync,
    "achievements/create": lambda ref, state: achievements.create(ACHIEVEMENT, ref, state),
    "achievements/update": lambda ref, state: achievements.update(ACHIEVEMENT, ref, state),
    "achievements/delete": lambda ref, state: achievements.delete("k", ref, state),
}

PAYLOADS = st.sampled_from(
    [
        None,
        {},
        3,
        {"game": "A", "players": ["x"], "name": "x", "key": "k", "total": 2},
        {"game": "B", "players": [], "name": "y", "achievements": [{"key": "k"}], "total": 2},
        {"achievements": [], "total": 0},
        {"channel": "one", "game": "C", "name": "z", "message": "m", "downtime": 3},
        {"game": 3, "players": "x", "downtime": "x", "achievements": [3]},
    ]
)

REASONS = st.sampled_from(
    [ConnectionLost(), LocalClose(), RemoteClose(code=1000), RemoteClose(code=4000),
     RemoteClose(code=4001),
     HandshakeFailed(error=OSError())]
)  # fmt: skip


class GossipMachine(RuleBasedStateMachine):
    """Frames of a server that may say anything, against a model of what waits."""

    refs = Bundle("refs")

    def __init__(self) -> None:
        super().__init__()
        self.state = State(settings=Settings(client_id="i", client_secret="s", supports=FLAGS))
        self.numbers = itertools.count()
        self.waiting: set[str] = set()
        self.settled: set[str] = set()
        self.over = False

    def new_ref(self) -> str:
        return f"r{next(self.numbers)}"

    def take(self, transition: Transition, *, ours: str = "") -> None:
        before = self.state.phase
        effects, self.state = transition
        for effect in effects:
            if isinstance(effect, Send):
                allowed = Phase.AUTHENTICATING if effect.event == "authenticate" else Phase.ONLINE
                assert self.state.phase is allowed, effect
                assert effect.to_message()["event"] == effect.event
            elif isinstance(effect, Settle):
                if effect.ref.startswith("r"):
                    assert effect.ref in self.waiting | {ours}, "settled twice, or never asked"
                    self.waiting.discard(effect.ref)
                    self.settled.add(effect.ref)
            elif isinstance(effect, Refresh):
                assert (before, self.state.phase) == (Phase.AUTHENTICATING, Phase.ONLINE)
                background = itertools.count().__next__
                refresh = machine.refresh(lambda: f"b{background()}", self.state, first=True)  # noqa: B023
                self.take(refresh)
            else:
                assert isinstance(effect, Notify | Heartbeat)

    # The link.

    @rule()
    def connect(self) -> None:
        if self.state.phase is Phase.OFFLINE and not self.over:
            self.take(core.connected(self.state))

    @rule(reason=REASONS)
    def disconnect(self, reason: Any) -> None:
        failed = isinstance(reason, HandshakeFailed)
        if failed == (self.state.phase is Phase.OFFLINE) and not self.over:
            self.take(machine.disconnected(reason, self.state))
            decision, self.state = machine.decide(reason, self.state)
            self.over = isinstance(decision, Stop)
            assert self.over == (self.state.refusal is not None)

    @rule(success=st.booleans())
    def authenticate(self, success: bool) -> None:
        status = "success" if success else "failure"
        self.receive({"event": "authenticate", "status": status, "payload": {"version": "2"}})

    # The program.

    @rule(target=refs, event=st.sampled_from(sorted(REQUESTS)))
    def request(self, event: str) -> Any:
        ref = self.new_ref()
        try:
            transition = REQUESTS[event](ref, self.state)
        except Offline:
            assert self.state.phase is not Phase.ONLINE
            return multiple()
        if self.state.phase is Phase.ONLINE:
            self.waiting.add(ref)
        else:
            assert event.startswith("channels/")
        self.take(transition, ours=ref)
        return ref

    @rule(channel=CHANNELS)
    def broadcast(self, channel: str) -> None:
        try:
            self.take(core.broadcast(channel, "a", "b", self.state))
        except GossipError as error:
            if isinstance(error, NotSubscribed):
                assert channel not in self.state.channels
            else:
                assert self.state.phase is not Phase.ONLINE

    @rule(name=NAMES, sign=st.booleans())
    def sign(self, name: str, sign: bool) -> None:
        self.take((our_players.sign_in if sign else our_players.sign_out)(name, self.state))
        assert (name in self.state.players) == sign

    @rule(ref=refs)
    def give_up(self, ref: str) -> None:
        self.waiting.discard(ref)
        self.take(machine.forget(ref, self.state))

    @rule()
    def refresh(self) -> None:
        self.take(machine.refresh(lambda: "b", self.state))

    # The server.

    def receive(self, event: Any) -> None:
        if self.state.phase is Phase.OFFLINE:
            return
        before = self.state
        try:
            self.take(machine.receive(machine.name_of(event), event, self.state))
        except DecodeError:
            assert self.state is before

    @rule(
        ref=st.one_of(refs, st.sampled_from([None, 3, "never", []])),
        event=st.sampled_from([*REQUESTS, None, "", "x/y", "heartbeat", "restart"]),
        status=st.sampled_from(["success", "failure", None, 3]),
        error=st.sampled_from(["unknown", "game offline", "rate limit exceeded", None, 3]),
        payload=PAYLOADS,
    )
    def answer(self, ref: Any, event: Any, status: Any, error: Any, payload: Any) -> None:
        self.receive(
            {"event": event, "ref": ref, "status": status, "error": error, "payload": payload}
        )

    @rule(
        event=st.sampled_from(
            ["channels/broadcast", "players/sign-in", "players/sign-out", "players/status",
             "games/connect", "games/disconnect", "games/status", "tells/receive", "restart"]
        ),
        payload=PAYLOADS,
    )  # fmt: skip
    def event(self, event: str, payload: Any) -> None:
        self.receive({"event": event, "payload": payload})

    # What always holds.

    @invariant()
    def what_waits_is_pending(self) -> None:
        assert {ref for ref in self.state.pending if ref.startswith("r")} == self.waiting
        assert not self.waiting & self.settled

    @invariant()
    def nothing_waits_offline(self) -> None:
        if self.state.phase is not Phase.ONLINE:
            assert not self.state.pending

    @invariant()
    def names_are_known_once(self) -> None:
        assert len(set(self.state.channels)) == len(self.state.channels)
        assert len(set(self.state.players)) == len(self.state.players)
        for roster in (self.state.games, self.state.remote_players):
            assert roster.known.keys() == roster.heard.keys()


GossipMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGossipMachine = GossipMachine.TestCase


def offline() -> State:
    return State(settings=Settings(client_id="i", client_secret="s", supports=FLAGS))


def online() -> State:
    _, state = core.connected(offline())
    _, state = machine.receive("authenticate", {"status": "success"}, state)
    return state


@pytest.mark.parametrize(
    ("name", "event"),
    [("channels/broadcast", {"channel": "c", "game": "g", "name": "n", "message": "m"}),
     ("players/sign-in", {"game": "g", "name": "n"}), ("games/connect", {"game": "g"})],
)  # fmt: skip
def test_a_handler_is_tested_by_calling_it(name: str, event: dict[str, str]) -> None:
    """Without a connection, a clock, or a task."""
    effects, state = machine.ROUTER.find(name)({"event": name, "payload": event}, online())
    [notify] = effects
    assert isinstance(notify, Notify)
    assert state.phase is Phase.ONLINE


def test_a_roster_is_bounded() -> None:
    """A server that invents games, or players, is not believed for ever."""
    known = {str(n): n for n in range(MAX_ENTRIES)}
    full = Roster(known, dict.fromkeys(known, 0))
    assert full.with_entry("one more", 1) is full
    assert full.with_entry("0", 7).known == {**known, "0": 7}
    state = online()
    there = tuple(str(n) for n in range(MAX_ENTRIES))
    state = our_players.status({"payload": {"game": "A", "players": list(there)}}, state)[1]
    state = our_players.signed_in({"payload": {"game": "A", "name": "one more"}}, state)[1]
    assert state.remote_players.known["A"] == there


def test_a_roster_forgets_who_says_nothing() -> None:
    """Between one refresh and the next, each has the time to answer."""
    empty: Roster[int] = Roster()
    roster = empty.with_entry("a", 1).refreshed().with_entry("b", 2)
    assert dict(roster.known) == {"a": 1, "b": 2}
    assert dict(roster.refreshed().known) == {"b": 2}
    assert dict(roster.without("b").known) == {"a": 1}


@pytest.mark.parametrize(
    ("error", "final"),
    [("invalid credentials", True), ("disconnected due to rate limit abuse", False)],
)
def test_only_what_is_about_us_is_final(error: str, final: bool) -> None:
    """The server uses the same event for those who were too fast."""
    _, state = core.connected(offline())
    failed = {"event": "authenticate", "status": "failure", "error": error}
    _, state = machine.receive("authenticate", failed, state)
    reason = RemoteClose(code=4000)
    _, state = machine.disconnected(reason, state)
    decision, _ = machine.decide(reason, state)
    assert decision == (Stop() if final else None)


@pytest.mark.parametrize(
    ("event", "error", "kind"),
    [("tells/send", "game offline", "GameOffline"),
     ("tells/send", "sending player offline", "SenderOffline"),
     ("tells/send", "receiving player offline", "ReceiverOffline"),
     ("tells/send", "not supported", "TellsNotSupported"),
     ("tells/send", "invalid payload", "TellFailed"),
     ("games/status", "unknown game", "UnknownGame"),
     ("players/status", "unknown game", "UnknownGame"),
     ("channels/subscribe", "Could not subscribe to 'x'", "SubscribeFailed"),
     ("channels/subscribe", "rate limit exceeded", "RateLimited"),
     ("achievements/delete", "no", "RequestFailed")],
)  # fmt: skip
def test_each_failure_has_its_class(event: str, error: str, kind: str) -> None:
    """By the event and the server's words, which stay readable."""
    failed = failure(event, error)
    assert type(failed).__name__ == kind
    assert str(failed) == f"{event}: {error}"


@pytest.mark.parametrize(
    ("error", "kept"), [("rate limit exceeded", True), ("Could not subscribe to 'testing'", False)]
)
def test_only_a_channel_that_cannot_be_is_given_up(error: str, kept: bool) -> None:
    """One that was asked for too fast is asked for again with the next authentication."""
    _, state = core.subscribe("testing", "1", online())
    failed = {"event": "channels/subscribe", "ref": "1", "status": "failure", "error": error}
    _, state = machine.receive("channels/subscribe", failed, state)
    assert ("testing" in state.channels) is kept


def test_no_heartbeat_is_sent_before_we_are_let_in() -> None:
    """The server would answer that we are not authenticated."""
    _, state = core.connected(offline())
    assert machine.receive("heartbeat", {"event": "heartbeat"}, state)[0] == ()


def test_the_table_of_phases_is_what_happens() -> None:
    """Each row of TRANSITIONS is gone through, and there is no other."""
    lost = RemoteClose(code=1006)
    _, asked = core.connected(offline())
    steps = [
        (offline(), asked),
        (asked, machine.disconnected(lost, asked)[1]),
        (asked, online()),
        (online(), machine.disconnected(lost, online())[1]),
    ]
    gone = [(before.phase, after.phase) for before, after in steps]
    rows = [(before, after) for before, row in TRANSITIONS.items() for after in row]
    assert sorted(gone, key=str) == sorted(rows, key=str)
