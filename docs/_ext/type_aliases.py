"""``.. alias:: trioglock.testing.Handler``: a type alias, what it stands for, and its text."""

from __future__ import annotations

from documented import aliases, home_of
from docutils import nodes
from signatures import annotation
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class AliasDirective(SphinxDirective):
    """Shows one alias; its argument is the full name at the door that users import it from."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """As Sphinx's own ``py:type``."""
        shown = self.arguments[0]
        module, _, name = shown.rpartition(".")
        home = home_of(name, module)
        alias = aliases().get(home)
        if alias is None:
            raise self.error(f"{shown} is no type alias of trioglock")
        if not alias.text:
            raise self.error(f"{home} has no text below it")
        lines = [
            f".. py:type:: {name}",
            f"   :module: {module}",
            f"   :canonical: {annotation(alias.value, alias.module)}",
            "",
            *(f"   {line}" for line in alias.text.splitlines()),
        ]
        made = self.parse_text_to_nodes("\n".join(lines))
        if home != shown:
            # Signatures name it by the module that defines it.
            domain = self.env.domains.python_domain
            domain.note_object(home, "type", domain.objects[shown].node_id, aliased=True)
        return made


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("alias", AliasDirective)
    return {"parallel_read_safe": True}
