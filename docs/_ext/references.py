"""Finds trioglock's own names where Sphinx does not.

A docstring names its neighbours as its own module sees them, ``:class:`MessageHeartbeat```. Sphinx
finds what stands at the same door or is named in full. The rest is found here: by the object that
the module knows under the name, or by the name, if only one thing has it. What is not found stays a
warning, which fails the build.
"""

from __future__ import annotations

from pathlib import Path

from documented import home_of, modules, type_variables
from docutils import nodes
from sphinx.addnodes import desc, desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment

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
    module, _, last = target.rpartition(".")
    name = (
        _by_object(domain, target, _module_of(node))
        or _by_object(domain, last, module)
        or _by_last_part(domain, target)
    )
    if name is None:
        return None
    kind = domain.objects[name].objtype
    return domain.resolve_xref(env, node["refdoc"], app.builder, kind, name, node, text)


def _by_object(domain: PythonDomain, target: str, module: str) -> str | None:
    """What a module calls so, such as ``Link``, ``Link.write`` or ``wire.Message``."""
    first, _, rest = target.partition(".")
    home = home_of(first, module) + (f".{rest}" if rest else "")
    return home if home in domain.objects else None


def _module_of(node: nodes.Node) -> str:
    """The module that defines what has the docstring, or the signature, that a reference is in."""
    entry = node.parent
    while entry is not None and not isinstance(entry, desc):
        entry = entry.parent
    if entry is None:
        return ""
    signature = entry.next_node(desc_signature)
    assert signature is not None
    module = str(signature["module"])
    value: object = modules().get(module)
    for name in signature["fullname"].split("."):
        value = getattr(value, name, None)
        module = getattr(value, "__module__", None) or module
    return module


def _by_last_part(domain: PythonDomain, target: str) -> str | None:
    known = [
        name
        for name, entry in domain.objects.items()
        if not entry.aliased and name.endswith(f".{target}")
    ]
    return known[0] if len(known) == 1 else None


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
