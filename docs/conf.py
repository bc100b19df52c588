"""The documentation site: `make docs` builds it into site/, and every warning is an error.

The pages are the Markdown files of this folder as they are, the reference comes from the docstrings. What the site
needs beyond that is in ``_site/``, a file each.
"""

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Autodoc imports MPI, and without a launcher Open MPI leaves 16 MiB in /dev/shm (open-mpi/ompi#13261).
os.environ.setdefault("OMPI_MCA_btl", "self")

import coupler  # noqa: E402, found by the line above
from docs._site import command_line, docstrings, pages  # noqa: E402

project = "coupler"
author = "The coupler authors"
copyright = f"2026, {author}"  # noqa: A001, the name is Sphinx's
release = version = coupler.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Changes are gathered into one page, see project/changes.md.
exclude_patterns = ["changes/*.*.md", "_site"]
source_suffix = {".md": "markdown"}
templates_path: list[str] = []

# Headings can be linked to by their words, as on a forge; so that `page.md#a-heading` is checked here, too.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

# Docstrings say types with shapes and units; annotations would say less.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Shapes such as (steps, n) are looked up as if they were types, and some have namesakes.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"coupler {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path: list[str] = []
# The site is complete in itself: it is read on machines without a network.
html_theme_options = {"navigation_with_keys": True}
linkcheck_anchors = False


def setup(app: Any) -> None:
    """Put our parts in."""
    pages.setup(app)
    docstrings.setup(app)
    command_line.setup(app)
