"""What every test relies on."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the machine must not send loopback traffic to a proxy."""
    for name in (
        "http_proxy",
        "https_proxy",
        "ws_proxy",
        "wss_proxy",
        "all_proxy",
        "socks_proxy",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind() -> Iterator[None]:
    """Collect garbage after every module: a leaked socket warns, and a warning fails.

    What remains is not examined again, which would take longer after each module.
    """
    yield
    gc.collect()
    gc.freeze()
