"""Exits: every end of a connection has words and an exit code."""

from __future__ import annotations

import pytest

from trioglock import (
    Aborted,
    Close,
    ConnectFailed,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    HookError,
    LocalClose,
    ProtocolViolation,
    ReconnectFailed,
    RemoteClose,
)
from trioglock.cli.exits import code_of_end, words_of_end, words_of_failure

REFUSED = ConnectFailed("no connection to ws://al:pw@host/?token=abc")


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        (RemoteClose(code=1000, reason="bye"), 0, "closed by the peer: 1000 bye"),
        (RemoteClose(code=1001), 0, "closed by the peer: 1001"),
        (RemoteClose(code=1005), 1, "closed by the peer without a code"),
        (RemoteClose(code=4000), 1, "closed by the peer: 4000"),
        (LocalClose(), 0, "closed: 1000"),
        (LocalClose(code=4000, reason="so"), 0, "closed: 4000 so"),
        (LocalClose(clean=False), 1, "closed: 1000; the peer did not answer"),
        (
            ProtocolViolation(code=1009, reason="too big"),
            1,
            "protocol violation by the peer: 1009",
        ),
        (ConnectionLost(), 1, "connection lost: the stream ended without a Close frame"),
        (ConnectionLost(error=OSError("reset")), 1, "connection lost: reset"),
        (HeartbeatTimeout(silence=20), 1, "connection lost: the peer sent nothing for 20 seconds"),
        (
            HeartbeatTimeout(silence=60, writing=True),
            1,
            "connection lost: the peer read nothing for 60 sec",
        ),
        (
            HandshakeFailed(error=REFUSED),
            1,
            "could not connect: no connection to ws://host/?token=",
        ),
        (HookError(error=ValueError("odd")), 1, "a hook or task failed: "),
        (Aborted(), 1, "aborted without a closing handshake"),
        (None, 1, "closed"),
    ],
)
def test_ends(reason: Disconnect | None, code: int, words: str) -> None:
    """Good are 1000 and 1001, and whatever we closed with and the peer has confirmed."""
    error = ConnectionClosed(None, None, reason)
    assert code_of_end(error) == code
    assert words_of_end(error).startswith(words)
    assert "abc" not in words_of_end(error)


def test_what_was_not_sent() -> None:
    """A good end is none for those whose messages did not leave."""
    error = ConnectionClosed(Close(1000), None, RemoteClose(code=1000), ["one", "two"])
    assert code_of_end(error) == 1
    assert words_of_end(error) == "closed by the peer: 1000; not sent: 2 of your messages"


def test_giving_up() -> None:
    """After a connection, and instead of one."""
    attempts = [HandshakeFailed(error=REFUSED)] * 10
    error = ConnectionClosedError(None, None, RemoteClose(code=1001))
    error.__cause__ = ReconnectFailed(attempts)
    assert code_of_end(error) == 1
    assert words_of_end(error) == "closed by the peer: 1001; gave up after 10 attempts"
    told = words_of_failure(ReconnectFailed(attempts))
    assert told.startswith(
        "gave up after 10 attempts; could not connect: no connection to ws://host/?"
    )
    assert words_of_failure(ReconnectFailed([])) == "gave up after 0 attempts"


def test_no_connection() -> None:
    """It is told once, without secrets."""
    assert (
        words_of_failure(ConnectFailed("host:1: refused")) == "could not connect: host:1: refused"
    )
    assert words_of_failure(REFUSED).startswith(
        "could not connect: no connection to ws://host/?token="
    )
    assert "abc" not in words_of_failure(ValueError("ws://host/?token=abc"))
