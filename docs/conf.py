"""How Sphinx makes HTML of the documents; ``nox -s docs`` runs it.

The source is the root of the project, so that one relative link leads from page to page here and
on a code host. ``DOCS_INTERSPHINX=1`` links to the documents of Python and of trio as well, which
needs the network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from trioglock._version import __version__  # noqa: E402 - the path comes first

project = "trioglock"
author = "the authors of trioglock"
copyright = "the authors of trioglock; Apache License 2.0"  # noqa: A001 - Sphinx's word
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "references",
    "signatures",
    "type_aliases",
]

# Where documents are; nothing else is looked into.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "newsfragments/README.md"]
WITH_PAGES = {"docs", "newsfragments"}
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in WITH_PAGES
]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# The report of the benchmarks is written below one heading and with smaller ones.
suppress_warnings = ["myst.header"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

nitpicky = True
# Modules of others; what belongs to trioglock must always be found.
FOREIGN = (
    "collections|contextlib|datetime|logging|opentelemetry|os|pathlib|random|re|ssl|trio|typing"
    "|websockets"
)
nitpick_ignore_regex = [("py:.*", rf"({FOREIGN})(\..*)?")]

if os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

html_theme = "furo"
html_title = f"trioglock {release}"
html_static_path = ["static"]
html_css_files = ["reference.css"]
# The site's first page is below docs/; whoever asks for the folder gets there too.
html_additional_pages = {"index": "home.html"}
templates_path = ["templates"]
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
