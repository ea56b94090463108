"""The benchmarks run with every server, contender and report. The results are not compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.scripts import ROOT, run_python

for needed in ("picows", "uvloop", "psutil"):
    pytest.importorskip(needed, reason="the extra 'bench' is not installed")

pytestmark = pytest.mark.slow

CASES = ("Receive, 64 B", "Send, 1 KiB", "Echo over TLS, 64 B", "permessage-deflate, receive")


async def run_benchmarks(*arguments: str | Path) -> str:
    """Run the benchmarks without errors or warnings; return the output.

    A run starts about thirty processes, which takes 20 seconds of CPU time. On a busy machine it
    takes much longer. The timeout only ends a run that hangs.
    """
    done = await run_python("-m", "benchmarks", *arguments, seconds=600)
    assert (done.code, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


async def test_a_quick_run_measures_every_contender(tmp_path: Path) -> None:
    """A quick run reports a positive value for every contender."""
    only = [word for case in (*CASES, "connections, 1000", "Idle") for word in ("--only", case)]
    await run_benchmarks("--quick", *only, "--out", tmp_path)
    found = json.loads((tmp_path / "performance.json").read_text())
    assert found["failures"] == []
    tables = {(column["table"], column["column"]): column for column in found["columns"]}
    assert ("Receive", "64 B") in tables
    assert ("Idle connections with a heartbeat", "memory, 10") in tables
    for column in tables.values():
        assert all(None not in values for values in column["rounds"].values()), column
    for label, values in tables["Receive", "64 B"]["rounds"].items():
        assert values[0] > 0, label
    report = (tmp_path / "performance.md").read_text()
    assert "### Acceptance" in report
    assert re.search(r"^\| trioglock, hook \| [\d.]+ ", report, re.MULTILINE)


async def test_list_prints_the_cases(tmp_path: Path) -> None:
    """``--list`` prints every case of the quick run above."""
    names = (await run_benchmarks("--list", "--out", tmp_path)).splitlines()
    for case in CASES:
        assert any(case in name for name in names), case


def test_the_page_has_markers() -> None:
    """docs/performance.md has the markers between which the report is inserted."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert re.search("<!-- results -->.*<!-- end of results -->", page, re.DOTALL)
