"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def test_the_fixtures_serve(pytester: pytest.Pytester) -> None:
    """A project needs pytest-trio's mode and nothing else: no import, no conftest."""
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(
        """
        from trioglock import connect

        async def test_echo(echo_server):
            async with connect(echo_server.url) as conn:
                await conn.send("hi")
                assert await conn.receive() == "hi"
            assert echo_server.peers[0].received == ["hi"]

        async def test_script(mock_server):
            async with connect(mock_server.url) as conn:
                await conn.send("hello")
                await mock_server.expect("hello")
                await mock_server.send("welcome")
                assert await conn.receive() == "welcome"

        async def test_a_wrong_script_fails(mock_server):
            async with connect(mock_server.url) as conn:
                await conn.send("this")
                await mock_server.expect("that")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*expected 'that', the client sent 'this'*"])
