"""Router: finding handlers, and errors in their definition."""

from __future__ import annotations

import functools
import inspect
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioglock import InvalidOption, UsageError
from trioglock.routing import DuplicateHandler, Router


def handler(event: Any, state: Any) -> tuple[None, Any]:
    return None, state


def other(event: Any, state: Any) -> tuple[None, Any]:
    return None, state


def test_the_most_specific_handler_gets_the_event() -> None:
    """Exact name, nearest noun, farther noun, fallback."""
    router = Router()
    for pattern in ("*", "a/*", "a/b/*", "a/b/c", "a", "x"):
        router.on(pattern)(functools.partial(handler, pattern))

    def found(name: str) -> str:
        chosen = router.find(name)
        assert isinstance(chosen, functools.partial)
        return str(chosen.args[0])

    assert [found(n) for n in ("a/b/c", "a/b/x", "a/b/c/d", "a/x", "a", "x", "b/c", "", "x/")] == [
        "a/b/c", "a/b/*", "a/b/*", "a/*", "a", "x", "*", "*", "*",
    ]  # fmt: skip


def test_without_a_fallback_unknown_events_are_ignored() -> None:
    """The state stays the same."""
    assert Router().find("no/such")({"event": "no/such"}, 7) == (None, 7)


def test_nested_routers_have_short_names() -> None:
    """The nouns of including routers are prefixed, at any depth."""
    status = Router("status")
    status.on("games")(handler)
    players = Router("players")
    players.on("sign-in")(handler)
    players.fallback(other)
    players.include(status)
    router = Router()
    router.include(players)
    assert dict(router.patterns()) == {
        "players/sign-in": handler,
        "players/*": other,
        "players/status/games": handler,
    }
    assert router.find("players/sign-in") is handler
    assert router.find("players/sign-out") is other
    assert router.find("player") is not other


def test_a_nested_router_works_alone() -> None:
    """Without an outer router or a connection."""
    core = Router("channels")

    @core.on("broadcast")
    def broadcast(event: Any, state: list[str]) -> tuple[None, list[str]]:
        return None, [*state, event["payload"]["message"]]

    event = {"event": "channels/broadcast", "payload": {"message": "hi"}}
    assert broadcast(event, []) == (None, ["hi"])
    assert core.find("channels/broadcast")(event, ["a"]) == (None, ["a", "hi"])


@pytest.mark.parametrize("pattern", ["a/b", "a/*", "*"])
def test_two_handlers_for_one_event_raise(pattern: str) -> None:
    """The error names the event and both handlers; the first one stays."""
    router = Router()
    router.on(pattern)(handler)
    with pytest.raises(DuplicateHandler, match=r"'.+' has two handlers: handler and other"):
        router.on(pattern)(other)
    assert dict(router.patterns()) == {pattern: handler}


@pytest.mark.parametrize("pattern", ["b", "*"])
def test_an_included_router_may_not_overlap(pattern: str) -> None:
    """Then none of its handlers is added, and it still takes handlers."""
    router = Router()
    router.on("a/b")(handler)
    router.on("a/*")(handler)
    nested = Router("a")
    nested.on("fine")(other)
    nested.on(pattern)(other)
    with pytest.raises(DuplicateHandler):
        router.include(nested)
    assert "a/fine" not in dict(router.patterns())
    nested.on("more")(handler)


def test_a_router_in_use_takes_no_handlers() -> None:
    """Neither after include() nor after freeze()."""
    nested, router = Router("a"), Router()
    router.include(nested)
    with pytest.raises(UsageError, match="included in"):
        nested.on("b")(handler)
    router.freeze()
    with pytest.raises(UsageError, match="in use"):
        router.on("c")(handler)
    with pytest.raises(UsageError, match="in use"):
        extra = Router("d")
        extra.on("e")(handler)
        router.include(extra)


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a//b", "*/a", "a*", "a/b*", "**", 3, None])
def test_names_are_checked(name: Any) -> None:
    """The error lists the allowed forms."""
    with pytest.raises(InvalidOption, match=r"noun/"):
        Router().on(name)


def test_arguments_are_checked() -> None:
    """Invalid nouns, handlers and routers raise InvalidOption."""
    for noun in ("a/", "*", "a/*", 3):
        with pytest.raises(InvalidOption, match="noun"):
            Router(noun)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="a handler must be a function"):
        Router().on("a")("nothing")  # type: ignore[type-var]
    router = Router()
    for wrong in (router, "router"):
        with pytest.raises(InvalidOption, match="takes another Router"):
            router.include(wrong)  # type: ignore[arg-type]


def test_async_handlers_are_recognised() -> None:
    """Functions, methods, callables and partials."""

    class Callable:
        async def __call__(self, event: Any, state: Any) -> tuple[None, Any]:
            return None, state

    async def waits(event: Any, state: Any) -> tuple[None, Any]:
        return None, state

    for one in (waits, Callable(), functools.partial(waits), Callable().__call__):
        router = Router()
        router.on("a")(handler)
        assert not router.is_async
        router.on("b/*")(one)
        assert router.is_async
    assert inspect.iscoroutinefunction(waits)


PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(st.sets(st.tuples(PARTS.map("/".join), st.booleans()), max_size=12), PARTS.map("/".join))
@pytest.mark.slow
def test_find_agrees_with_the_definition(defined: set[tuple[str, bool]], name: str) -> None:
    """The longest matching pattern, exact names first, in any order of definition."""
    router = Router()
    patterns = {f"{noun}/*" if star else noun for noun, star in defined}
    for pattern in patterns:
        router.on(pattern)(functools.partial(handler, pattern))
    fits = [p for p in patterns if p == name or (p[-1] == "*" and name.startswith(p[:-1]))]
    found = router.find(name)
    if fits:
        assert isinstance(found, functools.partial)
        assert found.args[0] == max(fits, key=lambda p: (p == name, len(p)))
    else:
        assert found(None, 1) == (None, 1)


def test_long_names_are_cheap() -> None:
    """The cost depends on the patterns, not on the name that the peer chooses."""
    router = Router()
    router.on("a/b/*")(handler)
    router.fallback(other)
    began = time.process_time()
    assert router.find("/" * 1_000_000) is other
    assert router.find("a/b" + "/" * 1_000_000) is handler
    assert time.process_time() - began < 1
