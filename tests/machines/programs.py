"""Programs: what is done to a connection, as plain values that hypothesis draws and shrinks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from trioglock.telemetry import Event

__all__ = ["EVENTS", "HOOKS", "Program", "Setup", "Step", "programs"]

HOOKS = (
    "init_stream",
    "handle_connect",
    "handle_send",
    "handle_receive",
    "handle_ping",
    "handle_pong",
    "handle_cast",
    "handle_call",
    "handle_disconnect",
    "terminate",
)

EVENTS = tuple(sorted({kind.__name__ for kind in Event.__subclasses__()}))


@dataclass(frozen=True)
class Setup:
    """The options of the connection, its hooks, and the temper of its peer.

    Args:
        hooks: which hooks are overridden.
        slow: which of those are ``async``.
        greetings: what ``handle_connect`` does, connection by connection; then nothing.
        decisions: what ``handle_disconnect`` decides, time by time; then nothing.
        first: what ``init_stream`` does.
        last: what ``terminate`` does.
        dials: how the attempts go, one by one; then well.
        peer: ``"polite"`` reads and answers, ``"reads"`` only reads, ``"silent"`` reads when told.
        eager: links write without waiting where they can.
        backoff: the arguments of the policy, or None for none.
        deadline: seconds until the whole is cancelled from outside.
        leave: how the block is left.
        heard: whether a listener takes notes of all events.
        meddler: what another listener does, at which kind of events; None for nothing.
    """

    hooks: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()
    greetings: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    first: str = "none"
    last: str = "none"
    dials: tuple[str, ...] = ()
    peer: str = "polite"
    capacity: float = math.inf
    eager: bool = False
    backoff: tuple[tuple[str, Any], ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    beat: bool = False
    deadline: float = math.inf
    leave: str = "return"
    heard: bool = True
    meddler: tuple[str, str] | None = None


@dataclass(frozen=True)
class Step:
    """One step: what, with what, and whether the body itself waits for it, 3 seconds at most."""

    what: str
    arg: Any = None
    inline: bool = False


@dataclass(frozen=True)
class Program:
    """All of one example."""

    setup: Setup
    steps: tuple[Step, ...]


# What a hook does. Mild words are drawn far more often than those that end the connection.
MILD = ("none", "deliver", "value", "reply", "both", "many", "nap", "cast")
HARSH = (
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


def words(mild: tuple[str, ...] = MILD, harsh: tuple[str, ...] = HARSH) -> st.SearchStrategy[str]:
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(harsh if n == 9 else mild))


SENDS = words(("one", "one", "many", "none", "nap"), ("close", "raise", "bad", "sleep"))
SIZES = st.sampled_from((0, 0, 3, 30, 200))
NAPS = st.sampled_from((0.01, 0.5, 1.0, 2.5, 7.0, 30.0))
CODES = st.sampled_from((1000, 1001, 1005, 1011, 4000))


def step(what: str, arg: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Step]:
    inline = st.integers(0, 4).map(lambda n: n == 4)
    return st.builds(Step, st.just(what), st.none() if arg is None else arg, inline)


SAYINGS = st.lists(st.tuples(words(), SIZES), min_size=1, max_size=4)

STEPS = {
    # The scheduler and the clock.
    5: [step("yield")],
    10: [step("settle")],
    8: [
        step("nap", NAPS),
        step("send", st.tuples(SENDS, SIZES)),
        step("receive"),
        step("peer_says", SAYINGS),
    ],
    4: [
        step("send_nowait", st.tuples(SENDS, SIZES)),
        step("send_frame", st.sampled_from(("text", "bytes", "ping", "pong", "text", "close"))),
        step("receive_nowait"),
        step("receive_batch"),
        step("iterate", st.integers(1, 4)),
        step("cast", words()),
        step("call", st.tuples(words(), st.sampled_from((None, 0.5, 5)))),
        step("ping"),
        step("flush"),
        step("cancel", st.integers(0, 5)),
        step("peer_reads", st.integers(1, 3)),
        step("peer_pings", words()),
    ],
    2: [
        step("cast_after", st.tuples(NAPS, words())),
        step("wait_closed"),
        step("reconnect"),
        step("peer_pongs", st.booleans()),
        step("peer_beats"),
        step("refuse", st.sampled_from(("refuse", "slow", "forbid", "hang", "early"))),
        step("figures"),
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

# one_of() would draw each of them equally often, however often it is named.
ANY_STEP = st.sampled_from(
    [one for weight, many in STEPS.items() for one in many for _ in range(weight)]
).flatmap(lambda one: one)

some_hooks = st.one_of(
    st.just(frozenset[str]()),
    st.just(frozenset(HOOKS)),
    st.frozensets(st.sampled_from(HOOKS)),
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


dial_words = st.sampled_from(("ok", "ok", "ok", "early", "slow", "refuse", "forbid", "hang"))

setups = st.builds(
    Setup,
    hooks=some_hooks,
    slow=some_hooks,
    greetings=st.lists(words(), max_size=3).map(tuple),
    decisions=st.lists(
        st.sampled_from(("none", "none", "again", "later", "stop", "raise", "bad", "nap", "sleep")),
        max_size=3,
    ).map(tuple),
    first=words(("none", "none", "nap", "sleep"), ("raise", "abort")),
    last=words(("none", "none", "nap", "sleep"), ("raise", "long", "inside")),
    dials=st.lists(dial_words, max_size=3).map(tuple),
    peer=st.sampled_from(("polite", "polite", "reads", "silent")),
    capacity=st.sampled_from((math.inf, math.inf, 3, 1, 0)),
    eager=st.booleans(),
    backoff=backoffs,
    options=options(),
    beat=st.integers(0, 7).map(lambda n: n == 7),
    deadline=st.integers(0, 9).flatmap(lambda n: NAPS if n == 9 else st.just(math.inf)),
    leave=st.sampled_from(("return", "return", "raise", "cancel", "close")),
    heard=st.integers(0, 3).map(bool),
    meddler=st.one_of(
        st.none(),
        st.tuples(
            st.sampled_from(EVENTS),
            st.sampled_from(("abort", "close", "frame", "at once", "receive")),
        ),
    ),
)

steps = st.sampled_from((0, 4, 12, 24)).flatmap(
    lambda least: st.lists(ANY_STEP, min_size=least, max_size=40)
)

programs: st.SearchStrategy[Program] = st.builds(Program, setups, steps.map(tuple))
