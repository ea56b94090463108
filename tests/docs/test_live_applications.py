"""The last steps of the tutorial about live applications: two processes with Redis."""

from __future__ import annotations

import re
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.cli.serving import serve_in_process
from tests.docs.pages import Page
from tests.pubsub.conftest import redis
from tests.pubsub.redis_server import RealRedis
from trioglock.protocols import phoenix

__all__ = ["redis"]

pytestmark = [pytest.mark.docs, pytest.mark.slow, pytest.mark.redis]


def write_files(folder: Path, url: str) -> None:
    """Write the files of the tutorial, with the hub of its last step."""
    blocks = re.findall(r"```python\n(.*?)```", Page("docs/live-applications.md").text, re.DOTALL)
    named = [re.fullmatch(r"# (\w+\.py)\n(.*)", block, re.DOTALL) for block in blocks]
    files = {found[1]: found[2] for found in named if found}
    [hub] = [block for block in blocks if "RedisBroker" in block]
    files["chat.py"] = files["chat.py"].replace("hub = Hub()\n", hub)
    assert set(files) == {"chat.py", "notify.py"}
    for name, text in files.items():
        (folder / name).write_text(text.replace("redis://localhost:6379", url))


async def test_two_processes_share_messages_and_presence(
    redis: RealRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, redis.url)
    env = {"PYTHONPATH": str(tmp_path)}
    async with (
        serve_in_process("chat:channels", **env) as (_, first),
        serve_in_process("chat:channels", **env) as (_, second),
        phoenix.connect(f"ws://{first}/socket", params={"token": "token-1"}) as one,
        phoenix.connect(f"ws://{second}/socket", params={"token": "token-2"}) as two,
    ):
        online = phoenix.Presence()
        al = await one.join("room:garden", presence=online)
        bo = await two.join("room:garden", presence=phoenix.Presence())
        while online.list(lambda name, entry: name) != ["al", "bo"]:
            await trio.sleep(0.01)
        await al.push("say", {"text": "hello"})
        said = ("said", {"from": "al", "text": "hello"})
        assert await al.receive() == await bo.receive() == said
        script = str(tmp_path / "notify.py")
        monkeypatch.setattr(sys, "argv", [script, "soup"])
        await trio.to_thread.run_sync(partial(runpy.run_path, script, run_name="__main__"))
        said = ("said", {"from": "notify.py", "text": "soup"})
        assert await al.receive() == await bo.receive() == said
        await bo.leave()
        while online.list(lambda name, entry: name) != ["al"]:
            await trio.sleep(0.01)
