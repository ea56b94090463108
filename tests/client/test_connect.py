"""The arguments of connect() that are no options of a connection.

The options are in ``tests/test_options.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.hooks.helpers import URL
from trioglock import InvalidOption, MemoryTransport, Socket, connect


class NotCalled(Socket[None]):
    pass


BAD: dict[str, Any] = {
    "socket": [NotCalled, object(), "socket", 1],
    "transport": [MemoryTransport, 1],
    "stream": [1, object()],
    "name": [1, b"x"],
    "reconnect": [None, 3, "yes"],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_bad_arguments_are_refused_at_the_call(option: str, value: Any) -> None:
    """Not on entering the block, and with the name of the option."""
    with pytest.raises(InvalidOption, match=option):
        connect(URL, **{option: value})


def test_a_class_in_place_of_an_instance_is_told_how_to_write_it() -> None:
    """The most common mistake gets the correct line of code."""
    with pytest.raises(InvalidOption, match=r"write NotCalled\(\)"):
        connect(URL, NotCalled)  # type: ignore[arg-type]
