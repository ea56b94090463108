"""The benchmarks run with every server, contender and report. The results are not compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import which

import pytest

from benchmarks.__main__ import main
from benchmarks.acceptance import limits
from benchmarks.case import BASELINE, COMPILED, Case
from benchmarks.cases import all_cases, build_entry
from benchmarks.channels_cases import JOINING, PUSHING
from benchmarks.hub_cases import REPLAYING, STORES
from benchmarks.report import insert_reports, lost_goals
from benchmarks.results import Results
from benchmarks.rounds import Effort
from tests.scripts import ROOT, run_python

for needed in ("picows", "uvloop", "psutil", "trustme"):
    pytest.importorskip(needed, reason="the group 'bench' is not installed")

# One of each kind. `nox -s bench -- --quick` runs all of them.
CASES = ("Receive, 64 B", "CPU per push", "channel without")
# All that need no Node.js.
CONTENDERS = ("raw", "trioglock*", "trio-websocket", "websockets*", "aiohttp*", "picows*")

EFFORT = Effort(rounds=1, seconds=1, max_messages=1, max_connections=1, max_window=1)

# A broadcast that takes much longer.
SLOW_BROADCAST = """
import time
from trioglock.server import Server
broadcast = Server.broadcast
def slow_broadcast(self, frame):
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    return broadcast(self, frame)
Server.broadcast = slow_broadcast
"""


async def run_benchmarks(*arguments: str | Path) -> str:
    """Run the benchmarks without errors or warnings; return the output.

    A run starts dozens of processes, which takes half a minute of CPU time. On a busy machine it
    takes much longer. The timeout only ends a run that hangs.
    """
    done = await run_python("-m", "benchmarks", *arguments, seconds=900)
    assert (done.code, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
async def test_a_quick_run_measures_every_contender(tmp_path: Path) -> None:
    """A quick run reports a value for every contender: clients, servers, channels and hubs.

    Those of Node.js are not measured.
    """
    only = [word for case in CASES for word in ("--only", case)]
    contenders = [word for contender in CONTENDERS for word in ("--contender", contender)]
    await run_benchmarks("--quick", *only, *contenders, "--out", tmp_path)
    found = json.loads((tmp_path / "performance.json").read_text())
    hub = ["trioglock_hub"] if which("redis-server") is None else []
    assert (found["failures"], list(found["missing"])) == ([], hub)
    tables = {column["table"]: column["rounds"] for column in found["columns"]}
    assert len(tables["Receive"]) == 13
    for title, rounds in tables.items():
        if not (hub and title.startswith("Hub: ")):
            assert all(None not in values for values in rounds.values()), (title, rounds)
    for label, values in tables["Receive"].items():
        assert values[0] > 0, label
    assert "trioglock, channels" in tables["Channels: CPU per push and its reply, 64 B"]
    assert any(title.startswith("Hub: ") for title in tables)
    report = (tmp_path / "performance.md").read_text()
    assert "### Acceptance" in report
    assert "baseline" not in report.partition("### Acceptance")[0]
    assert re.search(r"^\| trioglock, hook \| [\d.]+ ", report, re.MULTILINE)


@pytest.mark.slow
async def test_a_run_compares_with_a_baseline(tmp_path: Path) -> None:
    """``--baseline`` imports trioglock from another directory, and reports the ratios."""
    package = tmp_path / "older" / "trioglock"
    package.mkdir(parents=True)
    path = str(ROOT / "trioglock")
    package.joinpath("__init__.py").write_text(
        f"__path__ = [{path!r}]\nexec(open({path + '/__init__.py'!r}).read())\n{SLOW_BROADCAST}"
    )
    selected = ("--only", "Server: CPU per delivery", "--contender", "server.broadcast")
    await run_benchmarks("--quick", *selected, "--baseline", tmp_path / "older", "--out", tmp_path)
    report = (tmp_path / "performance.md").read_text()
    rows = report.partition("### Compared with the baseline")[2].partition("### Acc")[0]
    ratio = re.search(
        r"CPU per delivery.*, 256 B \| trioglock, server.broadcast \| ([\d.]+) ", rows
    )
    assert ratio is not None, report
    assert float(ratio[1]) < 0.5, rows


def test_a_baseline_must_contain_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory without the package is refused, not replaced by the installed package."""
    with pytest.raises(SystemExit) as exited:
        main(["--baseline", str(tmp_path)])
    assert exited.value.code == 2
    assert "there is no package trioglock in" in capsys.readouterr().err


def test_list_prints_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """``--list`` prints the cases of a group, as a run would measure them."""
    assert main(["--list", "--group", "server"]) == 0
    servers = capsys.readouterr().out.splitlines()
    assert all(name.startswith("Server: ") for name in servers)
    assert "Server: CPU per echo of 64 B, 100 over TLS" in servers


def test_limits_refer_to_measured_values() -> None:
    """Every limit compares entries that a run measures in the same column."""
    labels = {name: _labels(case) for case in all_cases() for name in case.names}
    for limit in limits():
        measured = labels[f"{limit.group}, {limit.column}"]
        assert {limit.ours, limit.theirs or limit.ours} <= measured, limit


def _labels(case: Case) -> set[str]:
    builds = [build_entry(entry, b) for entry in case.entries for b in (BASELINE, COMPILED)]
    return {entry.label for entry in (*case.entries, *builds) if entry is not None}


def test_the_labels_of_a_column_differ() -> None:
    """Two cases never fill the same row of the same column."""
    cells = [(name, e.label) for case in all_cases() for name in case.names for e in case.entries]
    assert len(cells) == len(set(cells))


def test_the_page_has_markers() -> None:
    """docs/performance.md has the markers between which the reports are inserted."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in ("results", "results of channels", "results of hubs"):
        assert re.search(f"<!-- {name} -->.*<!-- end of {name} -->", page, re.DOTALL)


def test_a_report_replaces_only_what_was_measured(tmp_path: Path) -> None:
    """A run of the channels or hub cases leaves the other results on the page."""
    page = tmp_path / "page.md"
    sections = ("results", "results of hubs", "results of channels")
    page.write_text("".join(f"<!-- {name} -->old<!-- end of {name} -->\n" for name in sections))
    results = Results()
    column = results.column("Channels: CPU per join", "100 connections")
    for label, value in (("trioglock, channels", 3.0), ("socket.io", 2.0)):
        column.add(label, value)
    insert_reports(page, results, EFFORT)
    kept = [f"<!-- {name} -->old<!-- end of {name} -->" for name in sections[:2]]
    assert page.read_text().startswith("\n".join(kept))
    row = "| CPU per join (us per message): channels | 3 (3 to 3) | 2 (2 to 2) | 1.5 (1.5 to 1.5) |"
    assert row in page.read_text().splitlines()
    results.columns.clear()
    results.column(REPLAYING, "10 missed", "s").add(STORES[0].label, 0.2)
    insert_reports(page, results, EFFORT)
    assert kept[0] in page.read_text()
    assert kept[1] not in page.read_text()
    assert row in page.read_text().splitlines()


@pytest.mark.parametrize(("push", "lost"), [(2.9, 0), (3.1, 1)])
def test_a_goal_is_lost_if_the_page_shows_it_as_met(tmp_path: Path, push: float, lost: int) -> None:
    """A goal that was met and is missed is reported; one that was missed before is not."""
    page = tmp_path / "page.md"
    page.write_text(
        "| channels, push and reply, CPU | at most 1.5 x socket.io | 1.26 (1 to 2) | yes |\n"
        "| channels, join, CPU | at most 2 x socket.io | 2.5 (2 to 3) | no |\n"
    )
    results = Results()
    for case, ours, theirs in ((PUSHING, push, 2.0), (JOINING, 5.0, 2.0)):
        column = results.column(case, "100 connections")
        column.add("trioglock, channels", ours)
        column.add("socket.io", theirs)
    assert len(lost_goals(page, results)) == lost
