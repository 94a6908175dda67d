"""Sphinx: `sphinx-build -W -b html docs build/docs`, or `tox -e docs`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import django
from django.conf import settings

root = Path(__file__).parent.parent
sys.path.insert(0, str(root))  # so that what is documented is what is here, installed or not
pyproject = tomllib.loads((root / "pyproject.toml").read_text())

project = "django-nats"
author = copyright = "the django-nats contributors"
release = version = pyproject["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
highlight_language = "text"
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
nitpicky = False
default_role = "code"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
add_module_names = False

html_theme = "furo"
html_title = "django-nats"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False

if not settings.configured:
    settings.configure(SECRET_KEY="docs", USE_TZ=True)
    django.setup()
