"""The errors: the tree is what it says it is, and each says what happened."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from types import ModuleType

import pytest

import trioglock
from tests.cases import case_of
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


def documented_tree(module: ModuleType) -> dict[str, tuple[str | None, str | None]]:
    """The names of the classes in the docstring, with their parent and builtin base."""
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


def actual_tree(module: ModuleType, root: type) -> dict[str, tuple[str | None, str | None]]:
    """The names of the classes, with their parent and builtin base."""
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
def test_the_documented_tree_matches_the_classes(module: ModuleType, root: type) -> None:
    """The docstring lists every class under its parent, with its builtin base."""
    tree = documented_tree(module)
    assert tree == actual_tree(module, root)
    assert set(tree) == set(module.__all__)
    assert set(tree) <= set(trioglock.__all__)


def test_every_error_is_documented() -> None:
    """Each has its own docstring and is a TrioglockError."""
    for name in errors.__all__:
        with case_of(name):
            kind = getattr(trioglock, name)
            assert kind.__doc__ != kind.__base__.__doc__
            assert kind.__doc__.partition("\n")[0].endswith(".")
            assert issubclass(kind, TrioglockError)
            assert issubclass(kind, Exception)


def test_a_refused_handshake_keeps_the_response() -> None:
    """Its text contains the status line, and its repr no secrets."""
    headers = Headers({"Retry-After": "5", "Set-Cookie": "hunter2"})
    error = HandshakeRefused(503, headers, b"later", "Service Unavailable")
    assert str(error) == "the server refused the handshake: 503 Service Unavailable"
    assert (error.status, error.headers, error.body) == (503, headers, b"later")
    assert error.phrase == "Service Unavailable"
    assert str(HandshakeRefused(404, Headers())) == "the server refused the handshake: 404"
    assert "hunter2" not in repr(error)


def test_a_failed_redirect_describes_the_problem() -> None:
    """It has the attributes of the last response."""
    refused = HandshakeRefused(302, Headers({"Location": "x"}), b"body", "Found")
    error = RedirectFailed(refused, "more than 10 redirects")
    assert str(error) == "more than 10 redirects (status 302)"
    assert error.problem == "more than 10 redirects"
    assert (error.status, error.headers["location"], error.body, error.phrase) == (
        302, "x", b"body", "Found",
    )  # fmt: skip


def test_a_failed_reconnect_shows_the_number_of_attempts_and_the_last_reason() -> None:
    """``attempts`` has all of them, oldest first, and may be empty."""
    attempts = [ConnectionLost(attempt=1), HandshakeFailed(attempt=2, error=ConnectError("no"))]
    error = ReconnectFailed(attempts)
    assert error.attempts == tuple(attempts)
    assert str(error) == "gave up after 2 attempts; could not connect: no"
    assert str(ReconnectFailed([])) == "gave up after 0 attempts"


@pytest.mark.parametrize(
    ("attempts", "short_links", "text"),
    [
        (1, 1, "1 attempt, which connected, but for less than 2 seconds (stable_after)"),
        (3, 3, "3 attempts, all of which connected, but for less than 2 seconds (stable_after)"),
        (3, 2, "3 attempts, 2 of which connected, but for less than 2 seconds (stable_after)"),
        (3, 0, "3 attempts"),
    ],
)
def test_a_failed_reconnect_mentions_links_that_were_too_short(
    attempts: int, short_links: int, text: str
) -> None:
    """Otherwise "gave up after 10 attempts" would look like a server that cannot be reached."""
    error = ReconnectFailed([RemoteClose(code=1001)] * attempts, short_links, 2.0)
    assert str(error) == f"gave up after {text}; closed by the peer: 1001"
    copied = copy.copy(error)
    assert (str(copied), copied.short_links) == (str(error), short_links)


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
            1011, "", "closed: 1011; the peer did not answer",
        ),
        (ConnectionClosedError(None, None), 1006, "", "the connection is closing"),
        (
            ConnectionClosedError(None, None, HeartbeatTimeout(silence=20), ["a", b"b"]),
            1006, "",
            "connection lost: the peer sent nothing for 20 seconds; 2 messages were not sent",
        ),
        (ConnectionClosedOK(Close(1005), Close(1000)), 1005, "", "the connection is closing: 1005"),
    ],
)  # fmt: skip
def test_code_reason_and_text_of_a_closed_connection(
    error: ConnectionClosed, code: int, reason: str, text: str
) -> None:
    """The peer's code takes precedence; 1006 means that there is none."""
    assert (error.code, error.reason, str(error)) == (code, reason, text)


def test_the_repr_of_a_closed_connection_names_what_is_known() -> None:
    error = ConnectionClosedError(None, None, HeartbeatTimeout(silence=20), ["a"])
    assert repr(error) == f"ConnectionClosedError(cause={error.cause!r})"
    error = ConnectionClosedError(None, Close(1001, "off"))
    assert repr(error) == f"ConnectionClosedError(sent={Close(1001, 'off')!r})"
    assert repr(ConnectionClosedOK(None, None)) == "ConnectionClosedOK()"


def test_a_closed_connection_keeps_both_frames_and_the_unsent_messages() -> None:
    """``unsent`` is a copy."""
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
def test_errors_can_be_copied_and_pickled(error: TrioglockError) -> None:
    """The copy has the same text and attributes."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert repr(vars(other)) == repr(vars(error))


PEER_TEXT = "no\nERROR forged \x1b[31m\u202e wss://al:s3cret@h/?token=s3cret " + "x" * 5000


@pytest.mark.parametrize(
    "error",
    [
        TrioglockError(PEER_TEXT),
        errors.InvalidOption(PEER_TEXT),
        errors.ConnectFailed(PEER_TEXT),
        HandshakeRefused(400, Headers(), b"", PEER_TEXT),
        RedirectFailed(HandshakeRefused(302, Headers()), PEER_TEXT),
        ReconnectFailed([HandshakeFailed(error=OSError(PEER_TEXT))]),
        errors.RestartLimit([OSError(PEER_TEXT)], 5.0),
        ConnectionClosedError(None, None, ConnectionLost(error=OSError(PEER_TEXT))),
        ConnectionClosedError(Close(4000, PEER_TEXT[:70]), None, None),
        RequestLost("event", ConnectionLost(error=OSError(PEER_TEXT))),
        RequestTimeout(PEER_TEXT, 5),
        gossip.RequestRefused("event", PEER_TEXT),
        phoenix.JoinRefused("room:1", {"reason": PEER_TEXT, "token": "s3cret"}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_text_from_a_peer_is_escaped_and_redacted(error: TrioglockError) -> None:
    """It fits in one line of limited length, which cannot forge other lines of a log."""
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
def test_a_cause_whose_text_raises_is_described(error: TrioglockError) -> None:
    """An exception of user code may have a broken ``__str__`` or ``__repr__``."""
    assert re.search(r"whose (repr|str) raises LookupError", str(error))


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (RemoteClose(code=1001, reason="bye"), "closed by the peer: 1001 bye"),
        (RemoteClose(code=1005), "closed by the peer without a code"),
        (LocalClose(), "closed: 1000"),
        (LocalClose(code=4000, reason="off", clean=False),
         "closed: 4000 off; the peer did not answer"),
        (ProtocolViolation(code=1009, reason="too much"),
         "limit exceeded by the peer: 1009 too much"),
        (ConnectionLost(), "connection lost: the stream ended without a Close frame"),
        (ConnectionLost(error=OSError("reset")), "connection lost: reset"),
        (HeartbeatTimeout(silence=20), "connection lost: the peer sent nothing for 20 seconds"),
        (HeartbeatTimeout(silence=1), "connection lost: the peer sent nothing for 1 second"),
        (HeartbeatTimeout(silence=60, writing=True),
         "connection lost: the peer read nothing for 60 seconds"),
        (HandshakeFailed(error=ConnectError("refused")), "could not connect: refused"),
        (HandshakeFailed(error=OSError("refused")), "could not connect: refused"),
        (HandshakeFailed(error=KeyError("token")), "could not connect: KeyError: 'token'"),
        (HandshakeFailed(error=errors.OpenTimeout("timed out after 3 seconds")),
         "could not connect: timed out after 3 seconds"),
        (HookError(error=KeyError("x")), "a hook or task failed: KeyError: 'x'"),
        (Aborted(), "aborted without a closing handshake"),
        (RemoteClose(code=4000, reason="a\nb ws://h/?token=s3cret"),
         "closed by the peer: 4000 a\\nb ws://h/?token=[hidden]"),
    ],
)  # fmt: skip
def test_reasons_as_text(reason: Disconnect, text: str) -> None:
    """The text is a single line, and quoted text is redacted."""
    assert str(reason) == text
