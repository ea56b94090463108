"""The pytest plugin, in a separate pytest run."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.slow
def test_the_fixtures(pytester: pytest.Pytester) -> None:
    """They need only the mode of pytest-trio: no import, no conftest."""
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

        async def test_an_unexpected_message_fails(mock_server):
            async with connect(mock_server.url) as conn:
                await conn.send("this")
                await mock_server.expect("that")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*expected 'that', but the client sent 'this'*"])
