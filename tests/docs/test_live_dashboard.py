"""docs/live-dashboard.md: from a Flask application through Redis to a page in Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.browser import browser, expect
from tests.docs.pages import Page
from tests.pubsub.redis_server import real_redis
from tests.threads import open_in_thread
from trioglock.pubsub import Hub, RedisBroker

__all__ = ["browser"]

pytestmark = [pytest.mark.docs, pytest.mark.browser, pytest.mark.redis, pytest.mark.slow]


def test_from_flask_to_a_page(browser: Any) -> None:
    """A page that opens later begins with the current numbers; all pages see the next ones."""
    pytest.importorskip("flask", reason="needs flask: pip install it")
    names: dict[str, Any] = {"__name__": "dashboard"}
    for source in Page("docs/live-dashboard.md").python_blocks()[:2]:
        exec(source, names)  # noqa: S102 - the project's own documentation
    with real_redis() as redis:
        names["REDIS"] = redis.url
        shop = names["app"].test_client()

        @asynccontextmanager
        async def dashboard() -> AsyncIterator[int]:
            broker = RedisBroker(redis.url, history=1, history_seconds=None)
            async with (
                Hub(broker=broker) as hub,
                names["serve_dashboard"](hub, "127.0.0.1", 0) as server,
            ):
                yield server.port

        for _ in range(2):
            assert shop.post("/orders").status_code == 200
        with open_in_thread(dashboard) as port:
            pages = [browser.new_page() for _ in range(2)]
            for page in pages:
                page.goto(f"http://127.0.0.1:{port}/")
                expect(page.locator("#orders")).to_have_text("2")
            assert shop.post("/orders").json == {"orders": 3}
            for page in pages:
                expect(page.locator("#orders")).to_have_text("3")
                expect(page.locator("#state")).to_have_text("open")
                page.close()
