"""Redaction of URLs, headers, subprotocols and texts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import case_of
from tests.strategies import CHARACTERS
from trioglock import Handshake, Headers
from trioglock._redact import (
    MAX_LINE,
    redact_header,
    redact_line,
    redact_query,
    redact_repr,
    redact_subprotocols,
    redact_text,
    redact_url,
    safe_repr,
    safe_str,
    shorten,
    without_secrets,
    without_user_info,
)
from trioglock.options import DialOptions


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://example.org/feed", "wss://example.org/feed"),
        ("wss://al:pw@example.org/feed", "wss://example.org/feed"),
        ("wss://example.org/?token=s3cret&room=7", "wss://example.org/?token=[hidden]&room=[hidden]"),
        ("ws://h/?vsn=2.0.0&a=1", "ws://h/?vsn=2.0.0&a=[hidden]"),
        ("ws://h/?vsn=s3cret&vsn=2.0.0x", "ws://h/?vsn=[hidden]&vsn=[hidden]"),
        ("wss://al:pw@h/?s3cret#frag", "wss://h/?[hidden]#"),
        ("wss://h/?a=b=c&&d=", "wss://h/?a=[hidden]&&[hidden]="),
        ("wss://h/?", "wss://h/?"),
        ("/chat?token=s3cret", "/chat?token=[hidden]"),
        ("wss://h/#access_token=s3cret", "wss://h/#"),
        ("wss://h/?a=1#access_token=s3cret", "wss://h/?a=[hidden]#"),
        # A port is not a password, and an "@" in the path does not end user information.
        ("wss://h:8080/@al", "wss://h:8080/@al"),
        ("wss://[::1]:8080/@al", "wss://[::1]:8080/@al"),
        ("wss://h/@al", "wss://h/@al"),
        ("ws://h:${PORT}/", "ws://h:${PORT}/"),
        ("", ""),
    ],
)  # fmt: skip
def test_urls(url: str, shown: str) -> None:
    """User information is removed, and all values of the query are hidden."""
    assert redact_url(url) == shown
    assert "s3cret" not in redact_query(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://al:s3@cret@h/x", "wss://h/x"),
        ("wss://al:pw/s3cret@h:1/x", "wss://h:1/x"),
        ("wss://al:pw#s3cret@h/x", "wss://h/x"),
        ("wss://al:pw?s3cret@h/x", "wss://h/x"),
        ("1wss://al:s3cret@h", "1wss://h"),
        ("wss:////al:s3cret@h", "wss:////h"),
        ("wss:/al:s3cret@h", "wss:/h"),
        ("//al:s3cret@h", "//h"),
        ("al:s3cret@h:1", "h:1"),
        ("al:s3cret@h://x", "h://x"),
    ],
)
def test_malformed_urls(url: str, shown: str) -> None:
    """User and password are removed despite unescaped characters or a missing scheme."""
    assert redact_url(url) == shown
    assert "s3cret" not in shown
    if url.startswith(("wss://", "1wss://")):
        assert redact_text(f"cannot reach {url} now") == f"cannot reach {shown} now"


SHOWN_HEADERS = [
    ("Authorization", "Bearer s3cret", "[hidden]"),
    ("cookie", "a=s3cret", "[hidden]"),
    ("Set-Cookie", "a=s3cret; Path=/", "[hidden]"),
    ("Proxy-Authorization", "Basic czNjcmV0", "[hidden]"),
    ("X-Api-Key", "s3cret", "[hidden]"),
    ("X-Amz-Security-Token", "s3cret", "[hidden]"),
    ("Location", "https://al:pw@h/?code=s3cret", "https://h/?code=[hidden]"),
    ("Sec-WebSocket-Protocol", "phoenix, base64url.bearer.phx.s3cret", "phoenix, [hidden]"),
    ("Sec-WebSocket-Protocol", "chat, superchat", "chat, superchat"),
    ("Sec-WebSocket-Protocol", "access_token, s3cret", "access_token, [hidden]"),
    ("Sec-WebSocket-Protocol", "chat, s3cret==", "chat, [hidden]"),
    ("Sec-WebSocket-Protocol", "chat, s3cretf86d081884c7d659a2", "chat, [hidden]"),
    ("Sec-WebSocket-Protocol", "v4.base64.channel.k8s.io", "v4.base64.channel.k8s.io"),
    (
        "Sec-WebSocket-Protocol",
        "graphql-transport-ws, wamp.2.msgpack.batched",
        "graphql-transport-ws, wamp.2.msgpack.batched",
    ),
    ("Location", "https://h/cb#access_token=s3cret", "https://h/cb#"),
    ("Location", "cb?code=s3cret", "cb?code=[hidden]"),
    ("Referer", "//al:s3cret@h/cb", "//h/cb"),
    ("Ocp-Apim-Subscription-Key", "s3cret", "[hidden]"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZQ=="),
    ("WWW-Authenticate", 'Bearer realm="x"', 'Bearer realm="x"'),
    ("Date", "Sat, 28 Nov 2026 03:00:00 GMT", "Sat, 28 Nov 2026 03:00:00 GMT"),
]


def test_headers() -> None:
    """The repr of Headers hides the same secrets; the values themselves are unchanged."""
    for name, value, shown in SHOWN_HEADERS:
        with case_of(name, value):
            assert redact_header(name, value) == shown
            headers = Headers({name: value})
            assert repr(headers) == f"Headers({[(name, shown)]!r})"
            assert headers[name] == value


SHOWN_TEXTS = [
    ("nothing to hide: 12 of 34", "nothing to hide: 12 of 34"),
    ("cannot reach wss://al:pw@h/?t=s3cret now", "cannot reach wss://h/?t=[hidden] now"),
    ("(wss://h/?t=s3cret) wss://al:s3cret@h: no", "(wss://h/?t=[hidden]) wss://h: no"),
    ("GET /feed?code=s3cret HTTP/1.1", "GET /feed?code=[hidden] HTTP/1.1"),
    ("GET /feed?t=s3cret, refused", "GET /feed?t=[hidden], refused"),
    ("bad line Set-Cookie: a=s3cret; b=s3cret", "bad line Set-Cookie: [hidden]"),
    ("X-Api-Key: s3cret\nHost: h", "X-Api-Key: [hidden]\nHost: h"),
    ("sent Bearer s3cret-token there", "sent Bearer [hidden] there"),
    ("sent basic czNjcmV0 there", "sent basic [hidden] there"),
    ("{'x': 'Bearer s3cret'}", "{'x': 'Bearer [hidden]'}"),
    ("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyZXQifQ.c2VjcmV0 b", "a [hidden] b"),
    ('{"token": "s3cret", "room": "7"}', '{"token": "[hidden]", "room": "7"}'),
    ('{"token": "a\\"s3cret"}', '{"token": "[hidden]"}'),
    ("{'client_secret': 's3cret'}", "{'client_secret': '[hidden]'}"),
    ('{"token":"s3cre', '{"token":"[hidden]'),
    ('{"user": {"password": "s3cret"}}', '{"user": {"password": "[hidden]"}}'),
    ("", ""),
]


def test_texts() -> None:
    """URLs, request targets, credentials and secret members of JSON are hidden."""
    for text, shown in SHOWN_TEXTS:
        with case_of(text):
            assert redact_text(text) == shown
            assert "s3cret" not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "author: somebody, authored by: somebody",
        'WWW-Authenticate: Basic realm="x", Bearer realm="y"',
        "the basic channel is open, basic: authentication",
        "Bearer token expected",
        '{"max_tokens": 100, "tokens": 7, "authenticated": true, "token": null, "cookie": ""}',
        "{'auth_method': 'none', 'token_type': 'opaque', 'token_expires_in': 3600, 'token': None}",
        '{"type": "session.update", "session": {"modalities": ["text"]}}',
        '["password", "email", "token", "name"]',
        "the secretary tokenizes: yes",
        "wss://h:8080/@al/feed",
        "/help and /topics, not /questions",
    ],
)
def test_texts_without_secrets_are_unchanged(text: str) -> None:
    """Words that only resemble those of secrets do not hide anything."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a_token" * 30_000,
        "-" * 200_000,
        "a-a." * 50_000,
        'token="' + "\\" * 100_000,
        "a://" * 50_000,
        "'\"" * 100_000 + "token='",
        "token: " + " " * 200_000,
        "bearer " * 30_000,
        "/" * 200_000,
        "eyJ." * 50_000,
    ],
)
def test_redaction_takes_linear_time(text: str) -> None:
    """A long text from a peer must not block the event loop."""
    began = time.process_time()
    redact_text(text)
    redact_subprotocols(text)
    for of_address in (redact_url, without_secrets, without_user_info):
        of_address(text)
    assert time.process_time() - began < 2


def test_lines() -> None:
    """Control characters are escaped and the length is limited."""
    assert redact_line("a\nb\x1b[31m ws://h/?t=x") == "a\\nb\\x1b[31m ws://h/?t=[hidden]"
    forged = "\0\r\x85\x9b\u061c\u200b\u2028\u2029\u202e\u2066\ufeff\ud800\U000e0041"
    assert redact_line(forged).isascii()
    assert redact_line(forged).isprintable()
    assert redact_line("x" * 5000) == f"{'x' * MAX_LINE}... (5000 characters)"
    assert len(redact_line("\0" * 5000)) < MAX_LINE + 30


def test_long_values_are_shortened() -> None:
    """The beginning is shown, with the total length."""
    assert shorten("x" * 100) == f"{'x' * 80!r}... (100 characters)"
    assert shorten(b"x" * 100) == f"{b'x' * 80!r}... (100 bytes)"
    assert shorten(["x" * 300]) == f"{['x' * 300]!r:.160}..."
    assert shorten('{"token": "' + "s3cret" * 20) == '\'{"token": "[hidden]\'... (131 characters)'


@pytest.mark.parametrize("secret", ["wss://al:s3cret-s3cret@h/", '{"token":"s3cret"}'])
def test_secrets_at_the_end_of_a_shortened_text(secret: str) -> None:
    """A secret stays hidden if the text is cut inside it."""
    for length in range(330):
        text = "-" * length + " " + secret + " " + "-" * 1000
        assert "s3" not in shorten(text)
        assert "s3" not in shorten(text.encode())


class Odd(str):
    """A str whose methods raise."""

    def partition(self, *_: object) -> Any:
        raise AssertionError

    __getitem__ = __repr__ = __str__ = split = rpartition = isprintable = partition  # type: ignore[assignment]


class Nameless:
    def __repr__(self) -> str:
        raise LookupError("s3cret")


class Silent(Nameless):
    def __call__(self) -> None: ...


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("s3cret")


def test_redaction_does_not_raise() -> None:
    """Lone surrogates, and values whose methods raise, are handled."""
    surrogates = "wss://\ud800:\udfff@h/?\ud800=\udfff"
    for text in (surrogates, Odd("wss://al:s3cret@h/?token=s3cret")):
        for of_text in (redact_text, redact_line, redact_url):
            assert "s3cret" not in of_text(text)
        redact_query(text)
        redact_subprotocols(text)
        assert "s3cret" not in shorten(text)
    assert shorten(Nameless()) == "<Nameless whose repr raises LookupError>"
    assert safe_repr(Nameless()) == "<Nameless whose repr raises LookupError>"
    assert safe_str(Mute()) == "<Mute whose str raises LookupError>"
    nameless: Any = Silent()
    odd: Any = b"wss://al:s3cret@h/?token=s3cret"
    assert "s3cret" not in repr(Handshake(url=odd))
    assert "Silent whose repr" in redact_repr(DialOptions(stream=nameless))


def test_reprs_of_values_with_subprotocols() -> None:
    """A token among the offered or negotiated subprotocols is hidden."""
    token = "base64url.bearer.s3cret"
    assert "s3cret" not in repr(DialOptions(subprotocols=("chat", token)))
    assert "'chat'" in repr(DialOptions(subprotocols=("chat", token)))
    assert "s3cret" not in repr(Handshake(url="ws://h/", subprotocol=token))


@pytest.mark.slow
@given(st.text(CHARACTERS), st.text(CHARACTERS))
def test_redaction_is_idempotent(before: str, behind: str) -> None:
    """Redacting a redacted text changes nothing."""
    text = f"{before} wss://al:s3cret@h/?token=s3cret {{'password': 's3cret'}} {behind}"
    once = redact_text(text)
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "connected to ws://h/socket/websocket?vsn=2.0.0",
        "joined secret:lobby: {}",
        'the server refused to join \'secret:1\': {"reason": "full"}',
        '["3","3","token:1","shout",{}]',
    ],
)
def test_fault_35_what_is_public_is_shown(text: str) -> None:
    """The version of the Phoenix protocol, and topics whose names look like those of secrets."""
    assert redact_text(text) == text
