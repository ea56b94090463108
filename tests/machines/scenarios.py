"""Scenarios: what happens to a connection, as values that hypothesis generates and shrinks."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.hooks.helpers import HOOKS
from trioglock.telemetry import Event

__all__ = ["EVENTS", "Scenario", "Setup", "Step", "scenarios"]

EVENTS = tuple(sorted({kind.__name__ for kind in Event.__subclasses__()}))


@dataclass(frozen=True)
class Setup:
    """The options of the connection, its hooks and the behavior of its peer.

    Args:
        hooks: the overridden hooks.
        async_hooks: the hooks that are ``async``.
        connect_actions: the actions of successive calls of ``handle_connect``.
        decisions: the decisions of successive calls of ``handle_disconnect``.
        first: the action of ``init_stream``.
        last: the action of ``terminate``.
        attempts: the results of successive attempts to connect; later ones succeed.
        peer: ``"polite"`` reads and answers, ``"reads"`` only reads, ``"silent"`` reads on demand.
        wire: ``"memory"``, or a pair of sockets: ``"socket"``, ``"tls"``.
        polled: whether a poller feeds a link on sockets, where there is one.
        capacity: the number of frames that fit into each direction of the link. Sockets have small
            buffers unless it is infinite.
        writes_now: whether links can write without waiting.
        backoff: the arguments of the policy, or None.
        options: further options of the connection.
        message_heartbeat: whether the heartbeat uses messages.
        deadline: seconds after which the block is cancelled.
        leave: how the block ends.
        listened: whether a listener records all events.
        interference: the kind of events at which another listener acts, and its action.
    """

    hooks: frozenset[str] = frozenset()
    async_hooks: frozenset[str] = frozenset()
    connect_actions: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    first: str = "none"
    last: str = "none"
    attempts: tuple[str, ...] = ()
    peer: str = "polite"
    wire: str = "memory"
    polled: bool = False
    capacity: float = math.inf
    writes_now: bool = False
    backoff: tuple[tuple[str, Any], ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    message_heartbeat: bool = False
    deadline: float = math.inf
    leave: str = "return"
    listened: bool = True
    interference: tuple[str, str] | None = None


@dataclass(frozen=True)
class Step:
    """One step, its argument, and whether the body waits up to 3 seconds for it."""

    what: str
    arg: Any = None
    inline: bool = False


@dataclass(frozen=True)
class Scenario:
    """A complete example."""

    setup: Setup
    steps: tuple[Step, ...]


# The actions of hooks. Common ones are drawn far more often than those that end the connection.
COMMON = ("none", "deliver", "value", "reply", "both", "many", "nap", "cast")
RARE = (
    "abort",
    "sleep",
    "long",
    "close",
    "replyclose",
    "raise",
    "bad",
    "abort",
    "inside",
    "background",
)


def actions(
    common: tuple[str, ...] = COMMON, rare: tuple[str, ...] = RARE
) -> st.SearchStrategy[str]:
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(rare if n == 9 else common))


SENDS = actions(("one", "one", "many", "none", "nap"), ("close", "raise", "bad", "sleep"))
SIZES = st.sampled_from((0, 0, 3, 30, 200))
NAPS = st.sampled_from((0.01, 0.5, 1.0, 2.5, 7.0, 30.0))
CODES = st.sampled_from((1000, 1001, 1005, 1011, 4000))


def step(what: str, arg: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Step]:
    inline = st.integers(0, 4).map(lambda n: n == 4)
    return st.builds(Step, st.just(what), st.none() if arg is None else arg, inline)


PEER_MESSAGES = st.lists(st.tuples(actions(), SIZES), min_size=1, max_size=4)

STEPS = {
    # The scheduler and the clock.
    5: [step("yield")],
    10: [step("settle")],
    8: [
        step("nap", NAPS),
        step("send", st.tuples(SENDS, SIZES)),
        step("receive"),
        step("peer_sends", PEER_MESSAGES),
    ],
    4: [
        step("send_nowait", st.tuples(SENDS, SIZES)),
        step("send_frame", st.sampled_from(("text", "bytes", "ping", "pong", "text", "close"))),
        step("receive_nowait"),
        step("receive_batch"),
        step("iterate", st.integers(1, 4)),
        step("cast", actions()),
        step("call", st.tuples(actions(), st.sampled_from((None, 0.5, 5)))),
        step("ping"),
        step("flush"),
        step("cancel", st.integers(0, 5)),
        step("peer_reads", st.integers(1, 3)),
        step("peer_pings", actions()),
    ],
    2: [
        step("cast_after", st.tuples(NAPS, actions())),
        step("wait_closed"),
        step("reconnect"),
        step("peer_pongs", st.booleans()),
        step("peer_answers_heartbeat"),
        step("refuse", st.sampled_from(("refuse", "async_hooks", "forbid", "hang", "early"))),
        step("statistics"),
    ],
    # Most of these end the connection.
    1: [
        step("background", st.sampled_from(("nap", "sleep", "raise"))),
        step("aclose", CODES),
        step("abort"),
        step("peer_closes", CODES),
        step("peer_ends"),
        step("peer_drops"),
        step("peer_resets"),
        step("peer_violates"),
    ],
}

# Unlike one_of(), this respects the weights.
ANY_STEP = st.sampled_from(
    [one for weight, many in STEPS.items() for one in many for _ in range(weight)]
).flatmap(lambda one: one)

some_hooks = st.one_of(
    st.just(frozenset[str]()), st.just(frozenset(HOOKS)), st.frozensets(st.sampled_from(HOOKS))
)

backoffs = st.one_of(
    st.none(),
    st.sampled_from(
        (
            (("initial", 1), ("jitter", "none"), ("max_attempts", 3), ("stable_after", 5)),
            (("initial", 0.5), ("maximum", 4), ("jitter", "none"), ("max_attempts", None)),
        )
    ),
)


@st.composite
def options(draw: st.DrawFn) -> tuple[tuple[str, Any], ...]:
    overflow = draw(st.sampled_from(("wait", "wait", "drop_oldest", "drop_newest", "close")))
    return (
        ("max_queue", draw(st.sampled_from((16, 1, 2, 4)))),
        ("overflow", overflow),
        ("write_limit", draw(st.sampled_from((2**16, 1, 10, 300)))),
        ("ping_interval", draw(st.sampled_from((None, 1, 5)))),
        ("ping_timeout", draw(st.sampled_from((20, 2, 5)))),
        ("write_timeout", draw(st.sampled_from((60, 3)))),
        ("close_timeout", draw(st.sampled_from((10, 1)))),
    )


# Pairs of sockets behave as the scenarios expect only where they are local and immediate.
WIRES = ("memory", "socket", "tls") if sys.platform == "linux" else ("memory",)

dial_words = st.sampled_from(("ok", "ok", "ok", "early", "async_hooks", "refuse", "forbid", "hang"))

setups = st.builds(
    Setup,
    hooks=some_hooks,
    async_hooks=some_hooks,
    connect_actions=st.lists(actions(), max_size=3).map(tuple),
    decisions=st.lists(
        st.sampled_from(("none", "none", "again", "later", "stop", "raise", "bad", "nap", "sleep")),
        max_size=3,
    ).map(tuple),
    first=actions(("none", "none", "nap", "sleep"), ("raise", "abort")),
    last=actions(("none", "none", "nap", "sleep"), ("raise", "long", "inside")),
    attempts=st.lists(dial_words, max_size=3).map(tuple),
    peer=st.sampled_from(("polite", "polite", "reads", "silent")),
    wire=st.sampled_from(WIRES),
    polled=st.booleans(),
    capacity=st.sampled_from((math.inf, math.inf, 3, 1, 0)),
    writes_now=st.booleans(),
    backoff=backoffs,
    options=options(),
    message_heartbeat=st.integers(0, 7).map(lambda n: n == 7),
    deadline=st.integers(0, 9).flatmap(lambda n: NAPS if n == 9 else st.just(math.inf)),
    leave=st.sampled_from(("return", "return", "raise", "cancel", "close")),
    listened=st.integers(0, 3).map(bool),
    interference=st.one_of(
        st.none(),
        st.tuples(
            st.sampled_from(EVENTS),
            st.sampled_from(("abort", "close", "frame", "immediate", "receive")),
        ),
    ),
)

steps = st.sampled_from((0, 4, 12, 24)).flatmap(
    lambda least: st.lists(ANY_STEP, min_size=least, max_size=40)
)

scenarios: st.SearchStrategy[Scenario] = st.builds(Scenario, setups, steps.map(tuple))
