"""What may be shown: nothing of a query, no user, no value whose name tells that it is secret."""

from __future__ import annotations

import time

import pytest

from trioglock import Headers
from trioglock.redaction import (
    redact_header,
    redact_line,
    redact_query,
    redact_text,
    redact_url,
    shorten,
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://example.org/feed", "wss://example.org/feed"),
        ("wss://al:pw@example.org/feed", "wss://example.org/feed"),
        ("wss://example.org/?token=s3cret&room=7", "wss://example.org/?token=[hidden]&room=[hidden]"),
        ("wss://al:pw@h/?s3cret#frag", "wss://h/?[hidden]#"),
        ("wss://h/?a=b=c&&d=", "wss://h/?a=[hidden]&&[hidden]="),
        ("wss://h/?", "wss://h/?"),
        ("/chat?token=s3cret", "/chat?token=[hidden]"),
        ("", ""),
    ],
)  # fmt: skip
def test_of_an_address_only_names_are_shown(url: str, shown: str) -> None:
    """Whatever the parameter is called: any of them may be a token."""
    assert redact_url(url) == shown
    assert "s3cret" not in redact_query(url)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Bearer s3cret", "[hidden]"),
        ("cookie", "a=s3cret", "[hidden]"),
        ("Set-Cookie", "a=s3cret; Path=/", "[hidden]"),
        ("Proxy-Authorization", "Basic czNjcmV0", "[hidden]"),
        ("X-Api-Key", "s3cret", "[hidden]"),
        ("X-Amz-Security-Token", "s3cret", "[hidden]"),
        ("Location", "https://al:pw@h/?code=s3cret", "https://h/?code=[hidden]"),
        ("Sec-WebSocket-Protocol", "phoenix, base64url.bearer.phx.s3cret", "phoenix, [hidden]"),
        ("Sec-WebSocket-Protocol", "chat, superchat", "chat, superchat"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZQ=="),
        ("WWW-Authenticate", 'Bearer realm="x"', 'Bearer realm="x"'),
        ("Date", "Sat, 28 Nov 2026 03:00:00 GMT", "Sat, 28 Nov 2026 03:00:00 GMT"),
    ],
)
def test_headers(name: str, value: str, shown: str) -> None:
    """Those whose names tell are hidden, also in the repr of all; the value itself is there."""
    assert redact_header(name, value) == shown
    headers = Headers({name: value})
    assert repr(headers) == f"Headers({[(name, shown)]!r})"
    assert headers[name] == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing to hide: 12 of 34", "nothing to hide: 12 of 34"),
        ('{"token": "s3cret", "room": "7"}', '{"token": "[hidden]", "room": "7"}'),
        ('{"token": "a\\"s3cret"}', '{"token": "[hidden]"}'),
        ("{'client_secret': 's3cret'}", "{'client_secret': '[hidden]'}"),
        ('{"token":"s3cre', '{"token":"[hidden]'),
        ('\'{"user": {"password": "s3cret"}}\'', '\'{"user": {"password": "[hidden]"}}\''),
        ('"{\\"token\\": \\"s3cret\\"}"', '"{\\"token\\": \\"[hidden]"}"'),
        ("access_token=s3cret&a=1", "access_token=[hidden]&a=1"),
        ("Cookie: a=s3cret; b=s3cret", "Cookie: [hidden]"),
        ("Authorization: Digest nonce=s3cret", "Authorization: [hidden]"),
        ("sent Bearer s3cret-token there", "sent Bearer [hidden] there"),
        ("cannot reach wss://al:pw@h/?t=s3cret now", "cannot reach wss://h/?t=[hidden] now"),
        ("author: somebody", "author: somebody"),
        ("password:", "password:"),
        ("", ""),
    ],
)
def test_texts(text: str, shown: str) -> None:
    """Errors of other libraries, messages, reprs: the values behind telling names are hidden."""
    assert redact_text(text) == shown
    assert "s3cret" not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "a_token" * 30_000,
        "-" * 200_000,
        "a-a." * 50_000,
        'token="' + "\\" * 100_000,
        "a://" * 50_000,
        "token:" * 40_000,
        "'\"" * 100_000 + "token='",
        "token: " + " " * 200_000,
        "bearer " * 30_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """What a peer says is looked at once: the time grows with the length, not with its square."""
    began = time.perf_counter()
    redact_text(text)
    assert time.perf_counter() - began < 1


def test_a_line_is_a_line() -> None:
    """Controls are escaped, so that a peer's words cannot forge one."""
    assert redact_line("a\nb\x1b[31m token=x") == "a\\nb\\x1b[31m token=[hidden]"


def test_what_is_long_is_shortened() -> None:
    """The beginning, and how long it is; cut before, so that nothing large is built."""
    assert shorten("x" * 100) == f"{'x' * 80!r}... (100 characters)"
    assert shorten(b"x" * 100) == f"{b'x' * 80!r}... (100 bytes)"
    assert shorten(["x" * 300]) == f"{['x' * 300]!r:.160}..."
    assert shorten('{"token": "' + "s3cret" * 20) == '\'{"token": "[hidden]... (131 characters)'
