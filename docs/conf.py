"""Sphinx's settings: `make docs` builds these pages, and the reference from the docstrings, without a network."""

from __future__ import annotations

import re

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
    {"path": f"../{package}", "destination": f"reference/{package}", "separate_modules": True}
    for package in ("robustsearch", "search_spaces", "analysis")
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_default_options = {"ignore-module-all": True}
suppress_warnings = ["ref.python"]  # a type annotation that two modules export


def as_restructured_text(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Our docstrings are prose with `code`, |norms| and indented trees; here they become what Sphinx reads."""
    text = "\n".join(lines)
    parts = re.split(r"(`+[^`]+`+)", text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f"``{part.strip('`')}``\\ "
        else:
            parts[place] = re.sub(r"([|*])", r"\\\1", part)
    text = "".join(parts)
    if what in ("module", "class"):  # an indented block after an empty line is a tree or a formula
        text = re.sub(r"(?<=\n)\n(?=    +\S)(?<!^ )", "\n::\n\n", text)
    lines[:] = text.split("\n")


def setup(app: object) -> None:
    """Before napoleon, which has priority 500."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # type: ignore[attr-defined]
