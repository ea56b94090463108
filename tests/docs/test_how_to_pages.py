"""The pages for contributors: their steps name what exists, and their changes work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import Page
from tests.scripts import ROOT, run_python

pytestmark = pytest.mark.docs

PAGES = ["adding-a-codec", "adding-an-overflow-policy", "adding-a-transport"]

POLICY = """
import trio, trio.testing
from trioglock import MemoryTransport, connect
from trioglock.connection.subscriptions.updates import make_updates_queue

async def main():
    transport = MemoryTransport()
    async with connect(
        "ws://memory.test/", transport=transport, max_queue=3, overflow="drop_waiting"
    ) as conn:
        peer = await transport.accept()
        for number in "01234":
            await peer.write([number])
            await trio.testing.wait_all_tasks_blocked()
        print(await conn.receive_batch(), conn.statistics().dropped)
        queue = make_updates_queue(["a"], 3, "drop_waiting", conn._session.emitter)
        for number in "01234":
            queue.add(number)
        print(list(queue.items), queue.dropped)
        conn.abort()

trio.run(main)
"""


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("name", PAGES)
def test_every_step_names_what_exists(name: str) -> None:
    steps = Page(f"docs/{name}.md").rows("Adding it to trioglock")
    if name == "adding-an-overflow-policy":
        for _, names, decision in steps:
            first, file = spans(names)
            text = (ROOT / file).read_text(encoding="utf-8")
            assert {word for word in [first, *spans(decision)] if word not in text} == set()
        steps = [row for row in all_rows(Page(f"docs/{name}.md").text) if row[0].isdecimal()]
    assert len(steps) == 8
    for _, where, what in steps:
        [file] = spans(where)
        text = (ROOT / file).read_text(encoding="utf-8")
        for word in spans(what):
            assert word in text or (ROOT / word).exists(), (file, word)


def all_rows(text: str) -> list[list[str]]:
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_contributing_links_to_every_page() -> None:
    assert {f"docs/{name}.md" for name in PAGES} <= set(Page("CONTRIBUTING.md").links())


@pytest.mark.slow
async def test_the_changes_for_a_policy_work(tmp_path: Path) -> None:
    """The diffs apply to a copy of the package, and the new policy does what the page says."""
    # With the compiled files, which stay valid: the copies keep their times.
    shutil.copytree(ROOT / "trioglock", tmp_path / "trioglock")
    text = Page("docs/adding-an-overflow-policy.md").text
    for block in re.finditer(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        name = re.findall(r"[Ii]n\s+`(trioglock/[\w/.]+)`", text[: block.start()])[-1]
        apply(block[1], tmp_path / name)
    done = await run_python("-c", POLICY, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "['3', '4'] 3",
        "[Gap(seconds=0.0, channel='a'), '3', '4'] 3",
    ]


def apply(diff: str, path: Path) -> None:
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    after = "".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"the diff does not fit {path.name}"
    path.write_text(text.replace(before, after), encoding="utf-8")
