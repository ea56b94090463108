"""The errors: the tree is what it says it is, and each says what happened."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from types import ModuleType

import pytest

import trioglock
from trioglock import (
    Aborted,
    Close,
    ConnectError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HandshakeRefused,
    Headers,
    HeartbeatTimeout,
    HookError,
    LocalClose,
    ProtocolViolation,
    ReconnectFailed,
    RedirectFailed,
    RemoteClose,
    TrioglockError,
    disconnect,
    errors,
)
from trioglock.protocols import gossip, phoenix
from trioglock.routing import RequestLost, RequestTimeout

LINE = re.compile(r"    (?P<indent>[│ ├└─]*)(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?: .*)?")


def drawn_tree(module: ModuleType) -> dict[str, tuple[str | None, str | None]]:
    """Each name in the docstring's drawing with its parent's and that of its builtin base."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    assert module.__doc__ is not None
    for line in module.__doc__.splitlines():
        found = LINE.fullmatch(line)
        if found:
            depth = len(found["indent"]) // 4
            tree[found["name"]] = (path[depth - 1] if depth else None, found["builtin"])
            path[depth:] = [found["name"]]
    return tree


def real_tree(module: ModuleType, root: type) -> dict[str, tuple[str | None, str | None]]:
    """The same of the classes themselves."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, root):
            ours = [base.__name__ for base in kind.__bases__ if issubclass(base, root)]
            other = [base.__name__ for base in kind.__bases__ if not issubclass(base, root)]
            other = [base for base in other if base not in {"Exception", "object"}]
            tree[name] = (ours[0] if ours else None, other[0] if other else None)
            assert len(ours) <= 1
            assert len(other) <= 1
    return tree


@pytest.mark.parametrize(
    ("module", "root"),
    [(errors, TrioglockError), (disconnect, Disconnect)],
    ids=["errors", "reasons"],
)
def test_the_drawn_tree_is_the_real_one(module: ModuleType, root: type) -> None:
    """Every class stands in the docstring, under its parent, with its builtin base."""
    tree = drawn_tree(module)
    assert tree == real_tree(module, root)
    assert set(tree) == set(module.__all__)
    assert set(tree) <= set(trioglock.__all__)


@pytest.mark.parametrize("name", sorted(errors.__all__))
def test_every_error_says_whose_fault_it_is(name: str) -> None:
    """Its docstring is its own, and it can be caught together with all others."""
    kind = getattr(trioglock, name)
    assert kind.__doc__ != kind.__base__.__doc__
    assert kind.__doc__.endswith((".", "\n    "))
    assert issubclass(kind, TrioglockError)
    assert issubclass(kind, Exception)


def test_a_refusal_keeps_the_answer() -> None:
    """Status, headers, body and phrase; the text has the status line and no secrets."""
    headers = Headers({"Retry-After": "5", "Set-Cookie": "hunter2"})
    error = HandshakeRefused(503, headers, b"later", "Service Unavailable")
    assert str(error) == "the server refused the handshake: 503 Service Unavailable"
    assert (error.status, error.headers, error.body) == (503, headers, b"later")
    assert error.phrase == "Service Unavailable"
    assert str(HandshakeRefused(404, Headers())) == "the server refused the handshake: 404"
    assert "hunter2" not in repr(error)


def test_a_failed_redirect_is_a_refusal_with_a_problem() -> None:
    """It keeps the last answer and says what was wrong with it."""
    refused = HandshakeRefused(302, Headers({"Location": "x"}), b"body", "Found")
    error = RedirectFailed(refused, "more than 10 redirects")
    assert str(error) == "more than 10 redirects (status 302)"
    assert error.problem == "more than 10 redirects"
    assert (error.status, error.headers["location"], error.body, error.phrase) == (
        302, "x", b"body", "Found",
    )  # fmt: skip


def test_giving_up_tells_how_often_and_the_last_reason() -> None:
    """All attempts are kept, oldest first; without any the text still reads."""
    attempts = [ConnectionLost(attempt=1), HandshakeFailed(attempt=2, error=ConnectError("no"))]
    error = ReconnectFailed(attempts)
    assert error.attempts == tuple(attempts)
    assert str(error) == "gave up after 2 attempts; no connection: no"
    assert str(ReconnectFailed([])) == "gave up after 0 attempts"


@pytest.mark.parametrize(
    ("error", "code", "reason", "text"),
    [
        (ConnectionClosedOK(Close(1000), Close(1000)), 1000, "", "the connection is closing: 1000"),
        (
            ConnectionClosedError(
                Close(4000, "bye"), Close(4000), RemoteClose(code=4000, reason="bye")
            ),
            4000, "bye", "closed by the peer: 4000 bye",
        ),
        (
            ConnectionClosed(None, Close(1001, "off")),
            1001, "off", "the connection is closing: 1001 off",
        ),
        (
            ConnectionClosedError(None, Close(1011), LocalClose(code=1011, clean=False)),
            1011, "", "closed: 1011; the peer has not confirmed it",
        ),
        (ConnectionClosedError(None, None), 1006, "", "the connection is closing"),
        (
            ConnectionClosedError(None, None, HeartbeatTimeout(silence=20), ["a", b"b"]),
            1006, "",
            "lost: the peer was silent for 20 seconds; 2 frames never sent",
        ),
        (ConnectionClosedOK(Close(1005), Close(1000)), 1005, "", "the connection is closing: 1005"),
    ],
)  # fmt: skip
def test_a_closed_connection_says_why(
    error: ConnectionClosed, code: int, reason: str, text: str
) -> None:
    """The peer's code wins over ours, 1006 stands for neither; the text is that of the cause."""
    assert (error.code, error.reason, str(error)) == (code, reason, text)


def test_a_closed_connection_keeps_both_frames_and_what_was_not_sent() -> None:
    """As they were given; ``unsent`` can no longer change."""
    unsent = ["a", b"b"]
    error = ConnectionClosedError(Close(1000), Close(1001), HookError(error=KeyError("x")), unsent)
    unsent.clear()
    assert (error.received, error.sent) == (Close(1000), Close(1001))
    assert isinstance(error.cause, HookError)
    assert error.unsent == ("a", b"b")


REFUSED = HandshakeRefused(302, Headers({"Location": "x"}), b"body", "Found")


@pytest.mark.parametrize(
    "error",
    [
        REFUSED, RedirectFailed(REFUSED, "too often"), ReconnectFailed([ConnectionLost()]),
        ReconnectFailed([]),
        ConnectionClosedError(None, Close(1001), ConnectionLost(), ["a"]),
        ConnectionClosedOK(Close(), None),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_survive_copying_and_pickling(error: TrioglockError) -> None:
    """They may cross to another thread or process and still say the same."""
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert repr(vars(twin)) == repr(vars(error))


UNKIND = "no\nERROR forged \x1b[31m\u202e token=s3cret wss://al:s3cret@h/ " + "x" * 5000


@pytest.mark.parametrize(
    "error",
    [
        TrioglockError(UNKIND),
        errors.InvalidOption(UNKIND),
        errors.ConnectFailed(UNKIND),
        HandshakeRefused(400, Headers(), b"", UNKIND),
        RedirectFailed(HandshakeRefused(302, Headers()), UNKIND),
        ReconnectFailed([HandshakeFailed(error=OSError(UNKIND))]),
        errors.RestartLimit([OSError(UNKIND)], 5.0),
        ConnectionClosedError(None, None, ConnectionLost(error=OSError(UNKIND))),
        ConnectionClosedError(Close(4000, UNKIND[:70]), None, None),
        RequestLost("event", ConnectionLost(error=OSError(UNKIND))),
        RequestTimeout(UNKIND, 5),
        gossip.RequestFailed("event", UNKIND),
        phoenix.JoinRefused("room:1", {"reason": UNKIND, "token": "s3cret"}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_others_say_is_quoted_with_care(error: TrioglockError) -> None:
    """In one line of bounded length, that forges no other, and without secrets."""
    for text in (str(error), repr(error)):
        assert len(text) < 1200
        assert text.isprintable()
        assert "s3cret" not in text
    assert "forged" in str(error)


class Mute(Exception):
    def __repr__(self) -> str:
        raise LookupError

    __str__ = __repr__


@pytest.mark.parametrize(
    "error",
    [
        ReconnectFailed([HandshakeFailed(error=Mute())]),
        errors.RestartLimit([Mute()], 5.0),
        ConnectionClosedError(None, None, HookError(error=Mute())),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_quoted_is_said_to_be_so(error: TrioglockError) -> None:
    """The causes may be anything that somebody has raised."""
    assert re.search(r"whose (repr|text) raises LookupError", str(error))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (RemoteClose(code=1001, reason="bye"), "closed by the peer: 1001 bye"),
        (RemoteClose(code=1005), "closed by the peer: without a code"),
        (LocalClose(), "closed: 1000"),
        (LocalClose(code=4000, reason="off", clean=False),
         "closed: 4000 off; the peer has not confirmed it"),
        (ProtocolViolation(code=1009, reason="too much"),
         "closed with 1009, for what the peer has sent: too much"),
        (ConnectionLost(), "lost: the peer went away without a Close frame"),
        (ConnectionLost(error=OSError("reset")), "lost: reset"),
        (HeartbeatTimeout(silence=20), "lost: the peer was silent for 20 seconds"),
        (HeartbeatTimeout(silence=60, writing=True),
         "lost: the peer read nothing for 60 seconds"),
        (HandshakeFailed(error=ConnectError("refused")), "no connection: refused"),
        (HandshakeFailed(error=errors.OpenTimeout("no connection within 3 seconds")),
         "no connection within 3 seconds"),
        (HookError(error=KeyError("x")), "failed: KeyError: 'x'"),
        (Aborted(), "dropped without a closing handshake"),
        (RemoteClose(code=4000, reason="a\nb token=s3cret"),
         "closed by the peer: 4000 a\\nb token=[hidden]"),
    ],
)  # fmt: skip
def test_reasons_speak(reason: Disconnect, words: str) -> None:
    """In a line, for a person; what others say is quoted with care."""
    assert str(reason) == words
