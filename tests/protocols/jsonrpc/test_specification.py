"""The examples in section 7 of the specification of JSON-RPC 2.0, as seen by a foreign client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from trioglock import MemoryListener, connect, serve
from trioglock.protocols.jsonrpc import Peer

DONE = '{"jsonrpc": "2.0", "method": "done", "id": "done"}'
"""A last request, whose response shows that nothing else was sent before it."""


def subtract(minuend: int, subtrahend: int) -> int:
    return minuend - subtrahend


async def sum_of(*numbers: int) -> int:
    return sum(numbers)


def get_data() -> list[Any]:
    return ["hello", 5]


def nothing(*values: object) -> None:
    """A method whose result does not matter."""


METHODS = {
    "subtract": subtract,
    "sum": sum_of,
    "get_data": get_data,
    "update": nothing,
    "notify_sum": nothing,
    "notify_hello": nothing,
    "done": nothing,
}

PARSE_ERROR = {"code": -32700, "message": "Parse error"}
INVALID = {
    "jsonrpc": "2.0",
    "error": {"code": -32600, "message": "Invalid Request"},
    "id": None,
}


def result(value: Any, call_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": call_id}


def error(code: int, message: str, call_id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": call_id}


EXAMPLES: list[tuple[str, Any]] = [
    # Positional parameters.
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(19, 1)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(-19, 2)),
    # Named parameters.
    (
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42},'
            ' "id": 3}'
        ),
        result(19, 3),
    ),
    (
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23},'
            ' "id": 4}'
        ),
        result(19, 4),
    ),
    # Notifications.
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    # A method that does not exist.
    (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        error(-32601, "Method not found", "1"),
    ),
    # Invalid JSON, and an invalid request.
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(-32700, "Parse error")),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    # Batches.
    (
        (
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
            ' {"jsonrpc": "2.0", "method"'
        ),
        error(-32700, "Parse error"),
    ),
    ("[]", INVALID),
    ("[1]", [INVALID]),
    ("[1,2,3]", [INVALID, INVALID, INVALID]),
    (
        (
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
            ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
            ' {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
            ' {"foo": "boo"},'
            ' {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
            ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]'
        ),
        [
            result(7, "1"),
            result(19, "2"),
            INVALID,
            error(-32601, "Method not found", "5"),
            result(["hello", 5], "9"),
        ],
    ),
    (
        (
            '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
            ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]'
        ),
        None,
    ),
]


def in_any_order(message: Any) -> Any:
    """Responses of a batch may come in any order (section 6)."""
    return sorted(message, key=json.dumps) if isinstance(message, list) else message


@pytest.mark.parametrize(("sent", "expected"), EXAMPLES)
async def test_example(autojump_clock: MockClock, sent: str, expected: Any) -> None:
    listener = MemoryListener()
    async with (
        serve(lambda: Peer(METHODS), listeners=[listener]),
        connect("ws://h/", stream=listener.open_stream) as conn,
    ):
        await conn.send(sent)
        await conn.send(DONE)
        answers = [json.loads(await conn.receive())]
        if expected is not None:
            answers.append(json.loads(await conn.receive()))
    answers.remove(result(None, "done"))
    assert [in_any_order(one) for one in answers] == (
        [] if expected is None else [in_any_order(expected)]
    )
