"""The callback interface: ``run()`` and its callbacks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.protocols.clock import MOCK_CLOCK, REAL_CLOCK
from tests.protocols.phoenix.helpers import KINDS, Log, Recorder, transport_of, until
from trioglock import (
    BadHookResult,
    CallTimeout,
    ConnectFailed,
    ConnectionLost,
    EncodeError,
    HandshakeFailed,
    InvalidOption,
    MemoryTransport,
    OpenTimeout,
    RemoteClose,
    Stop,
    UsageError,
)
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import (
    AlreadyJoined,
    BufferFull,
    ChannelClient,
    ClientHandle,
    Connect,
    DeferredReply,
    Disconnected,
    NotJoined,
)
from trioglock.testing import MockPhoenixServer

pytestmark = MOCK_CLOCK


@asynccontextmanager
async def running(
    server: MockPhoenixServer, client: ChannelClient[Any] | None = None, **options: Any
) -> AsyncIterator[ClientHandle[Any]]:
    """A running client, stopped at the end."""
    if server.url.startswith("ws://memory"):
        options["stream"] = server.open_stream
    async with trio.open_nursery() as nursery:
        start = partial(phoenix.run, server.url, client or Recorder(), **options)
        handle: ClientHandle[Any] = await nursery.start(start)
        yield handle
        handle.stop()


async def join(handle: ClientHandle[Any]) -> None:
    """Connect, and join ``room:1``."""
    await until(handle, "connected")
    await handle.call(lambda t: t.join("room:1"))
    await until(handle, "joined")


@REAL_CLOCK
@pytest.mark.parametrize("kind", KINDS)
async def test_events_call_the_callbacks_in_order(kind: str) -> None:
    """Text and binary messages, over each transport."""
    memory = kind == "memory"
    options: dict[str, Any] = {} if memory else {"transport": transport_of(kind)}
    with trio.fail_after(300):
        async with MockPhoenixServer(memory=memory) as server, running(server, **options) as handle:
            await until(handle, "connected")
            await handle.call(lambda t: t.join("room:1", {"name": "al"}))
            await until(handle, "message")
            ref = await handle.call(lambda t: t.push("room:1", "echo", {"a": 1}))
            binary = await handle.call(lambda t: t.push("room:1", "echo", b"\x01\x00"))
            await until(handle, "reply", 2)
            await server.broadcast("room:1", "shout", b"\xcc")
            await until(handle, "message", 2)
            left = await handle.call(lambda t: t.leave("room:1"))
            await until(handle, "closed")
            await handle.call(lambda t: t.join("room:forbidden"))
            await until(handle, "join error")
            assert handle.connected
    assert handle.state == [
        ("connected",),
        ("joined", "room:1", {"welcome": "room:1"}),
        ("message", "room:1", "hello", {"topic": "room:1"}),
        ("reply", "room:1", ref, "ok", {"a": 1}),
        ("reply", "room:1", binary, "ok", b"\x01\x00"),
        ("message", "room:1", "shout", b"\xcc"),
        ("reply", "room:1", left, "ok", {}),
        ("closed", "room:1", {}),
        ("join error", "room:forbidden", {"reason": "unauthorized"}),
    ]


async def test_connect_false_waits_for_connect() -> None:
    """A cast or the handle connects; a second Connect() has no effect."""
    async with (
        MockPhoenixServer(memory=True) as server,
        running(server, connect=False) as handle,
    ):
        await trio.sleep(100)
        assert (server.peers, handle.connected) == ([], False)
        for call in (lambda t: t.join("room:1"), lambda t: t.push("room:1", "x")):
            with pytest.raises(Disconnected):
                await handle.call(call)
        handle.cast(lambda _: Connect(delay=5))
        handle.connect()
        await until(handle, "connected")
        handle.connect()
        await trio.sleep(10)
        assert len(server.peers) == 1
        assert handle.state == [("cast",), ("connected",)]


async def test_invalid_calls_raise_immediately() -> None:
    """Nothing is sent."""
    cases: list[tuple[Callable[[Any], Any], type[Exception]]] = [
        (lambda t: t.push("room:2", "x"), NotJoined),
        (lambda t: t.leave("room:2"), NotJoined),
        (lambda t: t.join("room:1"), AlreadyJoined),
        (lambda t: t.push("room:1", "x", object()), EncodeError),
        (lambda t: t.join("room:2", object()), EncodeError),
        (lambda t: t.push("room:1", "e" * 256, b""), phoenix.InvalidMessage),
        (lambda t: t.push("room:1", ""), InvalidOption),
        (lambda t: t.join("phoenix"), InvalidOption),
        (lambda t: (t.join("room:3"), t.push("room:3", "x")), NotJoined),
    ]
    async with MockPhoenixServer(memory=True) as server, running(server) as handle:
        await join(handle)
        for call, error in cases:
            with pytest.raises(error):
                await handle.call(call)
        await until(handle, "joined", 2)
        client = await server.client()
        assert {m.event for m in client.received} == {"phx_join"}


async def test_closed_channels_can_be_joined_again() -> None:
    """They are not joined again automatically."""
    async with MockPhoenixServer(memory=True) as server, running(server) as handle:
        await until(handle, "connected")
        for number, event in enumerate(("stop", "no such event"), 1):
            await handle.call(lambda t: t.join("room:1"))
            await until(handle, "joined", number)
            await handle.call(lambda t, event=event: t.push("room:1", event))
            await until(handle, "closed", number)
        await trio.sleep(100)
        closed = [entry for entry in handle.state if entry[0] == "closed"]
        assert closed == [
            ("closed", "room:1", {}),
            ("closed", "room:1", {"reason": "channel_crash"}),
        ]


async def test_a_push_without_a_reply_times_out() -> None:
    """A later reply is ignored."""
    async with MockPhoenixServer(memory=True) as server, running(server, timeout=5) as handle:
        await join(handle)
        ref = await handle.call(lambda t: t.push("room:1", "silent"))
        await until(handle, "timeout")
        assert trio.current_time() >= 5
        assert handle.state[-1] == ("timeout", "room:1", ref)
        client = await server.client()
        await client.channels["room:1"].reply(ref, "ok", {})
        await trio.sleep(1)
        assert handle.ignored == 1


async def test_a_lost_connection_is_reported_once() -> None:
    """No callback is called for its channels and pushes; topics must be joined again."""

    class Back(Recorder):
        async def handle_disconnected(self, reason: Any, state: Log) -> Any:
            return Connect(delay=3), [*state, ("disconnected", type(reason))]

    async with MockPhoenixServer(memory=True) as server, running(server, Back()) as handle:
        await join(handle)
        await handle.call(lambda t: t.push("room:1", "silent"))
        began = trio.current_time()
        await server.kill()
        await until(handle, "connected", 2)
        assert trio.current_time() - began >= 3
        with pytest.raises(NotJoined):
            await handle.call(lambda t: t.push("room:1", "x"))
        await server.disconnect(1001)
        await until(handle, "connected", 3)
        names = [entry[0] for entry in handle.state]
        assert "closed" not in names
        assert "timeout" not in names
        reasons = [entry[1] for entry in handle.state if entry[0] == "disconnected"]
        assert reasons == [ConnectionLost, RemoteClose]


async def test_a_failed_attempt_is_reported() -> None:
    """The reason contains the error, and Connect(params=...) changes the params."""
    reasons: list[Any] = []

    class Persistent(Recorder):
        async def handle_disconnected(self, reason: Any, state: Log) -> Any:
            reasons.append(reason)
            return Connect(params={"token": len(reasons)}), state

    async with (
        MockPhoenixServer(memory=True, authorize=lambda p, _: p.get("token") == "2") as server,
        running(server, Persistent()) as handle,
    ):
        await until(handle, "connected")
    assert [type(reason) for reason in reasons[:2]] == [HandshakeFailed] * 2

    with trio.fail_after(300):
        async with MockPhoenixServer() as gone:
            url = gone.url
        recorder = Recorder()
        async with trio.open_nursery() as nursery:
            handle = await nursery.start(partial(phoenix.run, url, recorder))
            await until(handle, "disconnected")
            handle.stop()
    assert handle.state == [("disconnected", HandshakeFailed)]
    assert issubclass(ConnectFailed, OSError)


async def test_stop_closes_the_connection_and_run_returns_the_state() -> None:

    class Once(ChannelClient[int]):
        def init(self) -> int:
            return 1

        def handle_connected(self, transport: Any, state: int) -> Any:
            transport.join("room:1")
            return None, state + 1

        def handle_joined(self, topic: str, response: Any, transport: Any, state: int) -> Any:
            return Stop(), state + 1

    async with MockPhoenixServer(memory=True) as server:
        assert await phoenix.run(server.url, Once(), stream=server.open_stream) == 3
        await trio.testing.wait_all_tasks_blocked()
        closed = server.past_clients[0].peer.closed
        assert closed is not None
        assert closed.code == 1000


async def test_an_exception_of_a_callback_ends_the_client() -> None:
    """It is not wrapped in a group; the Close code is 1011; pending calls raise Disconnected."""

    class Broken(Recorder):
        def handle_joined(self, topic: str, response: Any, transport: Any, state: Log) -> Any:
            raise LookupError("mine")

    async with MockPhoenixServer(memory=True) as server:

        async def fails(task_status: Any) -> None:
            with pytest.raises(LookupError, match="mine"):
                await phoenix.run(
                    server.url, Broken(), stream=server.open_stream, task_status=task_status
                )

        async with trio.open_nursery() as nursery:
            handle: ClientHandle[Any] = await nursery.start(fails)
            await until(handle, "connected")
            await handle.call(lambda t: t.join("room:1"))
            with pytest.raises(Disconnected):
                while True:
                    await handle.call(lambda t: None)
        await trio.testing.wait_all_tasks_blocked()
        closed = server.past_clients[0].peer.closed
        assert closed is not None
        assert closed.code == 1011
        with pytest.raises(Disconnected):
            handle.cast(1)
        with pytest.raises(Disconnected):
            handle.connect()
        handle.stop()


@pytest.mark.parametrize("returned", [None, "x", (1, 2), (None,), (Connect, [])])
async def test_invalid_results_are_rejected(returned: Any) -> None:
    """The error lists the allowed results."""

    class Wrong(Recorder):
        def handle_connected(self, transport: Any, state: Log) -> Any:
            return returned

    async with MockPhoenixServer(memory=True) as server:
        with pytest.raises(BadHookResult, match=r"must return|result must be None, Connect"):
            await phoenix.run(server.url, Wrong(), stream=server.open_stream)


@pytest.mark.parametrize("result", [Connect(), Stop()])
async def test_fault_33_a_result_in_place_of_the_state(result: Any) -> None:
    """The error shows the order, even if the state is None."""

    class Wrong(phoenix.ChannelClient[Any]):
        def handle_connected(self, transport: Any, state: Any) -> Any:
            return state, result

    async with MockPhoenixServer(memory=True) as server:
        with pytest.raises(BadHookResult, match=r"a tuple \(result, state\), in this order"):
            await phoenix.run(server.url, Wrong(), stream=server.open_stream)


async def test_invalid_calls_and_casts() -> None:
    """Without a callback, inside one, too slow, and invalid options."""

    class Selfish(Recorder):
        handle: Any = None

        async def handle_call(self, request: Any, transport: Any, state: Log) -> Any:
            if request == "sleep":
                await trio.sleep(10)
            if request == "self":
                await self.handle.call("x")
            return request, None, [*state, ("called", request)]

    selfish = Selfish()
    async with (
        MockPhoenixServer(memory=True) as server,
        running(server, selfish, connect=False) as handle,
        running(server, ChannelClient(), connect=False) as bare,
    ):
        selfish.handle = handle
        assert await handle.call("x") == "x"
        with pytest.raises(CallTimeout):
            await handle.call("sleep", timeout=1)
        with pytest.raises(UsageError):
            await handle.call("self")
        with pytest.raises(UsageError):
            bare.cast(1)
        with pytest.raises(UsageError):
            await bare.call(1)
        assert bare.state is None
    bad: list[tuple[Any, dict[str, Any]]] = [
        (Recorder, {}),
        (7, {}),
        (Recorder(), {"reconnect": True}),
        (Recorder(), {"timeout": 0}),
        (Recorder(), {"params": 7}),
    ]
    for client, options in bad:
        with pytest.raises(InvalidOption):
            await phoenix.run("ws://example.org/socket", client, **options)
    with pytest.raises(InvalidOption):
        Connect(delay=-1)


async def test_an_exception_of_a_params_function_ends_the_client() -> None:

    def params() -> Any:
        raise KeyError("no params")

    async with MockPhoenixServer(memory=True) as server:
        with pytest.raises(KeyError):
            await phoenix.run(server.url, Recorder(), params=params, stream=server.open_stream)


async def test_cancelling_leaves_nothing_behind() -> None:
    async with MockPhoenixServer(memory=True) as server:
        with trio.move_on_after(5) as scope:
            await phoenix.run(server.url, Recorder(), stream=server.open_stream)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert server.clients == []


async def test_all_callbacks_have_defaults() -> None:
    """Malformed messages are counted and reach no callback."""

    class Silent(ChannelClient[None]):
        def handle_call(self, request: Any, transport: Any, state: None) -> Any:
            return request(transport), state

    async with (
        MockPhoenixServer(memory=True) as server,
        running(server, Silent(), timeout=1) as handle,
    ):
        client = await server.client()
        await trio.testing.wait_all_tasks_blocked()
        for topic in ("room:1", "room:2", "room:forbidden"):
            await handle.call(lambda t, topic=topic: t.join(topic))
        await trio.testing.wait_all_tasks_blocked()
        for event in ("echo", "silent", "stop"):
            await handle.call(lambda t, event=event: t.push("room:1", event))
        await client.send("nonsense")
        await trio.sleep(2)
        assert handle.ignored == 1
        assert await handle.call(lambda t: t.connected)
        await handle.call(lambda t: t.leave("room:2"))
        await server.kill()
        await trio.sleep(1)
        assert not handle.connected
        assert handle.state is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_keyboard_interrupt_is_not_wrapped(error: BaseException) -> None:
    """Python does not recognize it inside a group."""

    class Leaver(phoenix.ChannelClient[None]):
        def handle_connected(self, transport: Any, state: None) -> Any:
            raise error

    async with MockPhoenixServer(memory=True) as server:
        with pytest.raises(type(error)):
            await phoenix.run(server.url, Leaver(), stream=server.open_stream)


async def test_stop_works_with_a_full_mailbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting casts are discarded."""
    monkeypatch.setattr("trioglock.connection.actor.MAX_PENDING", 1000)

    class Counter(phoenix.ChannelClient[int]):
        def init(self) -> int:
            return 0

        def handle_cast(self, message: Any, transport: Any, state: int) -> Any:
            return None, state + 1

    ended: list[int] = []
    async with trio.open_nursery() as nursery:

        async def live(*, task_status: Any) -> None:
            ended.append(
                await phoenix.run("ws://x", Counter(), connect=False, task_status=task_status)
            )

        handle = await nursery.start(live)
        with pytest.raises(trio.WouldBlock):
            while True:
                handle.cast("one more")
        handle.stop()
    assert ended[0] <= 1


async def test_a_push_before_stop_is_sent() -> None:
    class LastWords(ChannelClient[None]):
        def handle_connected(self, transport: Any, state: None) -> Any:
            transport.join("room:1")
            return None, state

        def handle_joined(self, topic: str, response: Any, transport: Any, state: None) -> Any:
            transport.push(topic, "echo", "last")
            return Stop(), state

    async with MockPhoenixServer(memory=True) as server:
        await phoenix.run(server.url, LastWords(), stream=server.open_stream)
        await trio.testing.wait_all_tasks_blocked()
        assert [m.payload for m in server.past_clients[0].received] == [{}, "last"]


async def test_open_timeout_limits_the_attempt_and_not_the_wait_for_it() -> None:
    reasons: list[Any] = []

    class Waiting(Recorder):
        def handle_disconnected(self, reason: Any, state: Log) -> Any:
            reasons.append((trio.current_time(), type(reason.error)))
            return None, [*state, ("disconnected",)]

    async with MockPhoenixServer(memory=True) as server:
        hangs = [True, False]

        async def params() -> dict[str, Any]:
            if hangs.pop(0):
                await trio.sleep_forever()
            return {}

        async with running(
            server, Waiting(), connect=False, params=params, open_timeout=5
        ) as handle:
            await trio.sleep(100)
            began = trio.current_time()
            handle.connect()
            await until(handle, "disconnected")
            assert reasons == [(began + 5, OpenTimeout)]
            await trio.sleep(100)
            handle.connect(Connect(delay=10))
            await until(handle, "connected")
            assert trio.current_time() >= began + 115


async def test_stop_does_not_wait_for_a_hanging_callback() -> None:
    """At most for ``close_timeout``."""

    class Hanging(Recorder):
        async def handle_connected(self, transport: Any, state: Log) -> Any:
            await trio.sleep_forever()

    async with MockPhoenixServer(memory=True) as server:
        began = trio.current_time()
        async with running(server, Hanging(), close_timeout=3):
            await server.client()
            await trio.sleep(1)
        assert trio.current_time() - began <= 1 + 3 + 3


async def test_a_server_that_does_not_read_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Casts are refused, calls wait, and a callback cannot send without limit."""

    def push(transport: Any) -> None:
        transport.push("room:1", "x", "x" * 1000)

    def push_without_end(transport: Any) -> None:
        while True:
            push(transport)

    transport = MemoryTransport(capacity=1)
    async with trio.open_nursery() as nursery:
        run = partial(phoenix.run, "ws://memory.test/", Recorder(), transport=transport)
        handle: ClientHandle[Any] = await nursery.start(run)
        server = await transport.accept()
        await until(handle, "connected")
        await handle.call(lambda t: t.join("room:1"))
        await server.receive()
        await server.write(['["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]'])
        await until(handle, "joined")

        casts = 0
        with pytest.raises(trio.WouldBlock):
            while True:
                handle.cast(push)
                casts += 1
                await trio.testing.wait_all_tasks_blocked()
        queue = handle._hooks.send_queue
        size = queue.size
        assert casts < 80
        assert 2**16 <= size < 2**16 + 1100
        with pytest.raises(CallTimeout):
            await handle.call(push, timeout=1)
        assert queue.size == size

        done: list[Any] = []

        async def call() -> None:
            done.append(await handle.call(lambda t: t.push("room:1", "x")))

        nursery.start_soon(call)
        await trio.sleep(1)
        assert not done
        while not done:
            await server.receive()
        await server.aclose()
        await until(handle, "disconnected")

        handle.connect()
        server = await transport.accept()
        await until(handle, "connected", 2)
        await handle.call(lambda t: t.join("room:1"))
        joins: Any = await server.receive()
        ref = json.loads(joins[0][0])[1]
        reply = {"response": {}, "status": "ok"}
        await server.write([json.dumps([ref, ref, "room:1", "phx_reply", reply])])
        await until(handle, "joined", 2)
        monkeypatch.setattr("trioglock.protocols.phoenix.callbacks.MAX_UNSENT", 500)
        with pytest.raises(BufferFull, match="500 messages are already waiting"):
            await handle.call(push_without_end)
        assert 400 < len(queue) <= 500  # the rest is being written
        handle.stop()


# What phoenix_gen_socket_client has.


async def test_fault_64_a_call_may_be_answered_later() -> None:
    """By a callback or another task; not after its timeout, and not after the end."""
    given: list[DeferredReply] = []

    class Later(Recorder):
        def handle_call(self, request: Any, transport: Any, state: Log) -> Any:
            given.append(DeferredReply())
            return given[-1], state

        def handle_cast(self, message: Any, transport: Any, state: Log) -> Any:
            given[-1].set(message)
            return None, state

    results: list[Any] = []

    async def call(handle: ClientHandle[Any]) -> None:
        try:
            results.append(await handle.call("x", timeout=100))
        except Exception as error:
            results.append(error)

    async def answer(handle: ClientHandle[Any], *how: Callable[[], None]) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, handle)
            await trio.testing.wait_all_tasks_blocked()
            for one in how:
                one()
        return results[-1]

    async with MockPhoenixServer(memory=True) as server, running(server, Later()) as handle:
        await until(handle, "connected")
        assert await answer(handle, lambda: handle.cast(1)) == 1
        assert await answer(handle, lambda: given[-1].set(2), lambda: given[-1].set(3)) == 2
        failure = KeyError("no")
        assert await answer(handle, lambda: given[-1].fail(failure)) is failure
        with pytest.raises(CallTimeout):
            await handle.call("x", timeout=1)
        given[-1].set("too late")
        await server.kill()
        await until(handle, "disconnected")
        handle.connect()
        await until(handle, "connected", 2)
        assert isinstance(await answer(handle, handle.stop), Disconnected)
        with pytest.raises(Disconnected):
            await handle.call("x")


async def test_fault_64_refs_and_replies_of_joins_and_leaves() -> None:
    """The reply of a leave comes before the end of its channel; its payload is sent."""
    async with MockPhoenixServer(memory=True) as server, running(server) as handle:
        await until(handle, "connected")
        assert await handle.call(lambda t: t.join("room:1")) == "1"
        assert not handle.joined("room:1")
        await until(handle, "joined")
        assert handle.joined("room:1")
        assert await handle.call(lambda t: t.joined("room:1"))
        assert not handle.joined("room:2")
        with pytest.raises(EncodeError):
            await handle.call(lambda t: t.leave("room:1", {1}))
        assert await handle.call(lambda t: t.leave("room:1", {"why": "bye"})) == "2"
        assert not handle.joined("room:1")
        await until(handle, "closed")
        assert handle.state[-2:] == [
            ("reply", "room:1", "2", "ok", {}),
            ("closed", "room:1", {}),
        ]
        client = await server.client()
        assert client.received[-1].payload == {"why": "bye"}
        assert handle.ignored == 0


@pytest.mark.parametrize("end", ["stop", "cancel", "exception", "never connected", "refused"])
async def test_fault_64_terminate_is_called_once_at_the_end(end: str) -> None:
    ended: list[Any] = []

    class Ending(Recorder):
        def handle_joined(self, *_: Any) -> Any:
            if end == "exception":
                raise KeyError(end)
            return Stop(), [("last",)]

        def handle_disconnected(self, reason: Any, state: Log) -> Any:
            return Stop(), [("last",)]

        def handle_connected(self, transport: Any, state: Log) -> Any:
            if end != "cancel":
                transport.join("room:1")
            return None, state

        async def terminate(self, reason: Any, state: Log) -> None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            ended.append((type(reason).__name__, state))

    async with MockPhoenixServer(memory=True) as server:
        if end == "refused":
            server.reject(403)
        run = partial(
            phoenix.run,
            server.url,
            Ending(),
            stream=server.open_stream,
            connect=end != "never connected",
        )
        if end == "exception":
            with pytest.raises(KeyError):
                await run()
        else:
            with trio.move_on_after(5):
                await run()
    [(reason, state)] = ended
    reasons = {"stop": "LocalClose", "exception": "HookError", "refused": "HandshakeFailed"}
    assert reason == reasons.get(end, "Aborted")
    assert (state == [("last",)]) == (end in ("stop", "refused"))
