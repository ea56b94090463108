"""The guides show the signatures of the main functions, and a recipe that needs Redis works."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import Page
from tests.scripts import run_python
from trioglock import connect, serve
from trioglock.channels import Channels
from trioglock.pubsub import Hub, MemoryBroker, RedisBroker
from trioglock.testing import FaultProxy, MockServer

pytestmark = pytest.mark.docs


@pytest.mark.parametrize(
    ("page", "function"),
    [
        ("docs/clients/index.md", connect),
        ("docs/server.md", serve),
        ("docs/pubsub.md", Hub),
        ("docs/pubsub.md", MemoryBroker),
        ("docs/pubsub.md", RedisBroker),
        ("docs/channels.md", Channels),
        ("docs/testing.md", MockServer),
        ("docs/faults.md", FaultProxy),
    ],
)
def test_the_options_of_a_guide_are_those_of_the_code(
    page: str, function: Callable[..., Any]
) -> None:
    """Their names, order and defaults; a default ``...`` is too long to show."""
    blocks = re.findall(r"^```python notest\n(.*?)^```", Page(page).text, re.MULTILINE | re.DOTALL)
    signature = rf"^{function.__name__}(\([^()]*\*,.*?\))$"
    [shown] = [
        found[1]
        for block in blocks
        if (found := re.search(signature, block, re.MULTILINE | re.DOTALL))
    ]
    names: dict[str, Any] = {}
    exec(f"def shown{shown}: ...", names)  # noqa: S102 - the project's own documentation
    actual = inspect.signature(function).parameters
    for name, parameter in inspect.signature(names["shown"]).parameters.items():
        assert parameter.kind == actual[name].kind, name
        if parameter.default is not ...:
            assert parameter.default == actual[name].default, name


@pytest.mark.redis
@pytest.mark.slow
async def test_the_recipe_with_redis(tmp_path: Path) -> None:
    """The last block is a complete test module."""
    pytest.importorskip("flask", reason="needs flask: pip install it")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    text = Page("docs/testing-recipes.md").text
    (tmp_path / "test_recipe.py").write_text(
        text.partition("### With Redis")[2].partition("```python notest\n")[2].partition("```")[0]
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path))
    done = await run_python(*command, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
