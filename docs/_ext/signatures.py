"""Signatures as they are written: an alias keeps its name, and an overload is shown once.

Sphinx would evaluate ``HeadersSource`` to what it stands for, in each signature anew, and show
the typed variants of a function in place of the function.
"""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from typing import Any

from documented import home_of
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation


class _Source:
    """Shown in a signature as it stands."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Homes(ast.NodeTransformer):
    """Names in an annotation become full ones, of which Sphinx shows the last part."""

    def __init__(self, module: str) -> None:
        self._module = module

    def visit_Name(self, node: ast.Name) -> ast.Name:
        home = home_of(node.id, self._module)
        return ast.Name("~" + home if "." in home else home)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
        written = ast.unparse(node)
        root, _, rest = written.partition(".")
        home = home_of(root, self._module)
        return ast.Name(written if home == root else f"~{home}.{rest}")


def annotation(written: Any, module: str) -> str:
    """An annotation for Sphinx, with full names."""
    if not isinstance(written, str):
        return stringify_annotation(written, "smart")
    return ast.unparse(_Homes(module).visit(ast.parse(written, mode="eval")))


def show(
    app: Sphinx, kind: str, name: str, subject: Any, options: Any, arguments: str, returns: str
) -> tuple[str, str] | None:
    """The signature of a function, a method or a class."""
    # "()": the page says so, of what users do not make themselves.
    if arguments in {None, "", "()"} or kind not in {"class", "exception", "function", "method"}:
        return None
    is_class = kind in {"class", "exception"}
    if not is_class:
        _forget_overloads(subject)
    maker = subject.__init__ if is_class else subject
    module = getattr(maker, "__module__", subject.__module__)
    signature = inspect.signature(subject)
    shown = [
        parameter.replace(
            annotation=_source(parameter.annotation, module),
            default=_default(parameter.default),
        )
        for parameter in signature.parameters.values()
        if parameter.name not in {"self", "cls"}
    ]
    inner = str(inspect.Signature(shown))
    if is_class or signature.return_annotation is inspect.Signature.empty:
        return inner, ""
    return inner, annotation(signature.return_annotation, module)


def _forget_overloads(subject: Any) -> None:
    # Sphinx's own analysis, which it makes once for each module.
    analysis = ModuleAnalyzer.for_module(subject.__module__)
    analysis.analyze()
    analysis.overloads.pop(subject.__qualname__, None)


def _source(written: Any, module: str) -> Any:
    if written is inspect.Parameter.empty:
        return written
    return _Source(annotation(written, module))


def _default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return value
    if inspect.isroutine(value) or isinstance(value, type):
        return _Source(value.__name__)
    if isinstance(value, Enum):
        return _Source(f"{type(value).__name__}.{value.name}")
    # What a dataclass makes anew for each instance.
    return _Source("...") if repr(value) == "<factory>" else value


def keep_colons(
    app: Sphinx, kind: str, name: str, subject: Any, options: Any, lines: list[str]
) -> None:
    """The text of an attribute is all text: napoleon takes what is before a colon for its type."""
    if kind in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.connect("autodoc-process-signature", show)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    return {"parallel_read_safe": True}
