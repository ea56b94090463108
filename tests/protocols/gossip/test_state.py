"""The state and the hooks of a client without a connection: any order of events keeps its rules."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from trioglock import ConnectionLost, HandshakeFailed, LocalClose, RemoteClose, Reply, Status, Stop
from trioglock.protocols.gossip import ClientStatus, RequestRefused
from trioglock.protocols.gossip.callbacks import CallbackQueue, ChannelsCallbacks
from trioglock.protocols.gossip.client import Client
from trioglock.protocols.gossip.hooks import GossipSocket
from trioglock.protocols.gossip.state import (
    MAX_ENTRIES,
    ROUTER,
    TRANSITIONS,
    ClientSettings,
    ClientState,
    GameCache,
    Notify,
    authenticate,
    authenticated,
    decide,
    disconnect,
    player_signed_in_or_out,
    players_status,
    refuse,
)
from trioglock.routing import PendingRequest

FLAGS = ("channels", "players", "tells", "games", "achievements")

REQUESTS = [
    "achievements/create", "achievements/delete", "achievements/sync", "achievements/update",
    "channels/subscribe", "channels/unsubscribe", "games/status", "players/status", "tells/send",
]  # fmt: skip

EVENTS = [
    "channels/broadcast", "games/connect", "games/disconnect", "games/status", "players/sign-in",
    "players/sign-out", "players/status", "restart", "tells/receive",
]  # fmt: skip

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


def offline() -> ClientState:
    settings = ClientSettings(client_id="i", client_secret="s", supports=FLAGS)
    return ClientState(settings=settings)


def authenticating() -> ClientState:
    return authenticate(offline())[1]


def online() -> ClientState:
    return authenticated({"status": "success"}, authenticating())[1]


class FakeConnection:
    status: Status = Status.CONNECTING
    _session = SimpleNamespace(emitter=SimpleNamespace(protocol_event=lambda *_: None))

    def discard_unsent(self) -> tuple[()]:
        return ()


class GossipMachine(RuleBasedStateMachine):
    """The hooks of a client against a server that may send anything in any order."""

    refs = Bundle("refs")

    def __init__(self) -> None:
        super().__init__()
        queue = CallbackQueue({"channels": ChannelsCallbacks()}, 10)
        self.socket = GossipSocket(offline(), queue)
        self.connection: Any = FakeConnection()
        self.info: Any = SimpleNamespace(connection=self.connection)
        self.numbers = itertools.count()
        self.waiting: dict[str, tuple[PendingRequest, ExitStack]] = {}
        self.over = False

    @property
    def status(self) -> ClientStatus:
        return self.socket.state.status

    def check_messages(self, result: Any) -> None:
        assert result is None or isinstance(result, Reply)
        for frame in result.frames if result else ():
            assert isinstance(frame, str)
            message = json.loads(frame)
            authenticating = message["event"] == "authenticate"
            allowed = ClientStatus.AUTHENTICATING if authenticating else ClientStatus.ONLINE
            assert self.status is allowed, message

    # The link.

    @rule()
    def connect(self) -> None:
        if self.status is ClientStatus.OFFLINE and not self.over:
            self.connection.status = Status.OPEN
            result, _ = self.socket.handle_connect(self.info, None)
            self.check_messages(result)
            assert len(result.frames) == 1

    @rule(reason=REASONS)
    def disconnect(self, reason: Any) -> None:
        failed = isinstance(reason, HandshakeFailed)
        if failed == (self.status is ClientStatus.OFFLINE) and not self.over:
            self.connection.status = Status.RECONNECTING
            decision, _ = self.socket.handle_disconnect(reason, None)
            self.over = isinstance(decision, Stop)
            assert self.over == (self.socket.state.refusal is not None)
            assert not self.socket.requests

    @rule(success=st.booleans())
    def authenticate(self, success: bool) -> None:
        status = "success" if success else "failure"
        self.receive({"event": "authenticate", "status": status, "payload": {"version": "2"}})

    # The calls of the game.

    @rule(target=refs, event=st.sampled_from(REQUESTS))
    def request(self, event: str) -> Any:
        if not self.socket.is_online:
            return multiple()
        ref = f"r{next(self.numbers)}"
        stack = ExitStack()
        request = stack.enter_context(self.socket.requests.open(ref, event, has_link=True))
        self.waiting[ref] = request, stack
        return ref

    @rule(ref=refs)
    def give_up(self, ref: str) -> None:
        if ref in self.waiting:
            self.waiting.pop(ref)[1].close()

    # The server.

    def receive(self, event: Any) -> None:
        if self.status is ClientStatus.OFFLINE:
            return
        before, invalid = self.socket.state, self.socket.invalid.count
        result, _ = self.socket.handle_receive(json.dumps(event), None)  # type: ignore[misc]
        self.check_messages(result)
        if self.socket.invalid.count > invalid:
            assert self.socket.state is before

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

    @rule(event=st.sampled_from(EVENTS), payload=PAYLOADS)
    def event(self, event: str, payload: Any) -> None:
        self.receive({"event": event, "payload": payload})

    # What always holds.

    @invariant()
    def requests_wait_until_they_are_resolved_once(self) -> None:
        for ref, (request, _) in self.waiting.items():
            pending = self.socket.requests.get(ref)
            assert (pending is None) == request.is_resolved
            assert pending is None or pending is request

    @invariant()
    def no_request_waits_offline(self) -> None:
        assert self.status is ClientStatus.ONLINE or not self.socket.requests

    @invariant()
    def names_are_unique(self) -> None:
        state = self.socket.state
        for cache in (state.games, state.remote_players):
            assert cache.entries.keys() == cache.updated.keys()


GossipMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestGossipMachine = pytest.mark.slow(GossipMachine.TestCase)


@pytest.mark.parametrize(
    ("name", "event"),
    [("channels/broadcast", {"channel": "c", "game": "g", "name": "n", "message": "m"}),
     ("players/sign-in", {"game": "g", "name": "n"}), ("games/connect", {"game": "g"})],
)  # fmt: skip
def test_a_handler_can_be_called_directly(name: str, event: dict[str, str]) -> None:
    """Without a connection, a clock or a task."""
    effects, state = ROUTER.find(name)({"event": name, "payload": event}, online())
    [notify] = effects
    assert isinstance(notify, Notify)
    assert state.status is ClientStatus.ONLINE


def test_caches_are_bounded() -> None:
    """A server that invents games or players cannot fill the memory."""
    known = {str(number): number for number in range(MAX_ENTRIES)}
    full = GameCache(known, dict.fromkeys(known, 0))
    assert full.add("another", 1) is full
    assert full.add("0", 7).entries == {**known, "0": 7}
    players = tuple(str(number) for number in range(MAX_ENTRIES))
    status = {"payload": {"game": "A", "players": list(players)}}
    _, state = players_status(status, online())
    another = {"event": "players/sign-in", "payload": {"game": "A", "name": "another"}}
    _, state = player_signed_in_or_out(another, state)
    assert state.remote_players.entries["A"] == players


def test_a_cache_drops_entries_that_are_not_updated() -> None:
    """A game has the time between two refreshes to answer."""
    empty: GameCache[int] = GameCache()
    cache = empty.add("a", 1).refresh().add("b", 2)
    assert dict(cache.entries) == {"a": 1, "b": 2}
    assert dict(cache.refresh().entries) == {"b": 2}
    assert dict(cache.remove("b").entries) == {"a": 1}


@pytest.mark.parametrize(
    ("error", "final"),
    [("invalid credentials", True), ("disconnected due to rate limit abuse", False)],
)
def test_only_refused_credentials_are_final(error: str, final: bool) -> None:
    """The server sends the same event and close code to clients that exceed the rate limit."""
    failed = {"event": "authenticate", "status": "failure", "error": error}
    _, state = refuse("authenticate", failed, authenticating())
    reason = RemoteClose(code=4000)
    _, state = disconnect(reason, state)
    decision, _ = decide(reason, state)
    assert decision == (Stop() if final else None)


def test_a_failure_shows_the_reason_of_the_server() -> None:
    failed = RequestRefused("tells/send", "game offline")
    assert str(failed) == "tells/send: game offline"
    assert (failed.event, failed.reason, failed.errors) == ("tells/send", "game offline", {})


def test_no_heartbeat_before_authentication() -> None:
    """The server would answer it with "unauthenticated"."""
    socket = GossipSocket(authenticating(), CallbackQueue({"channels": ChannelsCallbacks()}, 1))
    assert socket.handle_receive('{"event": "heartbeat"}', None) == (None, None)
    assert repr(Client(socket)) == "<gossip.Client i, authenticating>"


def test_the_table_of_transitions() -> None:
    """Each transition of the table happens, and no other one."""
    lost = RemoteClose(code=1006)
    steps = [
        (offline(), authenticating()),
        (authenticating(), disconnect(lost, authenticating())[1]),
        (authenticating(), online()),
        (online(), disconnect(lost, online())[1]),
    ]
    happened = [(before.status, after.status) for before, after in steps]
    table = [(before, after) for before, row in TRANSITIONS.items() for after in row]
    assert sorted(happened, key=str) == sorted(table, key=str)
