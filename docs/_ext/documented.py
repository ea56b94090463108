"""Where the reference has what the code calls by another name.

A module knows a class by the name it imported. What that is, is found by the object: its home
is the module that defines it, which the reference knows as another name of what a door shows.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import trioglock

__all__ = ["Alias", "aliases", "home_of", "modules", "type_variables"]


@dataclass(frozen=True)
class Alias:
    """A type alias as it stands in the code.

    Args:
        module: that defines it.
        name: its own.
        value: what it stands for, as source.
        text: what stands below it.
    """

    module: str
    name: str
    value: str
    text: str


@cache
def modules() -> dict[str, ModuleType]:
    """Every module of trioglock by its name, but not of the command line, which nobody imports."""
    names = ["trioglock"]
    for entry in pkgutil.iter_modules(trioglock.__path__, "trioglock."):
        if entry.name not in {"trioglock.__main__", "trioglock.cli"}:
            names.append(entry.name)
            place = [str(Path(trioglock.__path__[0], entry.name.partition(".")[2]))]
            inner = pkgutil.walk_packages(place, f"{entry.name}.") if entry.ispkg else ()
            names += [module.name for module in inner]
    return {name: importlib.import_module(name) for name in names}


@cache
def aliases() -> dict[str, Alias]:
    """Every type alias by its full name."""
    found = {}
    for name, module in modules().items():
        for alias in _aliases_in(name, ast.parse(inspect.getsource(module)).body):
            found[f"{name}.{alias.name}"] = alias
    return found


def _aliases_in(module: str, body: list[ast.stmt]) -> Iterator[Alias]:
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"), value=value
            ) if value is not None:
                yield Alias(module, name, ast.unparse(value), _text_of(following))


def _text_of(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str() as text)):
            return inspect.cleandoc(text)
    return ""


@cache
def type_variables() -> frozenset[str]:
    """The names of all type variables, with and without their modules."""
    names = {
        (module, name)
        for module, inside in modules().items()
        for name, value in vars(inside).items()
        if isinstance(value, TypeVar)
    }
    return frozenset(name for _, name in names) | {".".join(pair) for pair in names}


def home_of(name: str, module: str) -> str:
    """The full name of what a module calls ``name``; the name itself where it has no other."""
    inside = modules().get(module)
    value = getattr(inside, name, None)
    if value is None or isinstance(value, TypeVar):
        return name
    origin = getattr(value, "__module__", None)
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__qualname__ if origin == "builtins" else f"{origin}.{value.__qualname__}"
    if isinstance(value, ModuleType):
        return value.__name__
    same = (
        f"{definer}.{name}"
        for definer, inside in modules().items()
        if vars(inside).get(name) is value and name in _assigned(definer)
    )
    return next(same, f"{origin}.{name}" if origin else name)


@cache
def _assigned(module: str) -> frozenset[str]:
    """The names that a module gives a value, itself."""
    names = set()
    for statement in ast.parse(inspect.getsource(modules()[module])).body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    return frozenset(names)
