"""Development tasks: ``nox -l`` lists the sessions, ``nox -s tests`` runs one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed
from nox.project import dependency_groups, load_toml

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "imports", "tests", "examples", "build"]

DOCS = ("docs/conf.py", "docs/diagrams.py", "docs/_ext")
PROJECT = load_toml("pyproject.toml")
TEST = dependency_groups(PROJECT, "test")
READ_PAGE = "from trioglock.cli.live.endpoints import read_page; assert read_page()"
READ_MODULE = """
from trioglock import Headers, Request
from trioglock.pubsub import browser_module
assert browser_module(Request(target="/", headers=Headers())).body
"""

# The tests, and the files that they read.
TESTED = (
    *("tests", "docs", "examples", "benchmarks", "newsfragments"),
    *("pyproject.toml", "noxfile.py", "hatch_build.py"),
)
# Tests that leave the number of random examples to the profile.
RANDOM = (
    "tests/channels/test_machine_stateful.py",
    "tests/protocols/phoenix/test_machine_stateful.py",
    "tests/transports/native/test_against_library.py",
)
# The Debian packages with the programs that some tests need.
PACKAGES = (
    *("caddy", "chromium", "chromium-headless-shell", "haproxy", "mosquitto", "nginx-light"),
    *("redis-sentinel", "redis-server", "ruby-em-websocket", "ruby-redis", "tmux"),
)
# Debian installs servers in a directory that is not on the PATH of every user.
PROGRAMS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
IS_COMPILED = "import trioglock; assert trioglock.version.endswith('+compiled'), trioglock.version"

CODE = ("trioglock", "tests", "examples", "noxfile.py", "hatch_build.py", *DOCS)


@nox.session(python=["3.11", "3.12", "3.13", "3.14", "3.15"])
def tests(session: nox.Session) -> None:
    """Run the tests with coverage on every installed interpreter."""
    session.install("-e", ".", *TEST)
    data = {"COVERAGE_FILE": str(Path(session.create_tmp(), "coverage"))}
    session.run("coverage", "run", "-m", "pytest", "-n", "auto", *session.posargs, env=data)
    session.run("coverage", "combine", "--quiet", env=data)
    # Selected tests cover only a part of the code.
    report = ["--fail-under=0"] if session.posargs else []
    session.run("coverage", "report", *report, env=data)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of all dependencies that pyproject.toml allows."""
    session.install("uv")
    environment = session.virtualenv.location
    package = ".[cli,codecs,opentelemetry,redis,socks]"
    lowest = ("--python", environment, "--resolution", "lowest-direct")
    session.run("uv", "pip", "install", *lowest, "-e", package, "--group", "test")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
@nox.parametrize("when", ["never", "always"])
def poller(session: nox.Session, when: str) -> None:
    """Run the tests of connections with and without the poller that feeds links on Linux."""
    session.install("-e", ".", *TEST)
    parts = ("connection", "server", "client", "hooks", "transports")
    arguments = session.posargs or [f"tests/{part}" for part in parts]
    session.run("python", "-m", "pytest", "-n", "auto", "--poller", when, *arguments)


@nox.session(python=["3.11", "3.13", "3.15"])
def compiled(session: nox.Session) -> None:
    """Compile modules with mypyc, and run the tests on the result. Needs a C compiler.

    docs/performance.md describes how to install one.
    """
    session.install(".", *TEST, env={"TRIOGLOCK_COMPILED": "1"})
    # A tree without the source of the package, so that all processes import the installed one.
    tree = Path(session.create_tmp(), "tree")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for path in (*map(Path, TESTED), *Path().glob("*.md")):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tree / path)
    where = session.run(
        "python", "-I", "-c", "import trioglock; print(*trioglock.__path__)", silent=True
    )
    Path(tree, "trioglock").symlink_to(str(where).strip())
    with session.chdir(tree):
        session.run("python", "-c", IS_COMPILED)
        session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the code with ruff, including its rules for async code, and the spelling."""
    session.install("codespell>=2.4", "ruff>=0.9")
    session.run("ruff", "check", *CODE, "benchmarks")
    session.run("ruff", "format", "--check", *CODE, "benchmarks")
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy --strict, and that the public types are complete with pyright.

    The package is also checked as on macOS and Windows, which lack some functions.
    """
    session.install(
        ".",
        *dependency_groups(PROJECT, "test", "docs"),
        "hatchling",
        "mypy>=1.15",
        "pyright",
        "nox",
        "types-docutils",
        "types-Pygments",
    )
    session.run("mypy", *CODE)
    for system in ("darwin", "win32"):
        session.run("mypy", "--platform", system, "trioglock")
    session.run("pyright", "--verifytypes", "trioglock", "--ignoreexternal")


@nox.session
def imports(session: nox.Session) -> None:
    """Check with import-linter that imports only point downwards."""
    session.install("-e", ".", "import-linter>=2.1", "pytest")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site; broken links and unknown names are errors.

    ``-- FOLDER`` writes it to a folder.
    """
    # The reference includes the pytest fixtures and the conformance kit.
    session.install("-e", ".[opentelemetry,redis]", "pytest", *dependency_groups(PROJECT, "docs"))
    html = _folder(session, "html")
    session.run("sphinx-build", "-q", "-n", "-W", "--keep-going", "-c", "docs", ".", str(html))
    session.log(f"open {html / 'docs' / 'index.html'}")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example as a script with its own server."""
    session.install(".", *TEST)
    for script in sorted(Path("examples").glob("*.py")):
        if script.stem == "mqtt" and not shutil.which("mosquitto", path=PROGRAMS):
            session.warn("skipped mqtt.py: mosquitto is not installed")
            continue
        session.run("python", str(script))


@nox.session(venv_backend="none")
def programs(session: nox.Session) -> None:
    """Install the programs that some tests need, on Debian as root, and packages after ``--``."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        session.skip("needs apt-get and root")
    query = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n")
    codes = range(2)  # 1 if a package is unknown
    known = str(session.run(*query, *PACKAGES, silent=True, success_codes=codes, external=True))
    wanted = [package for package in PACKAGES if f"{package} installed" not in known.splitlines()]
    wanted += session.posargs
    if not wanted:
        return
    # With RUNLEVEL=1 the services do not start: tests start their own.
    env = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ("apt-get", "install", "-qq", "--yes", "--no-install-recommends")
    try:
        session.run("apt-get", "update", "-qq", external=True)
        # Ubuntu does not have all of them, and apt-get would install none.
        names = str(session.run("apt-cache", "pkgnames", silent=True, external=True)).split()
        if unknown := sorted(set(wanted).difference(names)):
            session.warn(f"skipped {' '.join(unknown)}: unknown to apt-get")
        available = [package for package in wanted if package not in unknown]
        session.run(*install, *available, silent=True, env=env, external=True)
    except CommandFailed:
        session.warn(f"could not install {' '.join(wanted)}: tests that need them are skipped")


@nox.session
def autobahn(session: nox.Session) -> None:
    """Run the Autobahn test suite on the client, or ``-- --server``. Needs Python 2.7."""
    session.install("-e", ".")
    session.run("python", "-m", "tests.autobahn.run", *session.posargs)


@nox.session
def large_messages(session: nox.Session) -> None:
    """Send and receive a message of 1 GiB in fragments, and measure the memory."""
    session.install("-e", ".", *TEST)
    env = {"TRIOGLOCK_LARGE_MESSAGE_MIB": "1024"}
    session.run("pytest", "-s", "tests/interop/test_large_messages.py", env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks.

    ``-- --quick`` only checks that they work, and ``-- --gate`` fails if a goal is lost.
    """
    session.install("-e", ".", *dependency_groups(PROJECT, "bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Run the three fuzzers for 20 minutes each; ``-- 60`` for 60 seconds each."""
    session.install("-e", ".", *TEST)
    seconds = session.posargs[0] if session.posargs else "1200"
    for properties in ("connection", "codec"):
        session.run("python", "-m", "tests.machines.run", properties, "--seconds", seconds)
    try:
        session.install("--only-binary", "atheris", "atheris>=3")
    except CommandFailed:
        session.warn("skipped atheris, which has wheels only for Python 3.11 to 3.13 on Linux")
        return
    corpus = str(Path(session.create_tmp(), "corpus"))
    limits = (f"-max_total_time={seconds}", "-rss_limit_mb=1024")
    session.run("python", "-m", "tests.machines.fuzz_decoder", *limits, corpus)


@nox.session
def thorough(session: nox.Session) -> None:
    """Run the state machines and the comparison with websockets with 5,000 examples each."""
    session.install("-e", ".", *TEST)
    profile = ("--hypothesis-profile", "thorough")
    session.run("python", "-m", "pytest", "-n", "auto", *profile, *(session.posargs or RANDOM))


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel, install the wheel in a clean environment, and run the demo there.

    ``-- FOLDER`` writes them to a folder.
    """
    session.install("build", "twine")
    out = _folder(session, "dist")
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(out))
    artefacts = [str(path) for path in sorted(out.iterdir())]
    session.run("twine", "check", "--strict", *artefacts)
    with tempfile.TemporaryDirectory() as clean:
        session.run("python", "-m", "venv", clean)
        python = str(Path(clean, "bin", "python"))
        wheel = next(path for path in artefacts if path.endswith("py3-none-any.whl"))
        session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", external=True)
        with session.chdir(clean):
            session.run(python, "-m", "trioglock", "demo", external=True)
            session.run(python, "-m", "trioglock", "bench", "--messages", "100", external=True)
            session.run(python, "-c", READ_PAGE, external=True)
            session.run(python, "-c", READ_MODULE, external=True)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build compiled wheels for this system with cibuildwheel; ``-- FOLDER`` writes them there."""
    session.install("cibuildwheel>=3")
    session.run("cibuildwheel", "--output-dir", str(_folder(session, "dist")))


@nox.session
def publish(session: nox.Session) -> None:
    """Upload the distributions in a folder, ``-- FOLDER``. A workflow needs no token for it."""
    session.install("twine>=6.1")
    artefacts = sorted(str(path) for folder in session.posargs for path in Path(folder).iterdir())
    session.run("twine", "check", "--strict", *artefacts)
    session.run("twine", "upload", "--non-interactive", *artefacts)


@nox.session
def workflows(session: nox.Session) -> None:
    """Check the workflows: their form with check-jsonschema, their security with zizmor."""
    session.install("check-jsonschema", "zizmor")
    files = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    session.run("zizmor", "--offline", ".github")


@nox.session
def changelog(session: nox.Session) -> None:
    """Preview the next section of CHANGELOG.md; ``-- --version 1.2.3`` writes it."""
    session.install("towncrier>=24.8")
    how = ["--yes", *session.posargs] if session.posargs else ["--draft", "--version", "next"]
    session.run("towncrier", "build", *how)


@nox.session
def soak(session: nox.Session) -> None:
    """Run 500 connections for half an hour against a server that is killed every 20 seconds."""
    session.install(".", *TEST)
    session.run("python", "-m", "tests.soak.soak", *session.posargs)


@nox.session
def restarts(session: nox.Session) -> None:
    """Restart workers and Redis under 500 clients with trioglock.js. Needs Node and Redis."""
    session.install(".", *TEST)
    session.run("python", "-m", "tests.soak.browsers", *session.posargs)


def _folder(session: nox.Session, name: str) -> Path:
    """Return the folder for results: the argument of the session, or a temporary one."""
    return Path(session.posargs[0] if session.posargs else Path(session.create_tmp(), name))
