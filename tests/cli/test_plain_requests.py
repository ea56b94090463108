"""``trioglock serve`` over plain HTTP: static files, health checks, certificates and the log."""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock
from websockets.sync.client import connect as connect_browser

from tests.cases import case_of
from tests.cli.serving import serve_in_thread
from tests.pubsub.redis_server import real_redis
from tests.server.helpers import Answer, Echo, LockstepListener, Site, plain_request, serving
from trioglock.cli import main, static_files
from trioglock.cli.plain_requests import PlainRequests
from trioglock.cli.serve import Settings, describe_server
from trioglock.cli.static_files import StaticFiles
from trioglock.cli.streams import print_log
from trioglock.pubsub import Hub

PAGE = b"<!doctype html><script type=module src=app.js></script>"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with files that may be served, beside others that may not."""
    root = tmp_path / "public"
    (root / "docs").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "index.html").write_bytes(PAGE)
    (root / "docs" / "index.html").write_bytes(b"docs")
    (root / "app.js").write_bytes(b"x = 1")
    (root / ".env").write_bytes(b"secret")
    (root / ".git" / "config").write_bytes(b"secret")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "public-secret").write_bytes(b"secret")
    return root


@asynccontextmanager
async def files_served(directory: Path, **options: Any) -> AsyncIterator[Site]:
    """Serve the files of a directory, and echo messages."""
    plain = PlainRequests(None, StaticFiles(str(directory)), [], lambda _: None)
    async with serving(Echo, process_request=plain.process_request, **options) as site:
        yield site


@pytest.mark.parametrize("target", [None, "echo"])
def test_files(target: str | None, directory: Path) -> None:
    """Browsers get the files; an upgrade on the same path is one to the target."""
    with serve_in_thread(target=target, static=str(directory)) as at:
        client = http.client.HTTPConnection(at, timeout=10)
        for path, content, kind in (
            ("/", PAGE, "text/html; charset=utf-8"),
            ("/index.html", PAGE, "text/html; charset=utf-8"),
            ("/app.js?v=2", b"x = 1", "text/javascript; charset=utf-8"),
            ("/docs/", b"docs", "text/html; charset=utf-8"),
            ("/%64ocs/", b"docs", "text/html; charset=utf-8"),
        ):
            for method in ("GET", "HEAD"):
                client.request(method, path)
                response = client.getresponse()
                assert response.status == 200
                assert response.read() == (content if method == "GET" else b"")
                assert response.headers["Content-Length"] == str(len(content))
                assert response.headers["Content-Type"] == kind
                assert response.headers["X-Content-Type-Options"] == "nosniff"
        client.request("GET", "/", headers={"Upgrade": "h2c", "Connection": "Upgrade"})
        assert client.getresponse().read() == PAGE
        with connect_browser(f"ws://{at}/", proxy=None) as conn:
            conn.send("hello")
            if target == "echo":
                assert conn.recv(5) == "hello"


async def test_a_directory_called_index_html_is_not_found(directory: Path) -> None:
    (directory / "odd" / "index.html").mkdir(parents=True)
    async with files_served(directory) as site:
        assert (await site.ask(plain_request("/odd/"))).status == 404


UNREADABLE = [
    "/missing",
    "/../secret",
    "/..%2fsecret",
    "/%2e%2e/secret",
    "/%2E%2E%2Fsecret",
    "/docs/../../secret",
    "/docs/..%2f..%2fsecret",
    "/%252e%252e/secret",
    "/..%c0%afsecret",
    "/..%5csecret",
    "/..\\secret",
    "/../public-secret",
    "//secret",
    "/./app.js",
    "/docs//index.html",
    "/docs/index.html/",
    "/app.js/",
    "/.env",
    "/%2eenv",
    "/.git/config",
    "/.git/",
    "/app.js%00",
    "/%00",
    "/%ff",
    "/" + "x" * 300,
    "/" + "x/" * 3000,
    "*",
    "/link",
    "/link-to-hidden",
    "/loop",
    "/pipe",
    "/outside/secret",
]


async def test_nothing_else_can_be_read(directory: Path) -> None:
    """Neither files outside of the directory nor hidden ones, however the path is written."""
    (directory / "link").symlink_to(directory.parent / "secret")
    (directory / "link-to-hidden").symlink_to(".env")
    (directory / "loop").symlink_to("loop")
    (directory / "outside").symlink_to("..")
    if sys.platform != "win32":
        os.mkfifo(directory / "pipe")
    async with files_served(directory) as site:
        for path in UNREADABLE:
            with case_of(path):
                answer = await site.ask(plain_request(path))
                assert (answer.status, answer.body) == (404, b"not found\n")
                assert (await site.ask(plain_request("/app.js"))).status == 200


@pytest.mark.parametrize(
    ("path", "location"),
    [("/docs", "/docs/"), ("/docs?a=b%20c", "/docs/?a=b%20c"), ("/gr%C3%bc%c3%9fe", None)],
)
async def test_the_path_of_a_directory_gets_a_slash(
    path: str, location: str | None, directory: Path
) -> None:
    (directory / "grüße").mkdir()
    async with files_served(directory) as site:
        answer = await site.ask(plain_request(path))
    assert answer.status == 301
    assert answer.headers["location"] == (location or "/gr%C3%BC%C3%9Fe/")


async def test_a_directory_can_be_replaced(directory: Path) -> None:
    """A link to the current version may lead to another one."""
    current = directory.parent / "current"
    current.symlink_to("public")
    (directory.parent / "next").mkdir()
    (directory.parent / "next" / "app.js").write_bytes(b"x = 2")
    async with files_served(current) as site:
        assert (await site.ask(plain_request("/app.js"))).body == b"x = 1"
        current.unlink()
        current.symlink_to("next")
        assert (await site.ask(plain_request("/app.js"))).body == b"x = 2"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webp", "image/webp"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.js.gz", "application/octet-stream"),
        ("data:a.html", "text/html; charset=utf-8"),
        ("README", "application/octet-stream"),
    ],
)
async def test_types(name: str, kind: str, directory: Path) -> None:
    """They do not depend on the system."""
    (directory / name).write_bytes(b"")
    async with files_served(directory) as site:
        answer = await site.ask(plain_request(f"/{name}"))
    assert (answer.status, answer.headers["content-type"]) == (200, kind)


async def test_a_current_copy_is_not_sent_again(directory: Path) -> None:
    """304 without a body; If-None-Match takes precedence over the date."""
    async with files_served(directory) as site:

        async def ask(*headers: str) -> Answer:
            return await site.ask(plain_request("/app.js", "GET", *headers))

        answer = await ask()
        tag, date = answer.headers["etag"], answer.headers["last-modified"]
        for header in (
            f"If-None-Match: {tag}",
            f'If-None-Match: "other", W/{tag}',
            "If-None-Match: *",
            f"If-Modified-Since: {date}",
        ):
            answer = await ask(header)
            assert (answer.status, answer.body) == (304, b"")
            assert (answer.headers["etag"], answer.headers["last-modified"]) == (tag, date)
        for others in (
            ('If-None-Match: "other"', f"If-Modified-Since: {date}"),
            ("If-Modified-Since: yesterday",),
        ):
            assert (await ask(*others)).status == 200
        (directory / "app.js").write_bytes(b"x = 2")
        os.utime(directory / "app.js", ns=(0, 0))
        answer = await ask(f"If-None-Match: {tag}")
        assert (answer.status, answer.body) == (200, b"x = 2")
        assert answer.headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


async def test_other_methods(directory: Path) -> None:
    async with files_served(directory) as site:
        answer = await site.ask(plain_request("/app.js", "DELETE"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_the_memory_for_files_is_limited(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that read slowly share a file; beyond the limit, others have to try again later."""
    monkeypatch.setattr(static_files, "MAX_FILE_SIZE", 200_000)
    monkeypatch.setattr(static_files, "MAX_TOTAL_SIZE", 300_000)
    (directory / "large").write_bytes(b"x" * 200_001)
    for name in "ab":
        (directory / name).write_bytes(name.encode() * 200_000)
    async with files_served(directory, listener=LockstepListener()) as site:
        answer = await site.ask(plain_request("/large"))
        assert answer.status == 403
        assert answer.body == b"files larger than 200000 bytes are not served\n"
        slow = [await site.raw() for _ in range(2)]
        for client in slow:
            await client.send(plain_request("/a"))
            await client.head()
        answer = await site.ask(plain_request("/b"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        for client in slow:
            assert await client.everything() == b"a" * 200_000
        assert (await site.ask(plain_request("/b"))).body == b"b" * 200_000


# Health checks.


async def test_the_health_check_of_a_server_that_shuts_down(autojump_clock: MockClock) -> None:
    """A client that has already connected gets 503."""
    plain = PlainRequests("/health", None, [], lambda _: None)
    async with serving(Echo, process_request=plain.process_request) as site:
        plain.server = site.server
        for method in ("GET", "HEAD"):
            assert (await site.ask(plain_request("/health", method))).status == 200
        client = await site.raw()
        before, after = plain_request("/health").split(b"\r\n", 1)
        await client.send(before)
        await trio.testing.wait_all_tasks_blocked()
        async with site.dial() as conn:
            site.server.close()
            await client.send(b"\r\n" + after)
            assert (await client.head()).startswith(b"HTTP/1.1 503 ")
            await conn.wait_closed()


def check_health(at: str, path: str = "/health") -> int:
    """The status of a health check."""
    client = http.client.HTTPConnection(at, timeout=10)
    client.request("GET", path)
    status = client.getresponse().status
    client.close()
    return status


@pytest.mark.redis
def test_the_health_check_of_a_hub() -> None:
    """It is 503 while Redis cannot be reached."""

    def wait_health(status: int) -> None:
        deadline = time.monotonic() + 30
        while check_health(at) != status:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with real_redis() as redis, serve_in_thread(redis=redis.url, health="/health") as at:
        wait_health(200)
        redis.kill()
        wait_health(503)
        redis.start()
        wait_health(200)


def test_a_health_check_hides_no_websocket(directory: Path) -> None:
    """Nor the page, nor other files."""
    with serve_in_thread(health="/news") as at, connect_browser(f"ws://{at}/news", proxy=None):
        assert check_health(at, "/news") == 200
        assert check_health(at, "/") == 200
        assert check_health(at, "/health") == 426
    with serve_in_thread(health="/app.js", static=str(directory)) as at:
        assert check_health(at, "/app.js?x=1") == 200
        assert check_health(at, "/health") == 404


# Certificates.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Certificate:
    """A certificate for 127.0.0.1 in files."""

    def __init__(self, authority: trustme.CA, folder: Path) -> None:
        issued = authority.issue_cert("127.0.0.1")
        self.both, self.chain, self.key = (folder / name for name in ("both", "chain", "key"))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        issued.private_key_pem.write_to_path(str(self.key))
        for number, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(str(self.chain), append=number > 0)


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Certificate:
    return Certificate(authority, tmp_path)


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("separate", [False, True])
def test_a_certificate(
    separate: bool, certificate: Certificate, trust: ssl.SSLContext, directory: Path
) -> None:
    """It serves wss:// and https://, with the key in the same file or in another."""
    files = {"tls_cert": str(certificate.both)}
    if separate:
        files = {"tls_cert": str(certificate.chain), "tls_key": str(certificate.key)}
    content = os.urandom(2**20)
    (directory / "large").write_bytes(content)
    with serve_in_thread(target="echo", static=str(directory), **files) as at:
        with connect_browser(f"wss://{at}/", ssl=trust, proxy=None) as conn:
            conn.send("hello")
            assert conn.recv(5) == "hello"
        client = http.client.HTTPSConnection(at, timeout=10, context=trust)
        client.request("GET", "/large")
        assert client.getresponse().read() == content
        client.close()


def test_the_output_with_a_certificate(certificate: Certificate, directory: Path) -> None:
    """The URLs have the schemes with TLS."""
    both = str(certificate.both)
    lines = list(describe_server(Settings(tls_cert=both), Hub(), 80))
    assert lines == ["serving on 127.0.0.1:80", "live page: https://127.0.0.1:80/"]
    lines = list(describe_server(Settings(tls_cert=both, static=str(directory)), Hub(), 80))
    assert lines == ["serving on 127.0.0.1:80", "files: https://127.0.0.1:80/"]


def test_wrong_certificates(
    certificate: Certificate, authority: trustme.CA, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The error of the command line names the files; it never asks for a password."""
    (tmp_path / "other").mkdir()
    other = Certificate(authority, tmp_path / "other")
    encrypted = tmp_path / "encrypted"
    password = serialization.BestAvailableEncryption(b"password")
    encrypted.write_bytes(
        serialization.load_pem_private_key(certificate.key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password
        )
    )
    chain, key = str(certificate.chain), str(certificate.key)
    for arguments, problem in (
        (["--tls-cert", chain], f"{chain} does not contain a certificate and its private key"),
        (["--tls-cert", chain, "--tls-key", str(other.key)], f"{other.key} is not the key of"),
        (["--tls-cert", key, "--tls-key", key], "do not contain a certificate and its private"),
        (["--tls-cert", chain, "--tls-key", str(encrypted)], "must not be encrypted"),
        (["--tls-cert", chain, "--tls-key", "/missing"], "No such file or directory"),
        (["--tls-cert", str(certificate.both), "--static", str(tmp_path)], "the private key"),
    ):
        assert main(["serve", *arguments]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert problem in error


# The log.


def test_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """It is printed from its level on."""
    logger, child = logging.getLogger("tests.log"), logging.getLogger("tests.log.child")
    logger.propagate = False
    try:
        with print_log("tests.log", "info"):
            child.debug("too low")
            child.info("hello")
        child.error("after it")
    finally:
        logger.propagate = True
    assert "INFO tests.log.child: hello\n" in capfd.readouterr().err
    assert logger.level == logging.NOTSET
    assert not logger.handlers
