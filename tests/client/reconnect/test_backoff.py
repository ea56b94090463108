"""The policy: delays, transient reasons, and Retry-After."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.cases import case_of
from tests.client.reconnect.helpers import refusal
from trioglock import (
    Aborted,
    Backoff,
    ConnectError,
    ConnectFailed,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HandshakeRefused,
    Headers,
    HeartbeatTimeout,
    HookError,
    InvalidHandshake,
    InvalidOption,
    InvalidURL,
    LocalClose,
    OpenTimeout,
    ProtocolViolation,
    ProxyFailed,
    RedirectFailed,
    RemoteClose,
    Stalled,
    TLSFailed,
    disconnect,
    is_transient,
)
from trioglock.retry import retry_after


def lengths(**settings: Any) -> list[float]:
    """The first twelve delays without jitter."""
    return list(itertools.islice(Backoff(jitter="none", **settings).delays(), 12))


def refused(status: int, **headers: str) -> HandshakeFailed:
    return HandshakeFailed(error=refusal(status, **headers))


# Delays.


def test_delays_grow_up_to_the_maximum() -> None:
    """Each is ``multiplier`` times the one before; ``max_attempts`` attempts have one fewer."""
    assert lengths(initial=1, maximum=30, max_attempts=8) == [1, 2, 4, 8, 16, 30, 30]
    assert lengths(initial=2, multiplier=1, max_attempts=4) == [2, 2, 2]
    assert lengths(initial=5, maximum=3, max_attempts=3) == [3, 3]
    assert lengths(max_attempts=1) == []


def test_attempts_without_end() -> None:
    """``max_attempts=None`` continues at the maximum, without overflow after thousands."""
    endless = Backoff(max_attempts=None, jitter="none").delays()
    assert next(itertools.islice(endless, 5000, None)) == 60


def test_full_jitter_draws_between_zero_and_the_whole_length() -> None:
    """Never more than the length, spread over all of it, and the maximum holds."""
    rng = random.Random(1)
    backoff = Backoff(initial=1, maximum=20, max_attempts=8)
    drawn = [list(backoff.delays(rng)) for _ in range(500)]
    for length, delays in zip((1, 2, 4, 8, 16, 20, 20), zip(*drawn, strict=True), strict=True):
        assert 0 <= min(delays) < 0.05 * length
        assert 0.95 * length < max(delays) <= length
        assert 0.45 * length < sum(delays) / len(delays) < 0.55 * length


def test_jitter_is_as_random_as_its_source() -> None:
    """The same seed draws the same delays, and without one two clients differ."""
    backoff = Backoff()
    assert list(backoff.delays(random.Random(7))) == list(backoff.delays(random.Random(7)))
    assert list(backoff.delays()) != list(backoff.delays())


def test_the_defaults() -> None:
    """The defaults are those of the documentation."""
    assert Backoff() == Backoff(
        initial=0.3, maximum=60, multiplier=2, jitter="full",
        max_attempts=10, stable_after=10, retryable=is_transient,
    )  # fmt: skip


BAD: dict[str, list[Any]] = {
    "initial": [0, -1, None, "1", True, float("nan")],
    "maximum": [0, -1, None, "1", float("nan")],
    "multiplier": [0, 0.9, None, "2", float("nan")],
    "jitter": ["half", None, True],
    "max_attempts": [0, -1, 1.5, "3", True],
    "stable_after": [0, -1, None, "1"],
    "retryable": [None, True, "always"],
}


def test_bad_settings_are_refused() -> None:
    """Immediately, with the name of the argument."""
    for name, value in [(name, value) for name, values in BAD.items() for value in values]:
        with case_of(name, value), pytest.raises(InvalidOption, match=name):
            Backoff(**{name: value})


# What is worth another attempt.


TRANSIENT: list[Disconnect] = [
    ConnectionLost(),
    ConnectionLost(error=ConnectionResetError()),
    HeartbeatTimeout(silence=20),
    Stalled(seconds=30),
    HeartbeatTimeout(silence=60, writing=True),
    Stalled(seconds=30),
    ProtocolViolation(code=1002),
    *(RemoteClose(code=code) for code in (1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 4999)),
    *(refused(status) for status in (200, 302, 408, 425, 429, 500, 502, 503, 504)),
    HandshakeFailed(error=ConnectFailed()),
    HandshakeFailed(error=OpenTimeout()),
    HandshakeFailed(error=ProxyFailed()),
    HandshakeFailed(error=OSError()),
]
FINAL: list[Disconnect] = [
    RemoteClose(code=1000),
    LocalClose(),
    LocalClose(code=4000, clean=False),
    Aborted(),
    HookError(error=ValueError()),
    *(refused(status) for status in (400, 401, 403, 404, 407, 409, 410, 426, 451)),
    HandshakeFailed(error=RedirectFailed(HandshakeRefused(302, Headers()), "in circles")),
    HandshakeFailed(error=TLSFailed()),
    HandshakeFailed(error=InvalidHandshake()),
    HandshakeFailed(error=InvalidURL()),
    HandshakeFailed(error=InvalidOption()),
    HandshakeFailed(error=ConnectError()),
    HandshakeFailed(error=ValueError()),
]


def test_is_transient() -> None:
    for reason in TRANSIENT + FINAL:
        with case_of(reason):
            assert is_transient(reason) is (reason in TRANSIENT)


def test_every_reason_has_its_place() -> None:
    """No kind of reason is left out of the two tables."""
    assert {type(reason) for reason in TRANSIENT + FINAL} == {
        getattr(disconnect, name) for name in disconnect.__all__ if name != "Disconnect"
    }


# What the server asks for.


NOW = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("99999999999", 86_400),
        ("9" * 5000, 86_400),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=3), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=300), usegmt=True), 86_400),
        ("Thursday, 29-Feb-24 12:00:30 GMT", 30),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("\xb2", 0),
        ("Thu, 31 Feb 2024 12:00:00 GMT", 0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", 0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Seconds or an HTTP date, at most a day; anything else is ignored."""
    assert retry_after(refused(503, Retry_After=text), NOW.timestamp()) == seconds


def test_retry_after_by_the_clock() -> None:
    """A date is compared with now."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after(refused(429, Retry_After=later)) <= 100


@pytest.mark.parametrize(
    "reason",
    [
        ConnectionLost(),
        RemoteClose(code=1013),
        refused(503),
        HandshakeFailed(error=ConnectFailed()),
    ],
    ids=repr,
)
def test_without_retry_after(reason: Disconnect) -> None:
    """Without the header, or without a refusal, there is nothing to wait for."""
    assert retry_after(reason) == 0
