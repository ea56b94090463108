"""Resolves references to internal names, which Sphinx cannot resolve.

A signature contains ``trioglock.client.dialer.URLSource`` or only ``URLSource``, but the reference
has an entry only for the public name. This extension finds the entries with the same last part, and
uses the one whose module shares most packages with the name. If there is no such entry, Sphinx
warns and the build fails.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from docutils import nodes
from pygments.lexers import BashLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import TypeAliasForwardRef

__all__ = ["setup"]

# Sphinx shows an alias inside another type by its repr.
TypeAliasForwardRef.__repr__ = lambda self: self.name  # type: ignore[method-assign]


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Node | None:
    """Find the entry for a name in a signature or docstring."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    module, name = split(node["reftarget"])
    entries = [
        known
        for known, entry in domain.objects.items()
        if not entry.aliased and known.endswith(f".{name}")
    ]
    if not entries:
        return None
    near = str(node.get("py:module") or "") if module in {"", "alias"} else module
    best = max(entries, key=lambda known: (shared_parts(known, near), -len(known)))
    kind = domain.objects[best].objtype
    return domain.resolve_xref(env, node["refdoc"], app.builder, kind, best, node, text)


def shared_parts(name: str, module: str) -> int:
    """Count the packages that two names have in common."""
    pairs = zip(name.split("."), module.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def split(target: str) -> tuple[str, str]:
    """Split a target into its module and the name in it: the class and its member, if any."""
    parts = target.split(".")
    classes = [number for number, part in enumerate(parts) if part[:1].isupper()]
    start = classes[0] if classes else len(parts) - 1
    return ".".join(parts[:start]), ".".join(parts[start:])


def unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Replace links to folders by their text: only a code host can show them."""
    page = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(pending_xref)):
        if node["reftype"] == "myst" and (page / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def keep_colons(
    app: Sphinx, kind: str, name: str, subject: object, options: object, lines: list[str]
) -> None:
    """Prevent napoleon from treating text before a colon as the type of an attribute."""
    if kind in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the handlers with Sphinx."""
    # The default lexer treats commands without a prompt as output.
    app.add_lexer("console", BashLexer)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", unlink_folders)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    return {"parallel_read_safe": True}
