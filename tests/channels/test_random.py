"""At random: clients, plain and async hooks that fail and wait, and connections that end."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from trioglock.channels import Answer, Broadcast, Channel, JoinRefused, Push, Stop
from trioglock.errors import ConnectionClosed

TOPICS = ("plain:1", "async:1", "async:1", "async:2", "nope:1")


class Boom(Exception):
    """Raised by hooks on purpose."""


class Log:
    """What has happened on the server."""

    def __init__(self) -> None:
        self.joined: list[Any] = []
        self.ended: list[Any] = []
        self.running = Counter[Any]()


class Plain(Channel[int]):
    """Does what the payload says."""

    intercept = ("intercepted",)
    log: Log

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        match payload["do"]:
            case "raise":
                raise Boom
            case "stop":
                raise JoinRefused({})
            case "cast":
                self.cast({"do": "push"})
        self.log.joined.append(self)
        return {}, 0

    def handle_in(self, event: str, payload: Any, state: int) -> Any:
        return self.act(payload, state)

    def act(self, payload: Any, state: int) -> Any:
        assert self.log.running[self] == 0
        match payload["do"]:
            case "raise":
                raise Boom
            case "stop":
                return Stop(), state
            case "cast":
                self.cast({"do": payload["then"], "then": "push"})
                return None, state + 1
            case "push":
                return Push("hello", {}), state + 1
            case "broadcast":
                return Broadcast(payload["event"], {}, to_self=payload["to_self"]), state + 1
        return Answer("ok", {"n": state}), state + 1

    def handle_cast(self, message: Any, state: int) -> Any:
        return (None, state) if message["do"] in ("answer", "wait") else self.act(message, state)

    def terminate(self, reason: Any, state: int) -> Any:
        self.log.ended.append(self)


class Later(Plain):
    """The same, but every hook waits first."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(payload.get("seconds", 0))
        return super().join(topic, payload, user)

    async def handle_in(self, event: str, payload: Any, state: int) -> Any:
        self.log.running[self] += 1
        assert self.log.running[self] == 1
        try:
            await trio.sleep(payload.get("seconds", 0))
        finally:
            self.log.running[self] -= 1
        return self.act(payload, state)

    async def handle_out(self, event: str, payload: Any, state: int) -> Any:
        await trio.sleep(0.1)
        return Push(event, payload), state

    async def terminate(self, reason: Any, state: int) -> Any:
        self.log.ended.append(self)
        await trio.sleep(0.5)


class Client:
    """A client that follows the protocol, and checks what it receives."""

    def __init__(self, raw: RawPhoenix) -> None:
        self.raw = raw
        self.next_ref = 0
        self.asked: dict[str, str] = {}
        self.replies = Counter[str]()
        self.current: dict[str, str] = {}
        self.joined: dict[str, str] = {}

    async def ask(self, topic: str, event: str, payload: Any, join_ref: str | None = None) -> None:
        self.next_ref += 1
        ref = str(self.next_ref)
        self.asked[ref] = event
        if event == "phx_join":
            self.current[topic] = join_ref = ref
            self.joined.pop(topic, None)
        await self.raw.send(join_ref, ref, topic, event, payload)

    async def listen(self) -> None:
        try:
            while True:
                self.take(*await self.raw.receive())
        except ConnectionClosed:
            pass

    def take(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        if event == "phx_reply":
            self.replies[ref] += 1
            assert self.replies[ref] == 1
            joins = self.asked[ref] == "phx_join" and ref == self.current[topic]
            if joins and payload["status"] == "ok":
                self.joined[topic] = ref
        elif event in ("phx_close", "phx_error"):
            assert ref == join_ref
            if self.joined.get(topic) == join_ref:
                del self.joined[topic]
        elif ref is None and join_ref is not None and event == "hello":
            # A push follows the reply to its join, and comes before the end.
            assert self.joined.get(topic) == join_ref or self.current[topic] != join_ref


ACTIONS = ("join",) * 4 + ("push",) * 8 + ("stale", "leave", "heartbeat", "server", "sleep")
RESULTS = ("answer",) * 4 + ("cast", "push", "broadcast", "raise", "stop")
ENDINGS = ("close", "abort", "server", "disconnect", "malformed")


def make_script(random: Random) -> list[tuple[int, str, str, Any]]:
    """Return actions: the client, what it does, the topic and the payload."""
    return [
        (
            random.randrange(2),
            random.choice(ACTIONS),
            random.choice(TOPICS),
            {
                "do": random.choice(RESULTS),
                "then": random.choice(RESULTS),
                "event": random.choice(["shout", "intercepted"]),
                "to_self": random.random() < 0.5,
                "seconds": random.choice([0, 0.2, 3, 3]),
            },
        )
        for _ in range(60)
    ]


async def act(site: ChannelsSite, client: Client, action: str, topic: str, payload: Any) -> None:
    match action:
        case "join":
            await client.ask(topic, "phx_join", payload)
        case "push":
            await client.ask(topic, "x", payload, client.current.get(topic))
        case "stale":
            await client.ask(topic, "x", payload, "0")
        case "leave":
            await client.ask(topic, "phx_leave", {}, client.current.get(topic, "0"))
        case "heartbeat":
            await client.ask("phoenix", "heartbeat", {})
        case "server":
            await site.channels.broadcast(topic, payload["event"], {})
        case "sleep":
            await trio.sleep(payload["seconds"])


async def end(site: ChannelsSite, clients: list[Client], ending: str) -> None:
    match ending:
        case "close":
            await clients[0].raw.connection.aclose()
        case "abort":
            for client in clients:
                client.raw.connection.abort()
        case "server":
            site.server.close()
        case "disconnect":
            await site.channels.disconnect("user")
        case "malformed":
            await clients[0].raw.connection.send("{")


def check_agreement(site: ChannelsSite, clients: list[Client]) -> None:
    for client in clients:
        asked = {ref for ref, event in client.asked.items() if event == "phx_join"}
        assert asked <= set(client.replies)
    topics = site.channels._index._topics.values()
    members = [member for topic in topics for member in topic.members]
    server = Counter((member.join.topic, member.join.join_ref) for member in members)
    assert server == Counter(pair for client in clients for pair in client.joined.items())


async def run(script: list[Any], ending: str, quiet: bool) -> None:
    log = Log()
    routes: dict[str, type[Channel[Any]]] = {
        "plain:*": type("Plain", (Plain,), {"log": log}),
        "async:*": type("Later", (Later,), {"log": log}),
    }
    async with (
        serving_channels(routes, id=lambda user: "user", max_topics=2) as site,
        trio.open_nursery() as nursery,
    ):
        async with site.dial() as one, site.dial() as two:
            clients = [Client(one), Client(two)]
            for client in clients:
                nursery.start_soon(client.listen)
            for number, *action in script:
                await act(site, clients[number], *action)
            if quiet:
                await trio.sleep(1000)
                check_agreement(site, clients)
            await end(site, clients, ending)
        await trio.sleep(100)
        assert Counter(log.joined) == Counter(log.ended)
        assert max(Counter(log.ended).values(), default=1) == 1
        assert site.channels.hub.statistics().subscribers == 0
        assert not site.server.connections


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_each_join_terminates_once_and_both_sides_agree_about_what_is_joined(seed: int) -> None:
    random = Random(seed)
    script, ending, quiet = make_script(random), random.choice(ENDINGS), random.random() < 0.5
    trio.run(partial(run, script, ending, quiet), clock=MockClock(autojump_threshold=0))
