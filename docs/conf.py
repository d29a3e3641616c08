"""Configuration of Sphinx: sphinx-build -W docs docs/_build (or: make docs)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hesspipe

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import read_notebook  # of this folder, where Sphinx does not look

project = "hesspipe"
author = "The hesspipe authors"
release = version = hesspipe.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "gallery"]

html_theme = "furo"
html_title = f"hesspipe {release}"
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
# The docstrings give the types, with shapes and units.
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False


def escape_norms(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |x| in a docstring be a norm, and not a substitution of reStructuredText."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else line.replace("|", "\\|")
        for line in lines
    ]


def setup(app: Any) -> None:
    """Connect the handlers; called by Sphinx."""
    app.connect("autodoc-process-docstring", escape_norms)
    app.connect("source-read", read_notebook)
