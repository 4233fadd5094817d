"""Sphinx's settings: `make docs` builds these pages, and the reference from the docstrings, without a network."""

from __future__ import annotations

from robustsearch import __version__

project = "robustsearch"
author = "The robustsearch developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `name` for code

html_theme = "furo"
html_title = "robustsearch"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

apidoc_modules = [
    {"path": f"../{package}", "destination": "reference", "separate_modules": True}
    for package in ("robustsearch", "search_spaces", "analysis")
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
