"""docs/fastapi.md: its application runs under Hypercorn and Anycorn, with the client websockets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import trio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.docs.pages import Page

pytestmark = [pytest.mark.docs, pytest.mark.slow]

SECONDS = 300
COMMAND = "hypercorn --worker-class trio --bind 127.0.0.1:8000 shop:app"


def source() -> str:
    """The application, without the variant for Starlette."""
    blocks = Page("docs/fastapi.md").python_blocks()
    return "\n".join([blocks[0], blocks[2]])


def test_the_command_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi: pip install it")
    assert COMMAND in Page("docs/fastapi.md").text
    (tmp_path / "shop.py").write_text(source(), encoding="utf-8")
    arguments = COMMAND.replace(":8000", ":0").split()
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                    break
            else:
                raise AssertionError("".join(lines))
            check_shop(found[1])
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
        assert process.returncode == 0


async def test_the_application_on_anycorn() -> None:
    pytest.importorskip("fastapi", reason="needs fastapi: pip install it")
    anycorn = pytest.importorskip("anycorn", reason="needs anycorn: pip install it")
    names: dict[str, Any] = {}
    exec(source(), names)  # noqa: S102 - our own page
    config, stop = anycorn.Config(), trio.Event()
    config.bind, config.loglevel = ["127.0.0.1:0"], "WARNING"
    start = partial(anycorn.serve, names["app"], config, shutdown_trigger=stop.wait)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            [url] = await nursery.start(start)
            await trio.to_thread.run_sync(check_shop, url.rpartition("/")[2])
            stop.set()


def post(url: str, message: object) -> object:
    request = Request(  # noqa: S310 - always http
        url, json.dumps(message).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=SECONDS) as response:  # noqa: S310
        return json.load(response)


def check_shop(address: str) -> None:
    with (
        connect(f"ws://{address}/live/orders") as orders,
        connect(
            f"ws://{address}/live/reports", origin=Origin("https://shop.example.org")
        ) as reports,
        connect(
            f"ws://{address}/talk", additional_headers={"Authorization": "Bearer secret"}
        ) as talk,
    ):
        assert post(f"http://{address}/orders", {"item": "tea"}) == {"ordered": "tea"}
        assert orders.recv(SECONDS) == '{"item":"tea"}'
        assert post(f"http://{address}/reports", {}) == {}
        assert reports.recv(SECONDS) == "the report is ready"
        talk.send("hello")
        assert talk.recv(SECONDS) == "al: hello"
    for path, origin in (("live/orders", Origin("https://evil.example")), ("talk", None)):
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{address}/{path}", origin=origin).__enter__()
