"""Sphinx: `sphinx-build -W -b html docs build/docs`, or `tox -e docs`."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

root = Path(__file__).parent.parent
sys.path.insert(0, str(root))  # so that what is documented is what is here, installed or not

project = "django-nats"
author = copyright = "the django-nats contributors"
version = re.findall(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.M)[0]
release = version

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
highlight_language = "text"
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
nitpicky = False
default_role = "code"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["rest_framework"]  # it needs settings
autodoc_typehints = "signature"
add_module_names = False
toc_object_entries_show_parents = "hide"

# The button copies commands and statements, without prompts and without what they print.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

html_theme = "furo"
html_title = "django-nats"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", _unlink_builtins)
    app.connect("autodoc-process-signature", _name_default)


def _name_default(*event: Any) -> tuple[str | None, str | None]:
    """Django's mark for "no timeout given" has no repr that a reader could make sense of."""
    signature, returns = event[-2:]
    named = signature and re.sub("<object object[^>]*>", "DEFAULT_TIMEOUT", signature)
    return named and named.replace("DEFAULT_ALIAS", "'default'"), returns


def _unlink_builtins(app: Sphinx, doctree: document) -> None:
    """Make annotations such as bytes plain text: Sphinx would link them to attributes so named."""
    for reference in list(doctree.findall(pending_xref)):
        if hasattr(builtins, reference.get("reftarget", "")):
            reference.replace_self(reference.children)
