"""The page of the example live_events in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, example, expect, keep_screenshot
from tests.pubsub.redis_server import RealRedis, find_port

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_events_move_the_page(redis: RealRedis, browser: Any, tmp_path: Path) -> None:
    """A plain PUBLISH appears on the page, also after the server has restarted."""
    live = ("examples/live_events/live_events.py", "--redis", redis.url, "--port", str(find_port()))
    page = browser.new_page(viewport={"width": 800, "height": 600})
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    status, value = page.locator("#status"), page.locator("#value")
    with example(*live) as (server, url):
        page.goto(url)
        expect(status).to_have_text("open")
        redis.publish_plainly("trioglock/visitors", b"41")
        expect(value).to_have_text("41")
        page.click("#hello")
        assert server.stdout is not None
        assert server.stdout.readline() == "from a browser: 'hello from the page'\n"
    expect(status).to_have_text("connecting")
    with example(*live):
        expect(status).to_have_text("open")
        for number in range(40):
            redis.publish_plainly("trioglock/visitors", b"%d" % (50 + number * 7 % 31 - number))
        expect(value).to_have_text("36")
        redis.publish_plainly("trioglock/", "gr\u00fc\u00dfe an alle".encode())
        expect(page.locator("#note")).to_have_text("gr\u00fc\u00dfe an alle")
        keep_screenshot(page, "live_events", tmp_path)
    assert errors == []
    page.close()
