"""OpenTelemetry: spans and metrics of live connections, as the SDK's exporters get them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from trio.testing import MockClock

from tests.hooks.helpers import linked
from tests.scripts import run_python
from tests.telemetry.helpers import Collected
from trioglock import (
    Backoff,
    Close,
    Connection,
    HandshakeRefused,
    MemoryListener,
    MemoryTransport,
    Socket,
    connect,
    serve,
)
from trioglock.asgi import WebSocketApp
from trioglock.telemetry.opentelemetry import instrument
from trioglock.testing import MockServer, echo


async def test_spans_of_a_client(collected: Collected, autojump_clock: MockClock) -> None:
    """An attempt is an HTTP GET; a link lasts until its end. No secrets are recorded."""
    with collected.instrument():
        async with MockServer(echo, memory=True) as server:
            url = server.url.replace("ws://", "ws://al:s3cret@") + "feed?token=s3cret"
            tracer = collected.tracers.get_tracer("test")
            with tracer.start_as_current_span("outer") as outer:
                async with connect(url, stream=server.open_stream, ping_interval=None):
                    await trio.sleep(2)
    handshake, link, _ = collected.spans
    address = {"server.address": "memory.test", "server.port": 80, "url.scheme": "ws"}
    host = handshake.attributes["server.address"] if handshake.attributes else None
    address["server.address"] = str(host)
    assert (handshake.name, handshake.kind) == ("GET", SpanKind.CLIENT)
    assert handshake.attributes == address | {
        "http.request.method": "GET",
        "http.request.resend_count": 0,
        "http.response.status_code": 101,
        "url.full": f"ws://{host}/feed?token=[hidden]",
    }
    assert (link.name, link.kind) == ("websocket", SpanKind.CLIENT)
    assert link.attributes is not None
    assert (
        link.attributes.items()
        >= {
            **address,
            "network.protocol.name": "websocket",
            "trioglock.connection.upgrade": 1,
            "trioglock.close.code": 1000,
        }.items()
    )
    for span in (handshake, link):
        assert span.parent is not None
        assert span.parent.span_id == outer.get_span_context().span_id
        assert span.status.status_code is StatusCode.UNSET
        assert "s3cret" not in span.to_json()


async def test_a_refused_attempt(collected: Collected, autojump_clock: MockClock) -> None:
    """The error type is the status, as the HTTP conventions require."""
    with collected.instrument():
        async with MockServer(memory=True) as server:
            server.reject(403)
            with pytest.raises(HandshakeRefused):
                async with connect(server.url, stream=server.open_stream):
                    pass
    [span] = collected.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "403"
    assert span.attributes["http.response.status_code"] == 403
    [event] = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "HandshakeRefused"
    [point] = collected.metrics()["http.client.request.duration"]
    assert point.attributes["error.type"] == "403"


@pytest.mark.parametrize("code", [1000, 1001, 1005, 4000])
async def test_fault_32_a_normal_close_is_no_error(
    code: int, collected: Collected, autojump_clock: MockClock
) -> None:
    """The span of a link that the peer closes without a code has no error."""
    with collected.instrument():
        async with linked() as (conn, far):
            await far.write([Close(code)])
            await far.send_eof()
            await conn.wait_closed()
    link = collected.spans[-1]
    expected = StatusCode.ERROR if code == 4000 else StatusCode.UNSET
    assert link.status.status_code is expected
    assert link.attributes is not None
    assert link.attributes["trioglock.close.code"] == code


async def test_other_events_are_events_of_the_span(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """An exception of a hook, and an end with an error."""

    class Failing(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            raise LookupError("no ws://h/?token=s3cret")

    with collected.instrument(), pytest.raises(LookupError):
        async with linked(Failing()) as (conn, far):
            await far.write(["x"])
            await conn.wait_closed()
    link = collected.spans[-1]
    [event] = link.events
    assert event.attributes == {
        "exception.type": "LookupError",
        "exception.message": "no ws://h/?token=[hidden]",
        "error.type": "LookupError",
        "trioglock.hook": f"{Failing.__qualname__}.handle_receive".rpartition("<locals>.")[2],
    }
    assert link.status.status_code is StatusCode.ERROR
    assert link.attributes is not None
    assert link.attributes["error.type"] == "HookError"


async def test_metrics_of_a_client(collected: Collected, autojump_clock: MockClock) -> None:
    """Attempts, open connections, durations, reconnects, drops, waits and frames."""
    transport = MemoryTransport()
    transport.refuse_next(OSError("nobody there"))
    policy = Backoff(initial=2, jitter="none")
    with collected.instrument(frames=True):
        async with connect(
            "wss://h/?t=1", transport=transport, reconnect=policy, ping_interval=None,
            max_queue=1, overflow="drop_oldest",
        ) as conn:  # fmt: skip
            far = await transport.accept()
            await conn.send("héllo")
            await far.write(["1", "2"])
            await trio.testing.wait_all_tasks_blocked()
            [now] = collected.metrics()["http.client.open_connections"]
            assert (now.value, now.attributes["http.connection.state"]) == (1, "active")
            await trio.sleep(20)
            conn.abort()
    found = collected.metrics()
    address = {"server.address": "h", "server.port": 443, "url.scheme": "wss"}
    handshakes = found["http.client.request.duration"]
    errors = {point.attributes.get("error.type"): point.count for point in handshakes}
    assert errors == {"OSError": 1, None: 1}
    assert [p.value for p in found["http.client.open_connections"]] == [0]
    [life] = found["http.client.connection.duration"]
    assert (life.count, life.sum, life.attributes) == (1, 20.0, address)
    assert [p.value for p in found["trioglock.reconnects"]] == [1]
    assert [p.value for p in found["trioglock.messages.dropped"]] == [1]
    sent, received = sorted(
        found["trioglock.io"], key=lambda p: p.attributes["trioglock.direction"] != "sent"
    )
    assert sent.value == len("héllo".encode())
    assert received.value == 2
    assert {p.attributes["trioglock.direction"]: p.value for p in found["trioglock.messages"]} == {
        "sent": 1,
        "received": 2,
    }


async def test_spans_and_metrics_of_a_server(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """Its connections are active requests, with spans of the kind SERVER."""

    async def handler(conn: Connection[Any]) -> None:
        await conn.wait_closed()

    listener = MemoryListener()
    with collected.instrument():
        async with (
            serve(handler, listeners=[listener]),
            connect("ws://h/", stream=listener.open_stream),
        ):
            await trio.testing.wait_all_tasks_blocked()
            [now] = collected.metrics()["http.server.active_requests"]
            assert now.value == 1
    assert SpanKind.SERVER in {span.kind for span in collected.spans}
    [now] = collected.metrics()["http.server.active_requests"]
    assert now.value == 0
    assert "trioglock.server.connection.duration" in collected.metrics()


@pytest.mark.parametrize("end", ["cancelled", "interrupted", "cut off by the server"])
async def test_every_link_ends(end: str, collected: Collected, autojump_clock: MockClock) -> None:
    """No span stays open, and no connection stays counted."""

    async def handler(conn: Connection[Any]) -> None:
        await trio.sleep_forever()

    listener = MemoryListener()
    instrumentation = collected.instrument()
    with trio.CancelScope() as outside:
        try:
            async with (
                serve(handler, listeners=[listener]) as server,
                connect("ws://h/", stream=listener.open_stream) as conn,
            ):
                await trio.testing.wait_all_tasks_blocked()
                if end == "cancelled":
                    outside.cancel()
                elif end == "interrupted":
                    raise KeyboardInterrupt
                server.abort()
                await conn.wait_closed()
        except KeyboardInterrupt:
            pass
    found = collected.metrics()
    for name in ("http.client.open_connections", "http.server.active_requests"):
        assert [point.value for point in found[name]] == [0]
    assert sorted(span.name for span in collected.spans) == ["GET", "websocket", "websocket"]
    instrumentation.stop()
    assert len(collected.spans) == 3


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("h:99999", 400),
        ("[::::]", 400),
        ("[1.2.3]", 400),
        ("h:", 101),
        ("h", 101),
        (f"{'x' * 300}:1", 101),
    ],
)
async def test_an_unusual_host_header(
    host: str,
    status: int,
    collected: Collected,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does not stop the listener, and does not create a time series."""
    listener = MemoryListener()
    with collected.instrument(frames=True):
        async with serve(wait_closed, listeners=[listener]):
            assert await opening_status(listener, host) == status
            assert await opening_status(listener, "other") == 101
    assert not [record for record in caplog.records if record.name == "trioglock.telemetry"]
    accepted = 2 if status == 101 else 1
    assert [span.name for span in collected.spans] == ["websocket"] * accepted
    check_no_addresses(collected)


@pytest.mark.parametrize("host", ["h:99999", "[::::]", "[1.2.3]"])
async def test_an_invalid_host_header(
    host: str, collected: Collected, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An ASGI server may pass it on; the address of the server is recorded instead."""
    events: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return events.pop(0)

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", host.encode())]}
    with collected.instrument(frames=True):
        await WebSocketApp(wait_closed)({**scope, "subprotocols": []}, receive, send)
    assert not [record for record in caplog.records if record.name == "trioglock.telemetry"]
    [span] = collected.spans
    assert span.name == "websocket"
    assert (span.attributes or {})["server.address"] == "localhost"
    check_no_addresses(collected)


async def wait_closed(conn: Connection[Any]) -> None:
    """A handler."""
    await conn.wait_closed()


async def opening_status(listener: MemoryListener, host: str) -> int:
    """The status of the response to an opening handshake with this Host header."""
    stream = await listener.open_stream()
    head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    await stream.send_all(f"GET / HTTP/1.1\r\nHost: {host}\r\n{head}{key}\r\n".encode())
    status = int((await stream.receive_some()).split()[1])
    await stream.aclose()
    return status


def check_no_addresses(collected: Collected) -> None:
    """No time series has the Host header of a client, and no connection is counted as open."""
    found = collected.metrics()
    [point] = found["http.server.active_requests"]
    assert point.value == 0
    for points in found.values():
        for one in points:
            assert "server.address" not in one.attributes


async def test_attributes_contain_no_tokens(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """Nor text of unlimited length."""

    class Failing(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            raise Mute(frame)

    class Mute(Exception):
        def __str__(self) -> str:
            return "x" * 10_000 if self.args == ("long",) else str(1 // 0)

    transport = MemoryTransport(subprotocol="base64url.bearer.s3cret")
    for text in ("long", "none"):
        with collected.instrument(), pytest.raises(Mute):
            async with connect("ws://h/", Failing(), transport=transport) as conn:
                await (await transport.accept()).write([text])
                await conn.wait_closed()
    assert len(collected.spans) == 4
    for span in collected.spans:
        assert "s3cret" not in span.to_json()
        assert len(span.to_json()) < 4000
    assert "whose str raises ZeroDivisionError" in collected.spans[-1].to_json()


async def test_two_instrumentations_are_independent(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """Both record everything until they are stopped."""
    outer = collected.instrument()
    with collected.instrument():
        async with linked():
            outer.stop()
    assert sorted(span.name for span in collected.spans) == ["GET", "GET", "websocket", "websocket"]
    assert [p.value for p in collected.metrics()["http.client.open_connections"]] == [0]


async def test_stopping_ends_open_spans(collected: Collected, autojump_clock: MockClock) -> None:
    """Links from before the start are not counted below zero."""
    async with linked():
        with collected.instrument():
            async with linked():
                pass
        instrumentation = collected.instrument()
        async with linked():
            instrumentation.stop()
            instrumentation.stop()
            assert [span.name for span in collected.spans] == ["GET", "websocket"] * 2
    with collected.instrument():
        pass
    async with linked() as (conn, _):
        with collected.instrument():
            conn.abort()
            await conn.wait_closed()
    assert [p.value for p in collected.metrics()["http.client.open_connections"]] == [0]


async def test_a_cancelled_attempt_ends_its_span(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """It has neither failed nor succeeded."""

    async def hanging() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with collected.instrument(), trio.move_on_after(1):
        async with connect("ws://h/", stream=hanging):
            pass
    [span] = collected.spans
    assert span.attributes is not None
    assert span.attributes["error.type"] == "cancelled"


async def test_the_global_providers_are_the_default(autojump_clock: MockClock) -> None:
    """Without an SDK they have no effect."""
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    with instrument():
        async with linked() as (conn, far):
            await far.write([Close(1000)])
            await trio.testing.wait_all_tasks_blocked()
            await far.send_eof()
            await conn.wait_closed()


@pytest.mark.slow
async def test_the_import_error_without_the_extra() -> None:
    """It says what to install."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None; import trioglock.telemetry.opentelemetry"
    )
    done = await run_python("-c", program)
    assert done.stderr.endswith("needs: pip install 'trioglock[opentelemetry]'\n")
