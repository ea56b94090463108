"""Help and invalid command lines of every command."""

from __future__ import annotations

import re

import pytest

from tests.cases import case_of
from trioglock.cli import main

INVALID: dict[str, list[tuple[list[str], str]]] = {
    "connect": [
        ([], "Missing argument 'URL'"),
        (["http://host/"], "scheme isn't ws or wss"),
        (["ws://host:99999/"], "the host or port is malformed"),
        (["ws://host/", "and", "more"], "2 extra arguments. Quote a header"),
        (["ws://host/", "more"], "1 extra argument. Quote a header"),
        (["ws://host/", "--nonsense"], "No such option"),
        (["ws://host/", "-H", "no colon"], "write a header as 'Name: value'"),
        (["ws://host/", "-H", "a b: c"], "write a header as 'Name: value'"),
        (["ws://host/", "-H", "a: b\nc"], "write a header as 'Name: value'"),
        (["ws://host/", "-H", "Upgrade: x"], "Upgrade is set by the opening handshake."),
        (["ws://host/", "-s", "a b"], "'a b' is not a valid subprotocol name"),
        (["ws://host/", "-s", "a", "-s", "a"], "subprotocols must not contain duplicates"),
        (["ws://host/", "--origin", "a\nb"], "origin: "),
        (
            ["ws://host/", "--wait", "-1"],
            "'-1' is not valid: use a number of seconds that is at least 0.",
        ),
        (
            ["ws://host/", "--wait", "nan"],
            "'nan' is not valid: use a number of seconds that is at least 0.",
        ),
        (
            ["ws://host/", "--wait", "none"],
            "'none' is not valid: use a number of seconds that is at least 0.",
        ),
        (
            ["ws://host/", "--connect-timeout", "0"],
            "use a number of seconds greater than 0, or 'none'",
        ),
        (
            ["ws://host/", "--close-timeout", "soon"],
            "use a number of seconds greater than 0, or 'none'",
        ),
        (
            ["ws://host/", "--ping-interval", "-3"],
            "use a number of seconds greater than 0, or 'none'",
        ),
        (["ws://host/", "--max-size", "0"], "0 is not in the range x>=1"),
        (["ws://host/", "--max-size", "1 MB"], "'1 MB' is not a valid integer"),
        (["ws://host/", "--insecure"], "require a wss:// URL"),
        (["ws://host/", "--ca", __file__], "require a wss:// URL"),
        (["wss://host/", "--ca", "/nowhere"], "'/nowhere' does not exist"),
        (["wss://host/", "--ca", __file__], "contains no certificate (PEM)"),
        (["wss://host/", "--ca", __file__, "--insecure"], "cannot be combined"),
        (["ws://host/", "--trace-file", "/nowhere/at/all"], "No such file or directory"),
        (["ws://host/", "--trace-file", "/"], "is a directory"),
    ],
    "phoenix": [
        (["ws://host/"], "Missing argument 'join'"),
        (["ws://host/", "leave", "room:1"], "'leave' is not 'join'"),
        (["ws://host/", "join"], "Missing argument 'TOPIC'"),
        (["ws://host/", "join", "phoenix"], "'phoenix' is not a topic such as room:1"),
        (["http://host/", "join", "room:1"], "scheme isn't ws or wss"),
        (["ws://host/", "join", "room:1", "--param", "s3cret"], "write a parameter as name=value."),
        (["ws://host/", "join", "room:1", "--params", '{"s3cret"'], "invalid JSON: Expecting ':'"),
        (["ws://host/?vsn=1.0.0", "join", "room:1"], "vsn must be 2.0.0"),
        (["ws://host/", "join", "room:1", "--timeout", "0"], "a number of seconds greater than 0"),
        (["ws://host/", "join", "a\udcff"], "is not a topic"),
        (["ws://host/", "join", "a", "--params", "NaN"], "nan is not a JSON number"),
        (["ws://host/", "join", "a", "--params", '"\\ud800"'], "surrogates not allowed"),
        (["ws://host/", "join", "a", "--params", "[" * 300 + "]" * 300], "nested more than"),
        (["ws://host/", "join", "a", "--push", ""], "write a push as"),
        (["ws://host/", "join", "a", "--push", "e NaN"], "invalid JSON in the payload of e"),
        (["ws://host/", "join", "a", "-s", "x", "--token", "t"], "subprotocols cannot be combined"),
    ],
    "serve": [
        (["--port", "x"], "--port"),
        (["--port", "99999"], "--port"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--workers", "2"], "requires --redis"),
        (["--drain=-3"], "--drain"),
        (["--drain", "nan"], "--drain"),
        (["--history", "0"], "--history"),
        (["--history", "5"], "--history requires --redis"),
        (["--sharded"], "--sharded requires --redis"),
        (["--sharded", "--redis", "redis://h"], "sharded=True requires a Redis Cluster"),
        (["--sharded", "--redis", "redis+cluster://h", "--page"], "leave out --page"),
        (["--name", "a b"], "a b"),
        (["--redis", "http://"], "Redis URL"),
        (["--no-such-option"], "--no-such-option"),
        (["a:b", "c:d"], "c:d"),
        (["a:b", "--redis", "redis://"], "pass them to your target"),
        (["a:b", "--name", "mine"], "pass them to your target"),
        (["--redis", ""], "Redis URL"),
        (["--host", "a b"], "'a b' is not a valid host name"),
        (["--page-host", "h:80"], "'h:80' is not a valid host name"),
        (["--page-host", ""], "must not be empty"),
        (["--origin", "example.org"], "write it as 'https://example.org'"),
        (["--tls-key", "key.pem"], "--tls-key requires --tls-cert"),
        (["--tls-cert", "/missing.pem"], "cannot read /missing.pem: No such file or directory"),
        (["--static", "/missing"], "--static must be a directory, not '/missing'"),
        (["--static", ".", "--page"], "--static serves its own page at /: leave out --page"),
        (["--health", "health"], "--health must be a path such as /health, not 'health'"),
        (["--health", "/a?b"], "--health must be a path"),
        (["--health", "/"], "choose another path, such as /health"),
        (["echo", "--static", ".", "--health", "/"], "choose another path, such as /health"),
        (["a:b", "--reload", "--workers", "2"], "--reload serves in one process"),
        (["--reload"], "--reload requires a TARGET in your own module"),
        (["echo", "--reload"], "--reload requires a TARGET in your own module"),
        (["--log-level", "loud"], "'loud' is not one of 'debug', 'info'"),
        (["invalid"], "TARGET must be echo or module:name, not invalid"),
    ],
    "publish": [
        ([], "Missing argument 'CHANNEL'"),
        (["x"], "Missing argument 'MESSAGE'"),
        (["/x", "y"], "must not start with a slash"),
        (["a\nb", "y"], "must not contain control characters"),
        (["x" * 1025, "y"], "at most 1,024 characters"),
        (["x", "\udcff"], "must be valid UTF-8"),
        (["x", "y", "--to", "ws://h", "--redis", "redis://h"], "cannot be combined"),
        (["x", "y", "--to", "http://localhost"], "scheme isn't ws or wss"),
        (["x", "y", "--redis", "http://localhost"], "Redis URL"),
        (["x", "y", "--redis", "redis://h", "--name", "a b"], "a b"),
        (["x", "y", "--history", "5"], "--history requires --redis"),
        (["x", "y", "--sharded"], "--sharded requires --redis"),
        (["", "y", "--redis", "redis+cluster://h", "--sharded"], "there are no broadcasts"),
        (["x", "y", "--publish-token", "a b"], "visible ASCII"),
        (["x", "y", "--timeout", "0"], "greater than 0"),
    ],
    "bench": [
        (["http://localhost"], "scheme isn't ws or wss"),
        (["--seconds", "1", "--messages", "1"], "--messages cannot be combined with --seconds"),
        (["--seconds", "nan"], "'nan' is not valid"),
        (["--connections", "0"], "--connections"),
        (["-H", "s3cret"], "'Name: value'"),
        (
            ["--connections", "10000", "--in-flight", "1000", "--size", "1000"],
            "10,000,000,000 bytes in flight",
        ),
    ],
    "demo": [
        (["too", "much"], "unexpected extra arguments (too much)"),
        (["--messages", "0"], "Invalid value for '--messages'"),
        (["--messages", "many"], "Invalid value for '--messages'"),
    ],
    "nonsense": [([], "No such command 'nonsense'")],
    "--nonsense": [([], "No such option")],
}


@pytest.mark.parametrize("name", INVALID)
def test_fault_35_wrong_input_is_an_error_before_anything_starts(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error describes what is allowed and shows no secret; the exit code is 2."""
    for arguments, message in INVALID[name]:
        with case_of(*arguments):
            assert main([name, *arguments]) == 2
            streams = capsys.readouterr()
            assert streams.out == ""
            assert streams.err.startswith("Usage: trioglock ")
            assert message in " ".join(streams.err.split())
            assert "s3cret" not in streams.err


HELP = {
    "connect": ("Usage: trioglock connect [OPTIONS] URL\n",),
    "phoenix": ("Usage: trioglock phoenix [OPTIONS] URL join TOPIC\n",),
    "demo": (),
    "serve": ("TARGET", "--no-page", "--publish-token", "SIGHUP"),
    "publish": ("--to", "--redis", "TRIOGLOCK_PUBLISH_TOKEN"),
    "bench": ("--in-flight", "--json", "130"),
}


@pytest.mark.parametrize(("name", "texts"), HELP.items())
def test_help(name: str, texts: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """It has usage, options, exit codes and examples, fits, and hides internal options."""
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    for part in (f"Usage: trioglock {name}", "Options:", "Exit codes:\n", "Examples:\n", *texts):
        assert part in text
    assert text.count(f"  trioglock {name}") + text.count(f"| trioglock {name}") >= 2
    assert max(map(len, text.splitlines())) <= 100
    assert not re.search(r"--worker\b", text)
