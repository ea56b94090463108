"""Runs the suite: ``python -m tests.autobahn.run``. The exit code is 1 if there are problems."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import trio

from tests.autobahn.client import AGENT, run_cases
from tests.autobahn.echo import serve_echo
from tests.autobahn.environment import SUITE_VERSION, EnvironmentMissing, python_with_suite
from tests.autobahn.report import ALL_CASES, problems, read_report, summary
from tests.scripts import ROOT

__all__ = ["REPORTS", "main"]

REPORTS = ROOT / ".nox" / "autobahn-reports"
"""The folder of the reports, with one folder per run. Reports of earlier runs are deleted."""

SERVER_REPORTS = REPORTS / "server"
"""The folder of the reports about the server."""

STARTER = Path(__file__).with_name("starter.py")

# The first start compiles the modules of twisted.
START_SECONDS = 60

# All cases take ten minutes, or longer if some hang until the suite ends them.
SUITE_SECONDS = 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite once or several times; return the exit code."""
    options = _options(arguments)
    try:
        python = python_with_suite(options.environment)
    except EnvironmentMissing as error:
        print(error)
        return 1
    reports = options.reports or (SERVER_REPORTS if options.server else REPORTS)
    for old in reports.glob("run[0-9]*"):
        shutil.rmtree(old)
    clean = True
    for number in range(1, options.runs + 1):
        folder = reports / f"run{number}"
        print(f"run {number} of {options.runs}: {folder}", flush=True)
        clean = _run(python, folder, options) and clean
    return 0 if clean else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="autobahn", description=__doc__)
    add = parser.add_argument
    add("--server", action="store_true", help="test the server; by default the client is tested")
    add("--runs", type=int, default=1, help="number of consecutive runs (default 1)")
    add("--cases", action="append", help="run cases that match a pattern such as '6.*'; repeatable")
    add("--non-strict", type=int, default=0, help="maximum number of NON-STRICT cases")
    add(
        "--environment",
        type=Path,
        default=ROOT / ".nox" / "autobahn-env",
        help="folder of Python 2.7",
    )
    add("--reports", type=Path, help=f"folder of the reports (default: under {REPORTS})")
    return parser.parse_args(arguments)


def _run(python: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Run all cases once; return whether there are no problems."""
    folder.mkdir(parents=True)
    begin = time.perf_counter()
    test = _test_server if options.server else _test_client
    count = trio.run(test, python, folder, options.cases or ["*"])
    seconds = time.perf_counter() - begin
    (folder / "facts.json").write_text(json.dumps(_facts(seconds), indent=1), encoding="utf-8")
    results = read_report(folder / "index.json", AGENT)
    expected = count or len(results) if options.cases else ALL_CASES
    found = problems(results, cases=expected, non_strict=options.non_strict)
    print(f"{summary(results)}; {seconds:.0f} s")
    for line in found:
        print(f"  {line}")
    sys.stdout.flush()
    return not found


async def _test_client(python: Path, folder: Path, cases: list[str]) -> int:
    """Test the client; return the number of cases."""
    async with _fuzzing_server(python, folder, cases) as url:
        return await run_cases(url, _progress)


async def _test_server(python: Path, folder: Path, cases: list[str]) -> int:
    """Test the server; return 0, because the suite does not report the number of cases."""
    async with serve_echo() as url:
        spec = {"servers": [{"agent": AGENT, "url": url}]}
        with trio.fail_after(SUITE_SECONDS):
            await _run_suite("fuzzingclient", python, folder, cases, spec)
    return 0


def _progress(number: int, count: int) -> None:
    if sys.stdout.isatty():
        print(f"\rcase {number} of {count}", end="\r", flush=True)


@asynccontextmanager
async def _fuzzing_server(python: Path, folder: Path, cases: list[str]) -> AsyncIterator[str]:
    """Run the server of the suite on a free port of 127.0.0.1, and yield its URL."""
    port = _free_port()
    url = f"ws://127.0.0.1:{port}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_suite, "fuzzingserver", python, folder, cases, {"url": url})
        with trio.fail_after(START_SECONDS):
            await _wait_listening(port)
        yield url
        nursery.cancel_scope.cancel()


async def _run_suite(
    mode: str, python: Path, folder: Path, cases: list[str], spec: Mapping[str, object]
) -> None:
    """Run ``wstest``; its output goes to ``suite.log``."""
    # Reports are written relative to the working directory.
    common = {"outdir": ".", "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    (folder / "spec.json").write_text(json.dumps({**common, **spec}), encoding="utf-8")
    # -u 0: do not serve pages on port 8080.
    command = [str(python), str(STARTER), "-m", mode, "-s", "spec.json", "-u", "0"]
    with (folder / "suite.log").open("wb") as log:
        await trio.run_process(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _wait_listening(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.1)
        else:
            await stream.aclose()
            return


def _facts(seconds: float) -> dict[str, str]:
    """Return the facts about a run that the page shows."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": f"{seconds:.0f}",
        "trioglock": version("trioglock"),
        "websockets": version("websockets"),
        "trio": version("trio"),
        "Python": platform.python_version(),
        "autobahntestsuite": SUITE_VERSION,
    }


if __name__ == "__main__":
    sys.exit(main())
