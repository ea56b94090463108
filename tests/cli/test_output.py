"""The exit code and the description of each end of a connection."""

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
from trioglock.cli.output import (
    describe_end,
    describe_failure,
    end_code,
    json_problem,
)

REFUSED = ConnectFailed("refused by ws://al:pw@host/?token=abc")


@pytest.mark.parametrize(
    ("reason", "code", "text"),
    [
        (RemoteClose(code=1000, reason="bye"), 0, "closed by the peer: 1000 bye"),
        (RemoteClose(code=1001), 0, "closed by the peer: 1001"),
        (RemoteClose(code=1005), 0, "closed by the peer without a code"),
        (RemoteClose(code=4000), 1, "closed by the peer: 4000"),
        (LocalClose(), 0, "closed: 1000"),
        (LocalClose(code=4000, reason="so"), 0, "closed: 4000 so"),
        (LocalClose(clean=False), 1, "closed: 1000; the peer did not answer"),
        (
            ProtocolViolation(code=1009, reason="too big"),
            1,
            "limit exceeded by the peer: 1009",
        ),
        (ConnectionLost(), 1, "connection lost: the stream ended without a Close frame"),
        (ConnectionLost(error=OSError("reset")), 1, "connection lost: reset"),
        (HeartbeatTimeout(silence=20), 1, "connection lost: the peer sent nothing for 20 seconds"),
        (
            HeartbeatTimeout(silence=60, writing=True),
            1,
            "connection lost: the peer read nothing for 60 sec",
        ),
        (HandshakeFailed(error=REFUSED), 1, "could not connect: refused by ws://host/?token="),
        (HookError(error=ValueError("odd")), 1, "a hook or task failed: "),
        (Aborted(), 1, "aborted without a closing handshake"),
        (None, 1, "closed"),
    ],
)
def test_ends(reason: Disconnect | None, code: int, text: str) -> None:
    """The code is 0 if the peer closes with 1000, 1001 or no code, or confirms our close."""
    sent = Close(reason.code) if isinstance(reason, LocalClose) else None
    error = ConnectionClosed(None, sent, reason)
    assert end_code(error) == code
    assert describe_end(error).startswith(text)
    assert "abc" not in describe_end(error)


def test_unsent_messages() -> None:
    """The code is 1 if messages were not sent."""
    error = ConnectionClosed(Close(1000), None, RemoteClose(code=1000), ["one", "two"])
    assert end_code(error) == 1
    assert describe_end(error) == "closed by the peer: 1000; 2 messages were not sent"
    error = ConnectionClosed(Close(1000), None, RemoteClose(code=1000), ["one"])
    assert describe_end(error) == "closed by the peer: 1000; 1 message was not sent"


def test_giving_up() -> None:
    """After a connection and before the first one."""
    attempts = [HandshakeFailed(error=REFUSED)] * 10
    error = ConnectionClosedError(None, None, RemoteClose(code=1001))
    error.__cause__ = ReconnectFailed(attempts)
    assert end_code(error) == 1
    assert describe_end(error) == "closed by the peer: 1001; gave up after 10 attempts"
    error.__cause__ = ReconnectFailed(attempts[:1])
    assert describe_end(error) == "closed by the peer: 1001; gave up after 1 attempt"
    error.__cause__ = ReconnectFailed([RemoteClose(code=1001)] * 3, 3, 10.0)
    assert describe_end(error) == (
        "closed by the peer: 1001; gave up after 3 attempts, all of which connected, "
        "but for less than 10 seconds (stable_after)"
    )
    text = describe_failure(ReconnectFailed(attempts))
    assert text.startswith("gave up after 10 attempts; could not connect: refused by ws://host/?")
    assert describe_failure(ReconnectFailed([])) == "gave up after 0 attempts"


def test_failed_connections() -> None:
    """The prefix appears once, and no secrets."""
    assert (
        describe_failure(ConnectFailed("host:1: refused")) == "could not connect: host:1: refused"
    )
    assert describe_failure(REFUSED).startswith("could not connect: refused by ws://host/?token=")
    assert "abc" not in describe_failure(ValueError("ws://host/?token=abc"))


def test_json_of_several_lines() -> None:
    """The problem names the line."""
    assert json_problem('{\n"a": }') == "Expecting value at line 2, column 6"
