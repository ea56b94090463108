"""The project's chores: ``nox -l`` lists them, ``nox -s tests`` runs one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "imports", "tests", "examples", "build"]

DOCS = ("docs/conf.py", "docs/diagrams.py", "docs/_ext")
READ_PAGE = "from trioglock.cli.live.endpoints import read_page; assert read_page()"

CODE = ("trioglock", "tests", "examples", "noxfile.py", *DOCS)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests with coverage; an interpreter that is not there is skipped with a word."""
    session.install("-e", ".[test]")
    data = {"COVERAGE_FILE": str(Path(session.create_tmp(), "coverage"))}
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=data)
    session.run("coverage", "combine", "--quiet", env=data)
    # A part of the tests covers a part of the code.
    report = ["--fail-under=0"] if session.posargs else []
    session.run("coverage", "report", *report, env=data)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and common mistakes with ruff, trio's ASYNC rules included."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", *CODE, "benchmarks")
    session.run("ruff", "format", "--check", *CODE, "benchmarks")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy --strict on everything, pyright --verifytypes at 100 % on the package."""
    session.install(".[test,docs]", "mypy>=1.13", "pyright", "nox", "types-docutils")
    session.run("mypy", *CODE)
    session.run("pyright", "--verifytypes", "trioglock", "--ignoreexternal")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports only ever point down, with import-linter."""
    session.install("-e", ".", "import-linter>=2.1", "pytest")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Make HTML of the documents; every link and every name in them leads somewhere."""
    # pytest: the conformance kit and the fixtures are in the reference too.
    session.install("-e", ".[docs,opentelemetry,redis]", "pytest")
    html = Path(session.create_tmp(), "html")
    session.run("sphinx-build", "-q", "-n", "-W", "--keep-going", "-c", "docs", ".", str(html))
    session.log(f"{html / 'docs' / 'index.html'} is the first page")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example as a script against its embedded server."""
    session.install(".[test]")
    for script in sorted(Path("examples").glob("*.py")):
        session.run("python", str(script))


@nox.session
def autobahn(session: nox.Session) -> None:
    """Run the Autobahn test suite on our client, or ``-- --server``. Needs Python 2.7."""
    session.install("-e", ".")
    session.run("python", "-m", "tests.autobahn.run", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside other clients; ``-- --quick`` only tries whether all of it works."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Run random programs, random frames and atheris, 20 minutes each; ``-- 60`` for 60 seconds."""
    session.install("-e", ".[test]")
    seconds = session.posargs[0] if session.posargs else "1200"
    for what in ("connection", "codec"):
        session.run("python", "-m", "tests.machines.run", what, "--seconds", seconds)
    try:
        session.install("--only-binary", "atheris", "atheris>=3")
    except CommandFailed:
        session.warn("atheris has wheels for Python 3.11 to 3.13 on Linux: skipped")
        return
    corpus = str(Path(session.create_tmp(), "corpus"))
    limits = (f"-max_total_time={seconds}", "-rss_limit_mb=1024")
    session.run("python", "-m", "tests.machines.fuzz_decoder", *limits, corpus)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel; the wheel installs in a clean environment and runs the demo there."""
    session.install("build", "twine")
    out = Path(session.create_tmp(), "dist")
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(out))
    artefacts = [str(path) for path in sorted(out.iterdir())]
    session.run("twine", "check", "--strict", *artefacts)
    with tempfile.TemporaryDirectory() as clean:
        session.run("python", "-m", "venv", clean)
        python = str(Path(clean, "bin", "python"))
        wheel = next(path for path in artefacts if path.endswith(".whl"))
        session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", external=True)
        with session.chdir(clean):
            session.run(python, "-m", "trioglock", "demo", external=True)
            session.run(python, "-m", "trioglock", "bench", "--messages", "100", external=True)
            session.run(python, "-c", READ_PAGE, external=True)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show the next section of CHANGELOG.md; ``-- --version 1.2.3`` writes it."""
    session.install("towncrier>=24.8")
    how = ["--yes", *session.posargs] if session.posargs else ["--draft", "--version", "next"]
    session.run("towncrier", "build", *how)


@nox.session
def soak(session: nox.Session) -> None:
    """Run 500 connections for half an hour against a server that is killed every 20 seconds."""
    session.install(".[test]")
    session.run("python", "-m", "tests.soak.soak", *session.posargs)
