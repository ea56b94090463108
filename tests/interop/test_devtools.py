"""The Chrome DevTools protocol with Chromium: the example, and the end of the browser."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from shutil import which
from subprocess import PIPE
from typing import Any

import pytest
import trio

from tests.scripts import ROOT, assert_lines, run_python
from trioglock import ConnectionLost, RequestFailed, RequestLost, connect
from trioglock.codecs import JSON

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(which("chromium") is None, reason="needs Chromium"),
]

EXAMPLE = ROOT / "examples" / "devtools.py"


@pytest.fixture
def example(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names in the example; the browser has a profile of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return runpy.run_path(str(EXAMPLE))


async def test_the_example(example: dict[str, Any]) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    done = await run_python(EXAMPLE, seconds=50)
    assert done.code == 0, done.stderr
    assert_lines(
        done.stdout, [r"Page\.frameNavigated", r"a screenshot of \d,\d\d\d,\d\d\d characters.*"]
    )


async def test_the_end_of_the_browser_during_a_request(example: dict[str, Any]) -> None:
    """RequestLost with the reason, in all requests that are waiting."""
    open_page: Callable[[trio.Process], Any] = example["open_page"]
    chromium = await trio.lowlevel.open_process(example["CHROMIUM"].split(), stderr=PIPE)
    lost: list[RequestLost] = []
    try:
        async with connect(await open_page(chromium), codec=JSON(), max_queue=None) as conn:

            async def wait_forever() -> None:
                endless = {"expression": "new Promise(() => {})", "awaitPromise": True}
                with pytest.raises(RequestLost) as caught:
                    await conn.request(
                        {"method": "Runtime.evaluate", "params": endless}, timeout=None
                    )
                lost.append(caught.value)

            with pytest.raises(RequestFailed, match="wasn't found"):
                await conn.request({"method": "No.such"})
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait_forever)
                two = {"expression": "1 + 1"}
                reply = await conn.request({"method": "Runtime.evaluate", "params": two})
                assert reply["result"]["result"]["value"] == 2
                chromium.kill()
    finally:
        chromium.kill()
        await chromium.wait()
        assert chromium.stderr is not None
        await chromium.stderr.aclose()
    assert [type(error.reason) for error in lost] == [ConnectionLost] * 3
