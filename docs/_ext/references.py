"""Finds trioglock's own names where Sphinx does not.

A docstring names its neighbours as its own module sees them, ``:class:`Beat```. Sphinx finds what
stands at the same door or is named in full. The rest is found here: by the object, where a room
is named that imports it, or by its last part, if only one thing has that. What is not found
stays a warning, which fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path

from documented import home_of, modules, type_variables
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import get_node_source

ROOT = Path(__file__).parent.parent.parent


def find(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Node | None:
    """Resolve what Sphinx has not found."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    # They have no entry: a signature says all there is to know.
    if target in type_variables():
        return text
    domain = env.domains.python_domain
    name = _by_object(domain, target) or _by_last_part(domain, target, _docstring_of(node))
    if name is None:
        return None
    kind = domain.objects[name].objtype
    return domain.resolve_xref(env, node["refdoc"], app.builder, kind, name, node, text)


def _by_object(domain: PythonDomain, target: str) -> str | None:
    module, _, name = target.rpartition(".")
    home = home_of(name, module) if module in modules() else ""
    return home if home in domain.objects else None


def _docstring_of(node: pending_xref) -> str:
    """The full name of whatever has the docstring that a reference is in."""
    found = re.search(r"docstring of ([\w.]+)", get_node_source(node) or "")
    return found[1] if found else ""


def _by_last_part(domain: PythonDomain, target: str, where: str) -> str | None:
    # wire.Message: the module is named as the one that imports it names it.
    last = target.rpartition(".")[2] if target[:1].islower() else target
    known = [
        name
        for name, entry in domain.objects.items()
        if not entry.aliased and name.endswith((f".{target}", f".{last}"))
    ]
    beside = [name for name in known if where.startswith(name.rpartition(".")[0] + ".")]
    return next((found[0] for found in (known, beside) if len(found) == 1), None)


def unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """A link to a folder of the project leads somewhere on a code host only: it is text here."""
    place = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(pending_xref)):
        target = place / node["reftarget"]
        if node["reftype"] == "myst" and target.is_dir():
            node.replace_self(node.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.connect("missing-reference", find)
    app.connect("doctree-read", unlink_folders)
    return {"parallel_read_safe": True}
