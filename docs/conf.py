"""The configuration of the documentation site, which ``nox -s docs`` builds.

The source directory is the root of the project, so that the same relative links work here and on
a code host. Set ``DOCS_INTERSPHINX=1`` to link to the documentation of Python and trio, which
needs the network.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from trioglock._version import __version__  # noqa: E402 - follows sys.path

project = "trioglock"
author = "the authors of trioglock"
copyright = "the authors of trioglock; Apache License 2.0"  # noqa: A001 - required by Sphinx
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "names",
]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "newsfragments/README.md", "tests/README.md"]
WITH_PAGES = {"docs", "newsfragments", "tests"}
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in WITH_PAGES
]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# The headings of the benchmark report skip a level.
suppress_warnings = ["myst.header"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_class_signature = "mixed"
autodoc_typehints_format = "short"
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("trioglock/**/*.py"))
# Signatures show the name of a type alias, not its value. _ext/names.py resolves the name.
autodoc_type_aliases = {
    name: f"~alias.{name}" for name in re.findall(r"^(\w+): TypeAlias\b", SOURCE, re.MULTILINE)
}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

nitpicky = True
# Other libraries and type variables have no entries. All other names must have one.
FOREIGN = (
    "AbstractAsyncContextManager|collections|contextlib|contextvars|datetime|logging|opentelemetry"
    "|os|pathlib|random|re|ssl|trio|typing|websockets"
)
TYPE_VARIABLES = "|".join(re.findall(r"^(\w+) = TypeVar\(", SOURCE, re.MULTILINE))
nitpick_ignore_regex = [
    ("py:.*", rf"({FOREIGN})(\..*)?"),
    ("py:.*", rf"([\w.]+\.)?({TYPE_VARIABLES})"),
    ("py:class", r"alias\.Payload"),  # any value of JSON
    ("py:class", r"dict\[str"),  # Sphinx splits one generic type at its comma
]

if os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"trioglock {release}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f766e", "color-brand-content": "#0f766e"},
    "dark_css_variables": {"color-brand-primary": "#2dd4bf", "color-brand-content": "#2dd4bf"},
}
html_static_path = ["static"]
html_css_files = ["reference.css"]
# The start page is docs/index.html; index.html at the top redirects to it.
html_additional_pages = {"index": "home.html"}
templates_path = ["templates"]
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
